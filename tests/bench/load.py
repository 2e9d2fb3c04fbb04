"""Load for measurements: keep-alive connections, whole answers read, rounds that alternate between cases.

The best round of each case counts: other work on the machine only ever slows a round down.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import cycle
from pathlib import Path

import uvloop
from msgspec import Struct

from service.database.embedded import Server, running
from service.database.migrate import migrate

ROOT = Path(__file__).parents[2]
CONNECTIONS = 64
ROUNDS = 5
SECONDS = 2.0


class Case(Struct, frozen=True):
    """Requests, as sent, that take turns on one port."""

    port: int
    requests: Sequence[bytes]


def get(path: str, **headers: str) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{lines}\r\n".encode()


def best_rates(cases: Mapping[str, Case], *, connections: int = CONNECTIONS) -> dict[str, float]:
    """Requests a second of each case."""
    best = dict.fromkeys(cases, 0.0)
    for _ in range(ROUNDS):
        for name, case in cases.items():
            best[name] = max(best[name], uvloop.run(_rate(case, connections)))
    return best


def show(rates: Mapping[str, float], baseline: str) -> None:
    for name, found in rates.items():
        print(f"{name:40} {found:9.0f} requests/s  {found / rates[baseline]:.2f}")  # noqa: T201 (a script)


async def _rate(case: Case, connections: int) -> float:
    turn, done = cycle(case.requests), 0
    end = time.perf_counter() + SECONDS

    async def ask() -> None:
        nonlocal done
        reader, writer = await asyncio.open_connection("127.0.0.1", case.port)
        while time.perf_counter() < end:
            writer.write(next(turn))
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            if not head.startswith((b"http/1.1 200", b"http/1.1 304")):
                sys.exit(head.decode())
            if b"content-length: " in head:
                await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
            done += 1
        writer.close()

    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(ask())
    return done / (time.perf_counter() - started)


@contextmanager
def database() -> Iterator[Server]:
    """A migrated embedded Postgres of its own."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.chmod(0o755)
        server = stack.enter_context(running(folder))
        migrate(server.owner_url, server.reader_url, ("data",))
        yield server


@contextmanager
def served(server: Server, command: Sequence[str], **variables: str) -> Iterator[int]:
    """A server process over `server`, told by the environment where to listen; its port."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    env = os.environ | {
        "DATABASE_URL": server.owner_url,
        "READER_DATABASE_URL": server.reader_url,
        "PORT": str(port),
        "LOG_LEVEL": "error",
        "PYTHONPATH": str(ROOT),
        **variables,
    }
    with subprocess.Popen(
        [part.format(port=port) for part in command], env=env, stdout=subprocess.DEVNULL
    ) as process:
        try:
            _until_open(port)
            yield port
        finally:
            process.send_signal(signal.SIGTERM)


def _until_open(port: int) -> None:
    for _ in range(400):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    sys.exit(f"nothing listens on port {port}")


TALLY = (sys.executable, "-m", "service", "serve")


def raw(app: str) -> tuple[str, ...]:
    """A raw ASGI app of `tests/bench/peers` on the same server program as Tally."""
    granian = str(Path(sys.executable).with_name("granian"))
    target = f"tests.bench.peers.{app}"
    return (granian, "--interface", "asgi", "--loop", "uvloop", "--no-log", "--port", "{port}", target)
