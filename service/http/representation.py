"""HEAD, compression, conditional requests, and one strong ETag per representation, for all responses.

A body over 1 KB is compressed if `Accept-Encoding` allows it. The ETag of a compressed body ends in the name
of the coding. A response of status 200 whose ETag matches `If-None-Match` becomes a 304.
"""

import asyncio
import zlib
from collections.abc import Mapping
from hashlib import blake2b
from typing import Final, Literal

import zstandard

from service.http.asgi import SAFE_METHODS, App, Message, Receive, Scope, Send, header_of
from service.http.fields import has_tag, weights
from service.http.short_cache import remember_short

Coding = Literal["zstd", "gzip", "identity"]

SMALLEST: Final = 1024
WORK_HERE: Final = 1 << 18
"""Smaller bodies are compressed and hashed on the event loop, because a thread would take longer."""
_COMPRESSIBLE: Final = (
    b"application/json",
    b"application/problem+json",
    b"application/x-ndjson",
    b"application/openmetrics-text",
    b"text/",
)
_GZIP_WINDOW: Final = 31  # zlib's number for a gzip frame


class RepresentationMiddleware:
    """ASGI layer around the app. It does not change streamed responses."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        response = _Response(send, scope)
        inner = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope
        await self._app(inner, receive, response.take)
        scope["path_template"] = inner.get("path_template", "")  # the router's, for `RequestDone`


class _Response:
    """One response. Its start waits until the first part of the body shows whether the body is complete."""

    def __init__(self, send: Send, request: Scope) -> None:
        self._send = send
        self._request = request
        self._method = request["method"]
        self._start: Message | None = None

    async def take(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
            return
        start, self._start = self._start, None
        if start is None:  # a further part of a stream
            await self._send(message)
        elif message.get("more_body", False):
            await self._send(start)
            await self._send(message)
        else:
            await self._finish(start, message)

    async def _finish(self, start: Message, message: Message) -> None:
        body: bytes = message.get("body", b"")
        by_name = {bytes(name): bytes(value) for name, value in start["headers"]}
        headers = [(name, value) for name, value in start["headers"] if name not in _REPLACED]
        tag = by_name.get(b"etag")
        if _can_compress(by_name, body):
            if not any(name == b"vary" and b"accept-encoding" in value.lower() for name, value in headers):
                headers.append((b"vary", b"Accept-Encoding"))
            coding = choose_coding(header_of(self._request, b"accept-encoding"))
            if coding != "identity":
                body = await compressed(body, coding)
                headers.append((b"content-encoding", coding.encode()))
                tag = tag and tag_of_coding(tag.decode(), coding).encode()
        if tag is not None:
            headers.append((b"etag", tag))
            condition = header_of(self._request, b"if-none-match")
            if (
                start["status"] == _OK
                and self._method in SAFE_METHODS
                and has_tag(condition, tag.decode(), weak=True)
            ):
                remaining = [(name, value) for name, value in headers if name not in _BODY_HEADERS]
                await self._send({**start, "status": 304, "headers": remaining})
                await self._send({"type": "http.response.body", "body": b""})
                return
        if start["status"] not in _BODILESS:
            headers.append((b"content-length", str(len(body)).encode()))
        await self._send({**start, "headers": headers})
        await self._send({**message, "body": b"" if self._method == "HEAD" else body})


_OK: Final = 200
_BODILESS: Final = frozenset({204, 304})
_REPLACED: Final = frozenset({b"content-length", b"etag"})
_BODY_HEADERS: Final = frozenset({b"content-type", b"content-encoding"})


@remember_short
def choose_coding(accept_encoding: str) -> Coding:
    """The coding that the client prefers (RFC 9110). With equal weights zstd comes before gzip."""
    found = weights(accept_encoding)
    any_coding = found.get("*", 0.0)
    best: Coding = "identity"
    weight = 0.0
    for coding in CODINGS:
        if (preference := found.get(coding, any_coding)) > weight:
            best, weight = coding, preference
    return best if weight >= found.get("identity", 0.0) else "identity"


CODINGS: Final[tuple[Coding, ...]] = ("zstd", "gzip")


def compress(body: bytes, coding: Coding) -> bytes:
    """Compress a body. Equal bodies give equal bytes, as strong ETags require."""
    if coding == "zstd":
        return zstandard.ZstdCompressor(level=3).compress(body)
    if coding == "gzip":
        deflate = zlib.compressobj(level=5, wbits=_GZIP_WINDOW)
        return deflate.compress(body) + deflate.flush()
    return body


async def compressed(body: bytes, coding: Coding) -> bytes:
    """Compress a body. A large body is compressed in a thread, so it does not block other requests."""
    if len(body) < WORK_HERE:
        return compress(body, coding)
    return await asyncio.to_thread(compress, body, coding)


def strong_tag(body: bytes) -> str:
    """The strong ETag of a body, quotes included."""
    return f'"{blake2b(body, digest_size=16).hexdigest()}"'


def bare_tag(tag: str) -> str:
    """An ETag without quotes, weakness and content coding: the name of the content."""
    tag = tag.strip().removeprefix("W/").strip('"')
    for coding in CODINGS:
        tag = tag.removesuffix(f"-{coding}")
    return tag


def tag_of_coding(tag: str, coding: Coding) -> str:
    """The strong ETag of a coded representation: `"abc"` becomes `"abc-gzip"`."""
    return tag if coding == "identity" else f'{tag[:-1]}-{coding}"'


def _can_compress(headers: Mapping[bytes, bytes], body: bytes) -> bool:
    return (
        len(body) > SMALLEST
        and b"content-encoding" not in headers
        and headers.get(b"content-type", b"").startswith(_COMPRESSIBLE)
    )
