"""An HTTP server that misbehaves on purpose: one act per request, the last act again and again."""

import asyncio
import gzip
import socket
import struct
from asyncio import StreamReader, StreamWriter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Self

Act = Callable[[StreamReader, StreamWriter], Awaitable[None]]


class Misbehaving:
    def __init__(self, *acts: Act) -> None:
        self.acts = acts
        self.requests: list[str] = []
        self.most_connections = 0
        self._writers: set[StreamWriter] = set()
        self._news = asyncio.Event()
        self._deserted = asyncio.Event()
        self._deserted.set()

    @property
    def url(self) -> str:
        host, port = self._server.sockets[0].getsockname()
        return f"http://{host}:{port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=512)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await self.deserted()

    async def asked(self, times: int) -> None:
        """Return when that many requests have come in."""
        while len(self.requests) < times:
            self._news.clear()
            await self._news.wait()

    async def deserted(self) -> None:
        """Return when every client has hung up."""
        await self._deserted.wait()

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        self._writers.add(writer)
        self.most_connections = max(self.most_connections, len(self._writers))
        self._deserted.clear()
        try:
            while not writer.is_closing():
                self.requests.append((await reader.readuntil(b"\r\n\r\n")).decode("latin-1"))
                self._news.set()
                act = self.acts[min(len(self.requests), len(self.acts)) - 1]
                await act(reader, writer)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client has left
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
            self._writers.remove(writer)
            if not self._writers:
                self._deserted.set()


def answer(status: int = 200, body: bytes = b"{}", **headers: str) -> Act:
    async def act(_: StreamReader, writer: StreamWriter) -> None:
        fields = {"content_type": "application/json", "content_length": str(len(body)), **headers}
        head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
        writer.write(f"HTTP/1.1 {status} Whatever\r\n{head}\r\n".encode() + body)

    return act


def busy_until(seconds: float) -> Act:
    """Answer 503 with a `Retry-After` date, that many seconds from when it is asked."""

    async def act(reader: StreamReader, writer: StreamWriter) -> None:
        date = format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)
        await answer(503, retry_after=date)(reader, writer)

    return act


def gzipped(body: bytes, *, cut: int = 0) -> Act:
    packed = gzip.compress(body)
    return answer(body=packed[: len(packed) - cut], content_encoding="gzip")


async def hang(reader: StreamReader, _: StreamWriter) -> None:
    await reader.read()


async def drip(_: StreamReader, writer: StreamWriter) -> None:
    """Answer a byte a second: never silent, never done."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n[")
    for _second in range(999):
        await writer.drain()
        await asyncio.sleep(1)
        writer.write(b" ")


async def hundred_megabytes(reader: StreamReader, writer: StreamWriter) -> None:
    await flood(200)(reader, writer)


def flood(status: int, *, first: bytes = b"", part: bytes = b" " * 65536, coding: str = "identity") -> Act:
    """Answer `first` and then 1600 parts, with this status."""

    async def act(_: StreamReader, writer: StreamWriter) -> None:
        length = len(first) + 1600 * len(part)
        fields = f"Content-Length: {length}\r\nContent-Encoding: {coding}\r\nLocation: /elsewhere"
        writer.write(f"HTTP/1.1 {status} Whatever\r\n{fields}\r\n\r\n".encode() + first)
        for _part in range(1600):
            writer.write(part)
            await writer.drain()

    return act


async def reset(_: StreamReader, writer: StreamWriter) -> None:
    """Cut the connection in the middle of the body, with a TCP reset."""
    writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"half":')
    await writer.drain()
    peer: socket.socket = writer.get_extra_info("socket")
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def hang_up(_: StreamReader, writer: StreamWriter) -> None:
    writer.close()


async def prattle(_: StreamReader, writer: StreamWriter) -> None:
    writer.write(b"I am no HTTP server\r\n\r\n")
    writer.close()
