"""What tokens cost: requests a second with AUTH=off, with one token, and with 10,000 in rotation.

Run with DATABASE_URL and READER_DATABASE_URL of a migrated database, or with neither for the embedded one:
`.venv/bin/python tests/bench/tokens.py`. Rounds alternate, and the best of each counts: other work on the
machine only ever slows a round down.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import cycle
from pathlib import Path

import uvloop

from service.auth.issuer import Issuer, KeyFile
from service.database.embedded import running
from service.database.migrate import migrate

CONNECTIONS = 32
ROUNDS = 5
SECONDS = 3.0
TOKENS = 10_000
PATH = "/api/v1/metrics"


def request(token: str | None) -> bytes:
    header = f"Authorization: Bearer {token}\r\n" if token else ""
    return f"GET {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\n{header}\r\n".encode()


async def rate(port: int, requests: list[bytes], seconds: float) -> float:
    """Requests a second over keep-alive connections that take turns through `requests`."""
    turn, done = cycle(requests), 0
    end = time.perf_counter() + seconds

    async def ask() -> None:
        nonlocal done
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.perf_counter() < end:
            writer.write(next(turn))
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200"):
                sys.exit(head.decode())
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            done += 1
        writer.close()

    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(CONNECTIONS):
            group.create_task(ask())
    return done / (time.perf_counter() - started)


def memory_mb(pid: int) -> float:
    """Resident memory of a process and its children."""
    own = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return own + sum(memory_mb(int(child)) for child in children)


@contextmanager
def service(auth: str, folder: Path, addresses: dict[str, str]) -> Iterator[tuple[int, int]]:
    """A service of its own; its port and process id."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    env = (
        os.environ
        | addresses
        | {"AUTH": auth, "PORT": str(port), "DATA_DIR": str(folder), "LOG_LEVEL": "error"}
    )
    with subprocess.Popen(
        [sys.executable, "-m", "service", "serve"], env=env, stdout=subprocess.DEVNULL
    ) as process:
        try:
            for _ in range(200):
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health").close()
                    break
                except (urllib.error.URLError, ConnectionError):
                    time.sleep(0.05)
            yield port, process.pid
        finally:
            process.send_signal(signal.SIGTERM)


def database(stack: ExitStack, folder: Path) -> dict[str, str]:
    if "DATABASE_URL" in os.environ:
        return {name: os.environ[name] for name in ("DATABASE_URL", "READER_DATABASE_URL")}
    server = stack.enter_context(running(folder))
    migrate(server.owner_url, server.reader_url, ("data",))
    return {"DATABASE_URL": server.owner_url, "READER_DATABASE_URL": server.reader_url}


def main() -> None:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.chmod(0o755)
        addresses = database(stack, folder)
        keys = folder / "on"
        off, _ = stack.enter_context(service("off", folder / "off", addresses))
        on, pid = stack.enter_context(service("on", keys, addresses))
        issuer = Issuer(f"http://127.0.0.1:{on}", KeyFile(keys))
        many = [request(issuer.sign(f"poller-{number}", ["metrics:read"])) for number in range(TOKENS)]
        cases = {
            "AUTH=off": (off, [request(None)]),
            "one token": (on, many[:1]),
            f"{TOKENS} tokens": (on, many),
        }
        before = memory_mb(pid)
        best = dict.fromkeys(cases, 0.0)
        for _ in range(ROUNDS):
            for name, (port, requests) in cases.items():
                best[name] = max(best[name], uvloop.run(rate(port, requests, SECONDS)))
        baseline = best["AUTH=off"]
        for name, found in best.items():
            print(f"{name:14} {found:8.0f} requests/s  {found / baseline:.2f}")  # noqa: T201 (a script)
        print(f"memory with AUTH=on: {before:.0f} MB before, {memory_mb(pid):.0f} MB after")  # noqa: T201 (a script)


if __name__ == "__main__":
    main()
