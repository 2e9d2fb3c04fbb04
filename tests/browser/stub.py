"""A server that speaks the contract of live results, and misbehaves on demand: restarts, refusals, silence.

It also gives the page and the client, as `dashboard/static` will.
"""

import asyncio
import json
from asyncio import StreamReader, StreamWriter
from contextlib import suppress
from hashlib import sha256
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from msgspec import Struct, field

from tests.processes import ROOT, free_port

CLIENT = ROOT / "clients" / "js" / "tally-live.js"
PAGE = """<!doctype html><title>Live</title><script type="module">
import { tallyLive } from '/tally-live.js';
window.seen = {};
window.begin = (options) => (window.live = tallyLive(options));
window.watch = (id, parameters = {}) => {
  const seen = (window.seen[id] = []);
  window.stop = live.watch(id, parameters, (state) => seen.push(state));
};
window.last = (id) => window.seen[id]?.at(-1);
</script>"""


class Request(Struct):
    """What a client asked."""

    path: str
    query: dict[str, str]
    headers: dict[str, str]

    @property
    def ids(self) -> list[str]:
        return self.query["ids"].split(",")

    @property
    def held(self) -> dict[str, str]:
        """The results that the client says it holds: their ETags by metric."""
        given = self.headers.get("last-event-id", "")
        return dict(each.split(":") for each in given.split(",") if each)


class Stream(Struct, eq=False):
    """An open event stream."""

    request: Request
    writer: StreamWriter


class Stub(Struct, eq=False):
    """Metrics are numbers; `None` stands for a deleted one."""

    port: int = field(default_factory=free_port)
    metrics: dict[str, int | None] = field(default_factory=dict)
    streams: list[Stream] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    refuse: dict[str, int] = field(default_factory=dict)
    """Status by the beginning of a path: what a proxy answers in the server's place."""
    hold: asyncio.Event | None = None
    """Answers to polls wait for it, although they were made before."""
    silent: bool = False
    """Whether streams are opened and then say nothing, as behind a proxy that buffers."""
    server: Any = None
    writers: set[StreamWriter] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def stop(self) -> None:
        """As a killed process ends: nobody is told."""
        self.server.close()
        for writer in list(self.writers):
            writer.transport.abort()
        await self.server.wait_closed()

    def asked(self, beginning: str) -> list[Request]:
        return [request for request in self.requests if request.path.startswith(f"/api/v1/{beginning}")]

    def change(self, metric: str, value: int | None) -> None:
        """Commit: every stream of the metric hears of it."""
        self.metrics[metric] = value
        for stream in self.streams:
            if metric in stream.request.ids:
                self.present(stream, metric)

    def tell(self, event: str, about: dict[str, Any], *lines: str) -> None:
        for stream in self.streams:
            _send(stream, f"event: {event}", *lines, f"data: {json.dumps(about)}")

    def cut(self) -> None:
        """End all streams."""
        for stream in self.streams:
            stream.writer.close()

    def present(self, stream: Stream, metric: str) -> None:
        if (value := self.metrics.get(metric)) is None:
            _send(stream, "event: gone", f'data: {{"id":"{metric}"}}')
            return
        vector = ",".join(f"{each}:{tag(self.metrics.get(each))[:16]}" for each in stream.request.ids)
        _send(stream, "event: result", f"id: {vector}", f"data: {self.result(metric, value)}")

    def result(self, metric: str, value: int) -> str:
        return json.dumps({"id": metric, "records": [{"n": value}]})

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        self.writers.add(writer)
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                first, *lines = head.split("\r\n")
                parts = urlsplit(first.split(" ")[1])
                fields = dict(line.lower().split(": ", 1) for line in lines if line)
                await self._answer(Request(parts.path, dict(parse_qsl(parts.query)), fields), reader, writer)
        self.writers.discard(writer)
        writer.close()

    async def _answer(self, request: Request, reader: StreamReader, writer: StreamWriter) -> None:
        self.requests.append(request)
        api = request.path.removeprefix("/api/v1/")
        refusals = [status for path, status in self.refuse.items() if request.path.startswith(path)]
        if refusals:
            _reply(writer, refusals[0], "text/html", "<h1>Bad gateway</h1>")
        elif request.path == "/":
            _reply(writer, 200, "text/html", PAGE)
        elif request.path == "/tally-live.js":
            _reply(writer, 200, "text/javascript", CLIENT.read_text())
        elif api == "events":
            await self._stream(Stream(request, writer), reader)
        elif api.startswith("metrics/"):
            await self._result(request, writer, api.removeprefix("metrics/"))
        else:
            _reply(writer, 404, "text/plain", "")

    async def _result(self, request: Request, writer: StreamWriter, metric: str) -> None:
        value = self.metrics.get(metric)
        if self.hold:
            await self.hold.wait()
        if value is None:
            problem = {"status": 404, "code": "not-found", "detail": f"There is no metric {metric}."}
            _reply(writer, 404, "application/problem+json", json.dumps(problem))
        elif (etag := f'"{tag(value)}-gzip"') in request.headers.get("if-none-match", ""):
            _reply(writer, 304, "", "", f"ETag: W/{etag}")  # weak, as behind a proxy that compresses
        else:
            _reply(writer, 200, "application/json", self.result(metric, value), f"ETag: W/{etag}")

    async def _stream(self, stream: Stream, reader: StreamReader) -> None:
        stream.writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n\r\n"
        )
        if not self.silent:
            stream.writer.write(b": open\n\n")
            for metric in stream.request.ids:
                if stream.request.held.get(metric) != tag(self.metrics.get(metric))[:16]:
                    self.present(stream, metric)
        self.streams.append(stream)
        try:
            await reader.read()  # until the client leaves
        finally:
            self.streams.remove(stream)
        raise ConnectionAbortedError


def tag(value: int | None) -> str:
    """The ETag of a result; a stream's `id` has its first 16 characters."""
    return sha256(f"{value}".encode()).hexdigest()[:32]


def _send(stream: Stream, *lines: str) -> None:
    stream.writer.write("".join(f"{line}\n" for line in lines).encode() + b"\n")


def _reply(writer: StreamWriter, status: int, kind: str, body: str, *lines: str) -> None:
    content = body.encode()
    head = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        f"Content-Type: {kind}",
        f"Content-Length: {len(content)}",
        *lines,
    ]
    writer.write("\r\n".join(head).encode() + b"\r\n\r\n" + content)
