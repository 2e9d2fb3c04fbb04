"""Connections as no library uses them: several requests at once, bodies framed wrongly, huge heads, other
protocols. Every request gets its own answer or none, and the service serves the next caller.
"""

import re
import socket
from contextlib import suppress

import pytest

HOST = b"Host: 127.0.0.1\r\n"
LIVE = b"GET /health/live HTTP/1.1\r\n" + HOST
ITEM = b'{"title": "a"}'


@pytest.fixture(autouse=True)
def others_are_served(port):
    """After whatever a test sent, the next caller gets an answer."""
    yield
    assert statuses(port, LIVE + b"Connection: close\r\n\r\n") == [200]


def talk(port, *parts, then_close=False):
    """All that comes back for these bytes, until the server closes. Hanging for 30 s is an error."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        answer = b""
        with suppress(ConnectionError):
            for part in parts:
                connection.sendall(part)
            if then_close:
                with suppress(OSError):  # the server has closed it already
                    connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(65_536):
                answer += part
    return answer


def statuses(port, *parts, **options):
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3})", talk(port, *parts, **options))]


def post(length=b"", more=b""):
    head = b"POST /api/v1/items HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n"
    return head + length + more + b"\r\n"


def test_pipelined_requests_are_answered_in_their_order(port):
    paths = [b"/health/live", b"/nothing", b"/metrics", b"/metrics/1", b"/health/live"]
    requests = [b"GET " + path + b" HTTP/1.1\r\n" + HOST for path in paths]
    whole = b"\r\n".join(requests) + b"Connection: close\r\n\r\n"
    assert statuses(port, whole) == [200, 404, 200, 422, 200]


def test_a_request_after_a_body_is_a_request_of_its_own(port):
    body = post(b"Content-Length: %d\r\n" % len(ITEM)) + ITEM
    assert statuses(port, body + LIVE + b"Connection: close\r\n\r\n") == [201, 200]


def test_a_body_that_hides_a_request_is_a_body(port):
    hidden = LIVE + b"\r\n"
    body = post(b"Content-Length: %d\r\n" % len(hidden), b"Connection: close\r\n") + hidden
    assert statuses(port, body) == [422]


def test_a_body_byte_for_byte_and_in_chunks(port):
    sent = post(b"Content-Length: %d\r\nConnection: close\r\n" % len(ITEM)) + ITEM
    assert statuses(port, *(sent[at : at + 1] for at in range(len(sent)))) == [201]
    chunks = b"".join(b"%x\r\n%s\r\n" % (1, ITEM[at : at + 1]) for at in range(len(ITEM)))
    head = post(b"Transfer-Encoding: chunked\r\nConnection: close\r\n")
    assert statuses(port, head + chunks + b"0\r\n\r\n") == [201]


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: 14\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
        b"Content-Length: 14\r\nContent-Length: 15\r\n",
        b"Content-Length: 14, 15\r\n",
        b"Content-Length: +14\r\n",
        b"Content-Length: 0x0e\r\n",
        b"Content-Length: 99999999999999999999999\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"Transfer-Encoding:\x0bchunked\r\n",
    ],
    ids=repr,
)
def test_a_body_of_two_lengths_never_becomes_two_requests(port, framing):
    """What a proxy might read otherwise: at most one answer, and the bytes after it are no request."""
    smuggled = b"0\r\n\r\n" + b"DELETE /api/v1/items/1 HTTP/1.1\r\n" + HOST + b"\r\n"
    found = statuses(port, post(framing) + smuggled, then_close=True)
    assert len(found) <= 1 or found[1:] == [400], found
    assert all(status < 500 for status in found)


@pytest.mark.parametrize(
    "chunks",
    [
        b"z\r\n",
        b"-1\r\n",
        b"ffffffffffffffffff\r\n",
        b"5\r\nabc\r\n",
        b"3;" + b"x" * 100_000 + b"\r\nabc\r\n",
    ],
    ids=["no number", "negative", "huge", "short", "extension"],
)
def test_broken_chunks(port, chunks):
    head = post(b"Transfer-Encoding: chunked\r\n")
    assert all(status < 500 for status in statuses(port, head + chunks, then_close=True))


@pytest.mark.parametrize(
    "head",
    [
        b"X: " + b"a" * 1_000_000 + b"\r\n",
        b"".join(b"X-%d: a\r\n" % number for number in range(5_000)),
        b"Cookie: " + b"a=b; " * 50_000 + b"\r\n",
        b"Accept: " + b"text/html;q=0.1," * 3_000 + b"\r\n",
        b"If-None-Match: " + b'"a", ' * 10_000 + b"\r\n",
        b"Authorization: Bearer " + b"a" * 60_000 + b"\r\n",
    ],
    ids=["long line", "many lines", "cookies", "accept", "etags", "token"],
)
def test_huge_heads(port, head):
    found = statuses(port, LIVE + head + b"Connection: close\r\n\r\n")
    assert all(status < 500 for status in found)


def test_a_huge_address(port):
    for size in (8_000, 60_000, 1_000_000):
        found = statuses(
            port, b"GET /" + b"a" * size + b" HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"
        )
        assert all(status < 500 for status in found)


@pytest.mark.parametrize(
    "says",
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
        b"\x00\x00\x00\x08\x04\xd2\x16\x2f",
        b"SSH-2.0-OpenSSH_9.0\r\n",
        b"\r\n\r\n\r\n",
        b"GET /health/live\r\n\r\n",
        b"GET  /health/live  HTTP/1.1\r\n\r\n",
        b"GET /health/live HTTP/9.9\r\n" + HOST + b"\r\n",
        b"GET /health/live HTTP/1.1\n" + HOST.replace(b"\r", b"") + b"\n",
        b"GET /health/live HTTP/1.1\r\n Host: folded\r\n\r\n",
        b"GET /health/live HTTP/1.1\r\nHost: a\r\nNo colon\r\n\r\n",
        b"\xff" * 10_000,
        bytes(10_000),
    ],
    ids=["http2", "tls", "postgres", "ssh", "blank lines", "http 0.9", "blanks", "http 9.9", "line feeds",
         "folded", "no colon", "high bytes", "nul"],
)  # fmt: skip
def test_other_protocols_and_broken_heads(port, says):
    assert all(status < 500 for status in statuses(port, says, then_close=True))


def test_a_caller_who_closes_its_side_after_the_request_still_gets_the_answer(port):
    assert statuses(port, LIVE + b"\r\n", then_close=True) in ([200], [])  # HTTP leaves it to the server


@pytest.mark.parametrize(
    "handshake",
    [
        b"Upgrade: websocket\r\nConnection: Upgrade\r\n",
        b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 8\r\nSec-WebSocket-Key: a\r\n",
        b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
    ],
    ids=["no key", "old version", "h2c"],
)
def test_broken_upgrades(port, handshake):
    for path in (b"/live", b"/health/live"):
        request = b"GET " + path + b" HTTP/1.1\r\n" + HOST + handshake + b"\r\n"
        assert all(status < 500 for status in statuses(port, request, then_close=True))


def test_frames_that_are_none(port):
    """After a right handshake: reserved bits, an unmasked frame, a length that never comes."""
    shake = (
        b"GET /live HTTP/1.1\r\n" + HOST + b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    for frame in (b"\xf1\x80\0\0\0\0", b"\x81\x05hello", b"\x81\xff" + b"\xff" * 12, b"\x0f" * 100):
        assert statuses(port, shake, frame, then_close=True) in ([101], [])
