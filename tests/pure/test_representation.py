"""What every answer shares on the wire."""

import asyncio
import gzip

import pytest

from service.http.representation import (
    RepresentationMiddleware,
    choose_coding,
    matches,
    tag_of_coding,
    uncoded,
)


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
    ],
)
def test_the_coding_is_the_one_that_the_client_likes_best(accepts: str, coding: str):
    assert choose_coding(accepts) == coding


@pytest.mark.parametrize(
    ("header", "holds"),
    [("*", True), ('"a"', True), ('W/"a"', True), ('"b", "a"', True), ('"b"', False), ("", False)],
)
def test_if_none_match_takes_lists_weak_tags_and_the_star(header: str, holds: bool):
    assert matches(header, '"a"') is holds


@pytest.mark.parametrize("coding", ["gzip", "zstd", "identity"])
def test_a_coded_tag_leads_back_to_its_origin(coding):
    assert uncoded(tag_of_coding('"abc"', coding)) == '"abc"'


def answer(headers: list[tuple[bytes, bytes]], body: bytes, *asked: tuple[bytes, bytes], method: str = "GET"):
    async def app(scope, receive, send):
        assert scope["method"] == "GET"
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    sent = []

    async def send(message):
        sent.append(message)

    async def ask():
        scope = {"type": "http", "method": method, "headers": list(asked)}
        await RepresentationMiddleware(app)(scope, None, send)

    asyncio.run(ask())
    return sent[0]["status"], sent[0]["headers"], b"".join(message.get("body", b"") for message in sent[1:])


JSON = (b"content-type", b"application/json")


def test_a_large_body_is_compressed_and_has_a_tag_of_its_own():
    body = b'{"a": 1}' * 500
    status, headers, sent = answer([JSON, (b"etag", b'"t"')], body, (b"accept-encoding", b"gzip"))
    assert (status, gzip.decompress(sent)) == (200, body)
    assert (b"etag", b'"t-gzip"') in headers
    assert (b"vary", b"Accept-Encoding") in headers


def test_what_an_answer_varies_by_is_kept_line_by_line():
    _, headers, _ = answer([JSON, (b"vary", b"Accept"), (b"vary", b"Origin")], b"x" * 2000)
    assert [value for name, value in headers if name == b"vary"] == [b"Accept", b"Origin", b"Accept-Encoding"]


def test_a_small_body_stays_as_it_is():
    _, headers, sent = answer([JSON], b"{}", (b"accept-encoding", b"gzip"))
    assert sent == b"{}"
    assert (b"content-length", b"2") in headers


def test_a_matching_tag_is_answered_without_a_body():
    status, headers, sent = answer([JSON, (b"etag", b'"t"')], b"{}", (b"if-none-match", b'"t"'))
    assert (status, sent) == (304, b"")
    assert (b"etag", b'"t"') in headers


def test_lines_of_one_header_count_as_one():
    tags = (b"if-none-match", b'"t"'), (b"if-none-match", b'"other"')
    assert answer([JSON, (b"etag", b'"t"')], b"{}", *tags)[0] == 304
    codings = (b"accept-encoding", b"gzip"), (b"accept-encoding", b"identity;q=0.5")
    assert (b"content-encoding", b"gzip") in answer([JSON], b"x" * 2000, *codings)[1]


def test_head_is_get_without_its_body():
    status, headers, sent = answer([JSON], b"{}", method="HEAD")
    assert (status, sent) == (200, b"")
    assert (b"content-length", b"2") in headers
