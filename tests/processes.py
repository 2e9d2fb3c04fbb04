"""Tally as a user runs it: in processes of their own, from the environment."""

import atexit
import fcntl
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import IO
from uuid import uuid4

import httpx

from tests.loopback import NO_CERTIFICATES
from tests.waiting import eventually

ROOT = Path(__file__).parents[1]
PATIENCE_S = 60


@contextmanager
def open_folder() -> Generator[Path]:
    """A folder that the server's unprivileged user can reach, which pytest's own is not."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment(**variables: object) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.endswith("DATABASE_URL")}
    return {
        **kept,
        "AUTH": "off",
        "ENV_FILE": "/dev/null",
        **{name: str(value) for name, value in variables.items()},
    }


def tally(*arguments: str, stdin: str = "", **variables: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "service", *arguments]
    return subprocess.run(
        command,
        cwd=ROOT,
        env=environment(**variables),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def start(output: IO[str] | int = subprocess.PIPE, **variables: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "service", "serve"],
        cwd=ROOT,
        env=environment(**variables),
        stdout=output,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def readiness(port: int) -> httpx.Response | None:
    """What the service says of itself; None while nothing listens."""
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health/ready", verify=NO_CERTIFICATES)
    except httpx.TransportError:
        return None


def until_ready(port: int) -> None:
    def ready() -> bool:
        answer = readiness(port)
        return answer is not None and answer.status_code == 200

    eventually(ready)


def until_gone(port: int) -> None:
    def gone() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) != 0

    eventually(gone)


@contextmanager
def seeded() -> Generator[Path]:
    """A DATA_DIR with the sample company, as `tally migrate` and `tally seed` leave it."""
    with open_folder() as folder:
        # with its owners, and no server runs on it
        subprocess.run(["cp", "-a", f"{_company()}/.", folder], check=True)
        yield folder


@cache
def _company() -> Path:
    """The one that all others are copies of; the first worker of a run that needs it makes it for all."""
    if not (folder := os.environ.get("TALLY_TEST_FOLDER")):
        own = ExitStack()
        atexit.register(own.close)
        return _made(own.enter_context(open_folder()) / "company")
    with (Path(folder) / "company.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        company = Path(folder) / "company"
        return company if company.exists() else _made(company)


def _made(company: Path) -> Path:
    """Under another name until it is whole."""
    half = company.with_name(f"company-{uuid4().hex}")
    half.mkdir()
    half.chmod(0o755)
    for command in ("migrate", "seed"):
        done = tally(command, DATA_DIR=half)
        assert done.returncode == 0, done.stderr
    return half.rename(company)


@contextmanager
def serving_seeds(**variables: object) -> Generator[str]:
    """The whole service over the seeds, with more settings; its base address."""
    port = free_port()
    with seeded() as folder:
        with (folder / "log").open("w") as log:  # a pipe that nobody reads would fill and hold it up
            service = start(log, DATA_DIR=folder, PORT=port, **variables)
        try:
            until_ready(port)
            yield f"http://127.0.0.1:{port}"
        finally:
            service.send_signal(signal.SIGTERM)
            service.communicate(timeout=20)
