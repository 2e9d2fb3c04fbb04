"""Receivers of webhooks and mails on loopback: they keep what comes, and answer as a test wants."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from msgspec import Struct

Answer = Callable[["Receiver", "Received"], bytes | Awaitable[bytes] | None]


class Received(Struct):
    """One request."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)


class Receiver(Struct):
    """`answer` gives the whole response for a request; None hangs until the receiver closes."""

    url: str
    requests: list[Received]
    answer: Answer
    open: asyncio.Event

    @property
    def events(self) -> list[str]:
        return [each.json["event"] for each in self.requests]


def status(code: int, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {code} X", *headers, "Content-Length: 0", "Connection: close", "", ""]
    return "\r\n".join(lines).encode()


def accept(_receiver: Receiver, _request: Received) -> bytes:
    return status(204)


@asynccontextmanager
async def receiving(answer: Answer = accept) -> AsyncGenerator[Receiver]:
    closing = asyncio.Event()
    receiver = Receiver("", [], answer, closing)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            first, *lines = head.split("\r\n")
            headers = {
                name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
            }
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            request = Received(first.split(" ")[1], headers, body)
            receiver.requests.append(request)
            response = receiver.answer(receiver, request)
            if response is None:
                await closing.wait()
                return
            writer.write(response if isinstance(response, bytes) else await response)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    receiver.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
    try:
        yield receiver
    finally:
        closing.set()
        server.close()
        await server.wait_closed()


class Mailbox(Struct):
    """A mail server that takes everything. `refuses`: the answer to a recipient instead."""

    port: int
    mails: list[str]
    refuses: str = ""


@asynccontextmanager
async def taking_mail() -> AsyncGenerator[Mailbox]:
    box = Mailbox(0, [])

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def say(line: str) -> None:
            writer.write(f"{line}\r\n".encode())

        say("220 box")
        try:
            while line := (await reader.readline()).decode().strip():
                word = line.split(" ")[0].upper()
                if word == "DATA":
                    say("354 go on")
                    box.mails.append((await reader.readuntil(b"\r\n.\r\n")).decode())
                    say("250 taken")
                elif word == "RCPT" and box.refuses:
                    say(box.refuses)
                else:
                    say("221 bye" if word == "QUIT" else "250 ok")
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    box.port = server.sockets[0].getsockname()[1]
    try:
        yield box
    finally:
        server.close()
        await server.wait_closed()
