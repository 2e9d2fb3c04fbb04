"""Stands between the service and Postgres: cuts and silences connections, and knows when a worker was told of
a commit.
"""

import asyncio
import re
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit, urlunsplit

from service.results.changes import CHANNEL

LISTEN = f'LISTEN "{CHANNEL}"'.encode()
ANNOUNCED = re.compile(CHANNEL.encode() + rb"\0data\.metrics ([0-9]+)\0")
LONGEST_NOTIFICATION = 200


class Ear:
    """A connection that listens: since when, and when each transaction was announced to it."""

    def __init__(self) -> None:
        self.since: float | None = None
        self.told: dict[int, float] = {}
        self._tail = b""

    def read(self, data: bytes) -> None:
        now = time.perf_counter()
        if self.since is None:
            self.since = now
        for xid in ANNOUNCED.findall(self._tail + data):
            self.told.setdefault(int(xid), now)
        self._tail = data[-LONGEST_NOTIFICATION:]


class Relay:
    """`open` counts connections. `ears` are those that listen now."""

    def __init__(self, host: str, port: int) -> None:
        self._target = host, port
        self.ears: set[Ear] = set()
        self.open = 0
        self.refuses = False
        self._flows = asyncio.Event()
        self._flows.set()
        self._writers: set[asyncio.StreamWriter] = set()

    def cut(self) -> None:
        """Close every connection."""
        for writer in list(self._writers):
            writer.transport.abort()

    def silence(self) -> None:
        """Pass nothing on, as a network without a route does."""
        self._flows.clear()

    def speak(self) -> None:
        self._flows.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refuses:
            writer.transport.abort()
            return
        await self._flows.wait()
        try:
            up_reader, up_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        ear = Ear()
        self.open += 1
        self._writers |= {writer, up_writer}
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, up_writer, ear, asked=True))
                group.create_task(self._pump(up_reader, writer, ear, asked=False))
        finally:
            self.open -= 1
            self.ears.discard(ear)
            self._writers -= {writer, up_writer}
            for each in (writer, up_writer):
                each.transport.abort()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ear: Ear, *, asked: bool
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(1 << 16):
                await self._flows.wait()
                writer.write(data)
                if asked and LISTEN in data:
                    self.ears.add(ear)
                elif not asked and ear in self.ears:
                    ear.read(data)
                await writer.drain()
        if writer.can_write_eof():
            with suppress(OSError, RuntimeError):
                writer.write_eof()
        if not asked:  # Postgres has gone: so has the session
            writer.close()


@asynccontextmanager
async def relaying(url: str) -> AsyncGenerator[tuple[Relay, int]]:
    """A relay to this address, and its port."""
    target = urlsplit(url)
    relay = Relay(target.hostname or "", target.port or 0)
    async with await asyncio.start_server(relay.serve, "127.0.0.1", 0) as server:
        yield relay, server.sockets[0].getsockname()[1]
        relay.speak()
        relay.cut()


def through(url: str, port: int) -> str:
    """The address with another port."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{parts.username}:{parts.password}@127.0.0.1:{port}"))
