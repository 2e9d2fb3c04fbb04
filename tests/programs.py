"""Programs that Debian or npm brings and pip does not.

Without one of them its tests are skipped, with a reason that says how to get it. With `EVERY_PROGRAM` in the
environment, as `.ci/run` sets it, they fail instead: what is skipped on one's own machine runs there.
"""

import os
import shutil
from pathlib import Path
from typing import Final, NoReturn

import pytest

PACKAGES: Final = {
    "chromium-headless-shell": "chromium-headless-shell",
    "nginx": "nginx-light",
    "promtool": "prometheus",
    "redis-cli": "redis-tools",
    "redis-server": "redis-server",
    "systemd-analyze": "systemd",
}
NEXT: Final = frozenset({"pgbouncer-next", "valkey-server"})
"""Programs that Debian 12 has not, or too old. `.ci/run` goes on where they cannot be had."""
BROWSER: Final = Path(__file__).parent / "browser"
PATH: Final = f"{os.environ['PATH']}:/usr/sbin"


def program(name: str, *others: str) -> str:
    """The path of a program, or of one that does as well."""
    found = next(filter(None, (shutil.which(each, path=PATH) for each in (name, *others))), None)
    if found is None:
        if name in NEXT:
            pytest.skip(f"{name} is not installed: .ci/next-debian")
        _lacks(f"{name} is not installed: apt-get install {PACKAGES[name]}")
    return found


def from_npm(path: str) -> Path:
    """A file of a package that `make test` has npm install for tests/browser."""
    found = BROWSER / "node_modules" / path
    if not found.exists():
        _lacks(f"npm could not install {path.split('/', maxsplit=1)[0]}: make test tries again")
    return found


def _lacks(what: str) -> NoReturn:
    if "EVERY_PROGRAM" in os.environ:
        pytest.fail(what)
    pytest.skip(what)
