"""HEAD, compression, ETags and 304 of all responses."""

import asyncio
import gzip

import pytest

from service.http.representation import RepresentationMiddleware, choose_coding


@pytest.mark.parametrize(
    ("accepts", "coding"),
    [
        ("", "identity"),
        ("gzip", "gzip"),
        ("gzip, zstd", "zstd"),
        ("gzip;q=1, zstd;q=0.5", "gzip"),
        ("br", "identity"),
        ("*", "zstd"),
        ("gzip;q=0", "identity"),
        ("identity;q=1, gzip;q=0.5", "identity"),
        ("gzip;q=zzz", "identity"),
        ("GZIP ; Q = 0.5 , zstd;x=y;q=0.1,", "gzip"),
    ],
)
def test_the_client_gets_its_preferred_coding(accepts: str, coding: str):
    assert choose_coding(accepts) == coding


def respond(
    headers: list[tuple[bytes, bytes]],
    body: bytes,
    *request_headers: tuple[bytes, bytes],
    method: str = "GET",
):
    async def app(scope, receive, send):
        assert scope["method"] == "GET"
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    sent = []

    async def send(message):
        sent.append(message)

    async def ask():
        scope = {"type": "http", "method": method, "headers": list(request_headers)}
        await RepresentationMiddleware(app)(scope, None, send)

    asyncio.run(ask())
    return sent[0]["status"], sent[0]["headers"], b"".join(message.get("body", b"") for message in sent[1:])


JSON = (b"content-type", b"application/json")


def test_a_large_body_is_compressed_and_has_its_own_etag():
    body = b'{"a": 1}' * 500
    status, headers, sent = respond([JSON, (b"etag", b'"t"')], body, (b"accept-encoding", b"gzip"))
    assert (status, gzip.decompress(sent)) == (200, body)
    assert (b"etag", b'"t-gzip"') in headers
    assert (b"vary", b"Accept-Encoding") in headers


def test_vary_headers_of_the_app_are_preserved():
    _, headers, _ = respond([JSON, (b"vary", b"Accept"), (b"vary", b"Origin")], b"x" * 2000)
    assert [value for name, value in headers if name == b"vary"] == [b"Accept", b"Origin", b"Accept-Encoding"]


def test_a_small_body_is_not_compressed():
    _, headers, sent = respond([JSON], b"{}", (b"accept-encoding", b"gzip"))
    assert sent == b"{}"
    assert (b"content-length", b"2") in headers


def test_a_matching_etag_gives_304_without_a_body():
    status, headers, sent = respond([JSON, (b"etag", b'"t"')], b"{}", (b"if-none-match", b'"t"'))
    assert (status, sent) == (304, b"")
    assert (b"etag", b'"t"') in headers


def test_several_lines_of_one_header_are_joined():
    tags = (b"if-none-match", b'"t"'), (b"if-none-match", b'"other"')
    assert respond([JSON, (b"etag", b'"t"')], b"{}", *tags)[0] == 304
    codings = (b"accept-encoding", b"gzip"), (b"accept-encoding", b"identity;q=0.5")
    assert (b"content-encoding", b"gzip") in respond([JSON], b"x" * 2000, *codings)[1]


def test_head_gives_the_headers_of_get_without_the_body():
    status, headers, sent = respond([JSON], b"{}", method="HEAD")
    assert (status, sent) == (200, b"")
    assert (b"content-length", b"2") in headers
