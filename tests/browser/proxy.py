"""What stands before the service: it gives the page, passes on `/api`, and answers 502 without a service."""

import asyncio
from asyncio import StreamReader, StreamWriter
from contextlib import suppress

from msgspec import Struct, field

from tests.browser.stub import CLIENT, PAGE
from tests.processes import free_port

BAD_GATEWAY = b"<h1>502 Bad Gateway</h1>"


class Passed(Struct, eq=False):
    """A request on its way. `first` is its first line."""

    first: str
    writers: tuple[StreamWriter, ...]


class Proxy(Struct, eq=False):
    """A proxy with one request a connection. `behind` is the port of the service."""

    behind: int
    port: int = field(default_factory=free_port)
    refuse: str | None = None
    """The beginning of the paths that get 502."""
    swallow: bool = False
    """Whether answers are kept back, as by a proxy that buffers."""
    passing: list[Passed] = field(default_factory=list)
    server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def streams(self) -> list[str]:
        """The event streams that are open."""
        return [each.first for each in self.passing if "/events" in each.first]

    async def start(self) -> None:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def stop(self) -> None:
        assert self.server
        self.server.close()
        self.cut()
        await self.server.wait_closed()

    def cut(self) -> None:
        """Reset every connection, as a proxy that is killed."""
        for each in self.passing:
            for writer in each.writers:
                writer.transport.abort()

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            path = head.split(b" ")[1].decode()
            if path == "/":
                _reply(writer, "200 OK", "text/html", PAGE.encode())
            elif path == "/tally-live.js":
                _reply(writer, "200 OK", "text/javascript", CLIENT.read_bytes())
            elif not path.startswith("/api/"):
                _reply(writer, "404 Not Found", "text/plain", b"")
            elif self.refuse is not None and path.startswith(self.refuse):
                _reply(writer, "502 Bad Gateway", "text/html", BAD_GATEWAY)
            else:
                await self._pass_on(head, reader, writer)
            await writer.drain()
        writer.close()

    async def _pass_on(self, head: bytes, reader: StreamReader, writer: StreamWriter) -> None:
        try:
            answers, asks = await asyncio.open_connection("127.0.0.1", self.behind)
        except OSError:
            _reply(writer, "502 Bad Gateway", "text/html", BAD_GATEWAY)
            return
        first, _, fields = head.partition(b"\r\n")
        asks.write(first + b"\r\nConnection: close\r\n" + fields.replace(b"Connection: keep-alive\r\n", b""))
        passed = Passed(first.decode(), (writer, asks))
        self.passing.append(passed)
        try:
            ways = [asyncio.create_task(self._copy(*way)) for way in ((reader, asks), (answers, writer))]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
        finally:
            self.passing.remove(passed)
            asks.close()

    async def _copy(self, reader: StreamReader, writer: StreamWriter) -> None:
        with suppress(ConnectionError):
            while part := await reader.read(1 << 16):
                if not self.swallow:
                    writer.write(part)
                    await writer.drain()


def _reply(writer: StreamWriter, status: str, kind: str, body: bytes) -> None:
    lines = [
        f"HTTP/1.1 {status}",
        f"Content-Type: {kind}",
        f"Content-Length: {len(body)}",
        "Connection: close",
    ]
    writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
