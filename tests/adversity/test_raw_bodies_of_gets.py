"""A GET with a body, over a raw socket: the answer is that of one without, from memory or not.

What follows on the connection is read where it begins, or not at all.
"""

import json
import re
import socket
from contextlib import suppress

import pytest

HOST = b"Host: 127.0.0.1\r\n"
LIVE = b"GET /health/live HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"
HIDDEN = b"GET /nothing HTTP/1.1\r\n" + HOST + b"\r\n"
BODY = HIDDEN * 3
CHUNKS = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (BODY[:7], BODY[7:])) + b"0\r\n\r\n"
LARGE = b"10000\r\n" + b"x" * 0x10000 + b"\r\n0\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
FRAMED = {
    "chunked": (CHUNKED, CHUNKS),
    "chunked, large": (CHUNKED, LARGE),
    "chunked, with a trailer": (CHUNKED, CHUNKS[:-2] + b"X-Request-ID: evil\r\n\r\n"),
    "chunked, empty": (CHUNKED, b"0\r\n\r\n"),
    "of a length": (b"Content-Length: %d\r\n" % len(BODY), BODY),
}
WHOLE = {"chunked, empty", "of a length"}
"""What the server reads with the head. It may close the connection rather than read the rest of others."""
MISS = b"Cache-Control: no-cache\r\n"


class Caller:
    """One connection."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.file = self.socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()
        self.socket.close()

    def send(self, content):
        self.socket.sendall(content)

    def answer(self, *, bodiless=False):
        """Status, headers and body of the next answer; None at the end."""
        try:
            first = self.file.readline()
        except ConnectionError:  # it was closed before all was read
            first = b""
        if not first:
            return None
        status = int(first.split()[1])
        headers = {}
        while (line := self.file.readline()) != b"\r\n":
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        body = b"" if bodiless or status == 304 else self.file.read(int(headers["content-length"]))
        return status, headers, body


def request(path, more=b"", method=b"GET"):
    return method + b" " + path + b" HTTP/1.1\r\n" + HOST + more + b"\r\n"


@pytest.fixture(scope="module")
def path(port):
    """The address of a result that is held."""
    new = json.dumps({"sql": "SELECT n, 'held' AS word FROM generate_series(1, 3) AS n"}).encode()
    head = b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(new)
    with Caller(port) as caller:
        caller.send(request(b"/api/v1/metrics", head, b"POST") + new)
        status, _, body = caller.answer()
        assert status == 201
        path = b"/api/v1/metrics/" + json.loads(body)["id"].encode()
        for found in ("fwd=", "hit", "hit"):
            caller.send(request(path))
            assert found in caller.answer()[1]["cache-status"]
    return path


def shown(answer):
    """What must not depend on the way of the answer."""
    status, headers, body = answer
    return status, headers.get("content-type"), re.sub(rb'"as_of":"[^"]*"', b"", body)


@pytest.mark.parametrize("way", [b"", MISS], ids=["held", "run anew"])
@pytest.mark.parametrize("framing", FRAMED)
@pytest.mark.parametrize("pause", [False, True], ids=["at once", "body later"])
def test_the_body_of_a_get_is_passed_over(port, path, framing, way, pause):
    head, body = FRAMED[framing]
    with Caller(port) as caller:
        caller.send(request(path))
        plain = caller.answer()
        caller.send(request(path, head + way) + (b"" if pause else body + LIVE))
        answer = caller.answer()
        assert shown(answer) == shown(plain)
        assert ("hit" in answer[1]["cache-status"]) is (not way)
        if pause:
            with suppress(ConnectionError):  # closed already
                caller.send(body + LIVE)
        ends(caller, whole=framing in WHOLE and not pause)


@pytest.mark.parametrize("framing", FRAMED)
@pytest.mark.parametrize(("method", "status"), [(b"HEAD", 200), (b"GET", 304)])
def test_the_body_of_a_request_for_no_content_is_passed_over(port, path, framing, method, status):
    head, body = FRAMED[framing]
    with Caller(port) as caller:
        caller.send(request(path))
        tag = caller.answer()[1]["etag"].encode()
        known = b"" if status == 200 else b"If-None-Match: " + tag + b"\r\n"
        caller.send(request(path, known + head, method) + body + LIVE)
        answer = caller.answer(bodiless=True)
        assert answer[0] == status
        assert "hit" in answer[1]["cache-status"]
        ends(caller, whole=framing in WHOLE)


def ends(caller, *, whole):
    """The request behind the body is answered, or the connection is closed; the body holds no request."""
    following = caller.answer()
    if following is None:
        assert not whole
        return
    assert (following[0], json.loads(following[2])["status"]) == (200, "ok")
    assert caller.answer() is None
