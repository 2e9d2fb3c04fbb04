"""Programs that Debian brings and pip does not.

Without one of them its tests are skipped, with a reason that says how to get it. With `EVERY_PROGRAM` in the
environment, as `.ci/run` sets it, they fail instead: what is skipped on one's own machine runs there.
"""

import os
import shutil
from typing import Final

import pytest

PACKAGES: Final = {
    "chromium": "chromium",
    "nginx": "nginx-light",
    "promtool": "prometheus",
    "redis-cli": "redis-tools",
    "redis-server": "redis-server",
    "systemd-analyze": "systemd",
}
NEXT: Final = frozenset({"pgbouncer-next", "valkey-server"})
"""Programs that Debian 12 has not, or too old. `.ci/run` goes on where they cannot be had."""
PATH: Final = f"{os.environ['PATH']}:/usr/sbin"


def program(name: str, *others: str) -> str:
    """The path of a program, or of one that does as well."""
    found = next(filter(None, (shutil.which(each, path=PATH) for each in (name, *others))), None)
    if found is not None:
        return found
    if name in NEXT:
        pytest.skip(f"{name} is not installed: .ci/next-debian")
    missing = f"{name} is not installed: apt-get install {PACKAGES[name]}"
    if "EVERY_PROGRAM" in os.environ:
        pytest.fail(missing)
    pytest.skip(missing)
