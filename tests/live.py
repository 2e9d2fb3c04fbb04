"""Clients of live results: event streams and sockets on a service in this process."""

import asyncio
import json
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

from msgspec import Struct

PATIENCE_S = 30


class Event(Struct):
    """One event of a stream, or one message of a socket by its `type`."""

    name: str
    id: str = ""
    data: object = None
    retry: int | None = None

    @property
    def n(self):
        """The only value of a result."""
        (record,) = self.data["records"]
        return record["n"]


class _Client:
    """One ASGI connection. With `reads` false it takes one message and then no more."""

    def __init__(self, client, path, kind, headers):
        parts = urlsplit(path)
        self.app = client._transport.app
        fields = {"host": "127.0.0.1:8000", **headers}
        self.scope = {
            "type": kind,
            "http_version": "1.1",
            "path": parts.path,
            "raw_path": parts.path.encode(),
            "root_path": "",
            "scheme": "http",
            "query_string": parts.query.encode(),
            "headers": [(name.lower().encode(), value.encode()) for name, value in fields.items()],
            "client": ("127.0.0.1", 40000),
            "server": ("127.0.0.1", 8000),
            "state": {},
        }
        if kind == "http":
            self.scope["method"] = "GET"
        self.kind = kind
        self.sent = asyncio.Queue()
        self.received = asyncio.Queue()
        self.reads = asyncio.Event()
        self.reads.set()
        self.written = 0

    async def receive(self):
        return await self.received.get()

    async def send(self, message):
        await self.reads.wait()
        self.written += 1
        self.sent.put_nowait(message)
        if message["type"] == "websocket.close" or message.get("more_body") is False:
            self.received.put_nowait({"type": f"{self.kind}.disconnect"})

    async def next(self):
        async with asyncio.timeout(PATIENCE_S):
            return await self.sent.get()

    @asynccontextmanager
    async def running(self):
        task = asyncio.create_task(self.app(self.scope, self.receive, self.send))
        self.task = task
        try:
            yield self
        finally:
            self.reads.set()
            self.received.put_nowait({"type": f"{self.kind}.disconnect"})
            async with asyncio.timeout(PATIENCE_S):
                await task


class Stream(_Client):
    """A reader of an event stream."""

    def __init__(self, client, path, headers, body=None):
        super().__init__(client, path, "http", headers)
        if body is not None:
            self.scope["method"] = "POST"
        self.received.put_nowait({"type": "http.request", "body": body or b"", "more_body": False})
        self.text = b""
        self.ended = False

    async def open(self):
        start = await self.next()
        self.status = start["status"]
        self.headers = {name.decode(): value.decode() for name, value in start["headers"]}
        if self.status != 200:
            self.problem = json.loads((await self.next()).get("body") or b"null")
        return self

    async def event(self):
        """The next event; None at the end. Comments are skipped."""
        assert self.status == 200, self.problem
        while True:
            while b"\n\n" not in self.text:
                if self.ended:
                    return None
                message = await self.next()
                self.text += message["body"]
                self.ended = not message["more_body"]
            block, _, self.text = self.text.partition(b"\n\n")
            if not block.startswith(b":"):
                return parsed(block.decode())

    async def events(self, number):
        return [await self.event() for _ in range(number)]


def parsed(block):
    fields = [line.partition(": ") for line in block.split("\n")]
    data = "\n".join(value for name, _, value in fields if name == "data")
    others = {name: value for name, _, value in fields}
    return Event(others["event"], others.get("id", ""), json.loads(data), int(others.get("retry", 0)) or None)


@asynccontextmanager
async def watching(client, path, body=None, **headers):
    """An open event stream, of a POST with this body. Underscores in names of headers stand for dashes."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    async with Stream(client, path, fields, body).running() as stream:
        yield await stream.open()


class Socket(_Client):
    """A client of `/live`."""

    def __init__(self, client, path, headers):
        super().__init__(client, path, "websocket", headers)
        self.received.put_nowait({"type": "websocket.connect"})

    async def say(self, **message):
        self.received.put_nowait({"type": "websocket.receive", "text": json.dumps(message)})

    async def say_text(self, text):
        self.received.put_nowait({"type": "websocket.receive", "text": text})

    async def hear(self):
        """The next message but heartbeats; the code of the close as a number."""
        while True:
            message = await self.next()
            if message["type"] == "websocket.close":
                return message["code"]
            found = json.loads(message["text"])
            if found["type"] != "heartbeat":
                return found


@asynccontextmanager
async def conversing(client, path="/live", **headers):
    async with Socket(client, path, headers).running() as socket:
        first = await socket.next()
        socket.accepted = first["type"] == "websocket.accept"
        if not socket.accepted:
            socket.status = first["status"]
            socket.problem = json.loads((await socket.next())["body"])
        yield socket


async def nothing_more(stream):
    """Whether nothing was written that was not read: what is due by now has been written."""
    with suppress(asyncio.QueueEmpty):
        return stream.sent.get_nowait()
    return None
