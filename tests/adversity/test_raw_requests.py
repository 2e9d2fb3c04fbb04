"""Requests as no library writes them, over a raw socket to the service as a process: never a 500."""

import re
import socket

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

PATHS = [
    b"/", b"//", b"/%", b"/%zz", b"/%ff", b"/%00", b"/\xc3\xa9", b"*", b"/health", b"//health//live",
    b"http://[::1]/health", b"http://evil.example/health/live", b"//evil.example/health",
    b"127.0.0.1:443", b"/api/v1/metrics/%ff", b"/api/v1/metrics/%00", b"/api/v1/metrics?%ff=%ff",
    b"/api/v1/metrics?limit=%", b"/api/v1/metrics?cursor=%ff", b"/api/v1/metrics;x",
    b"/api/v1/items/%ff", b"/api/v1/items/%00", b"/api/v1/items?q=%00", b"/api/v1/items?q=%ed%a0%80",
    b"/api/v1/items?cursor=%c3%a9", b"/api/v1/interactions/%ff", b"/api/v1/interactions/" + b"9" * 400,
    b"/api/v1/interactions?cursor=%ff", b"/api/v1/dashboards/%00", b"/api/v1/dashboards/%ed%a0%80/data",
    b"/api/v1/datasets/%00", b"/api/v1/imports/%00", b"/api/v1/quarantine/%00",
    b"/api/v1/quarantine?dataset=%00", b"/api/v1/audit?actor=%ed%a0%80",
    b"/docs/assets/..%2f..%2fapi.py", b"/docs/assets/%00", b"/a" * 4000, b"/%1b%5b2J", b"/%e2%80%ae",
    b"/oauth2/token", b"/openapi.json?%00",
]  # fmt: skip
HEADERS = [
    b"Authorization: \xff", b"Authorization: Bearer \xff", b"Accept: \xff", b"Accept: a/b;q=\xb2",
    b"Accept: */*;q=nan", b"Accept: " + b"a/b," * 3000, b"Accept-Encoding: \xff",
    b"Accept-Encoding: *;q=nan", b"If-None-Match: \xff", b"If-Match: \xff", b"If-Match: *, *",
    b"Origin: \xff", b"Origin: http://[", b"Referer: http://[::1", b"Sec-Fetch-Site: \xff",
    b"Content-Type: \xff", b"Content-Type: text/csv; charset=x", b"Content-Type: multipart/form-data",
    b"Content-Type: application/json; charset=\xff", b"Cookie: \xff=\xff", b"X-Request-ID: \xff",
    b"Cache-Control: \xff", b"Cache-Control: max-age=\xb2", b"Range: bytes=\xff", b"X-Forwarded-For: [",
    b"Forwarded: for=[", b"Content-Length: -1", b"Content-Length: \xb2", b"Transfer-Encoding: foo",
    b"Expect: 100-continue", b"Upgrade: websocket", b"Last-Event-ID: \xff",
]  # fmt: skip
HOSTS = [
    b"[::1",
    b"[",
    b"a]b",
    b"127.0.0.1.evil.example",
    b"127.0.0.1:1.evil",
    b"evil@127.0.0.1",
    b"\xff",
    b"",
]
METHODS = [b"GET", b"HEAD", b"OPTIONS", b"POST", b"PUT", b"PATCH", b"DELETE", b"CONNECT", b"TRACE", b"FOO"]

_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)


def send(port, request, *, bodiless=False):
    """The status, the headers and the body of the answer to these bytes; None if it is cut."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(request)
        answer = b""
        while b"\r\n\r\n" not in answer and (part := connection.recv(65_536)):
            answer += part
        head, _, body = answer.partition(b"\r\n\r\n")
        length = _LENGTH.search(head + b"\r\n")
        while not bodiless and length and len(body) < int(length[1]) and (part := connection.recv(65_536)):
            body += part
    status = re.match(rb"HTTP/1\.[01] (\d{3})", head)
    return None if status is None else (int(status[1]), head.lower(), body)


def ask(port, method=b"GET", path=b"/health/live", host=None, *headers):
    lines = [
        method + b" " + path + b" HTTP/1.1",
        b"Host: " + (b"127.0.0.1:%d" % port if host is None else host),
    ]
    request = b"\r\n".join([*lines, b"Connection: close", *headers, b"", b""])
    return send(port, request, bodiless=method == b"HEAD")


def check(answer):
    """Each refusal is a problem, but for what the HTTP server itself cannot read (400 without a body)."""
    assert answer is not None
    status, head, body = answer
    assert status < 500 or status == 503, answer
    if status >= 400 and body:
        if b"application/problem+json" in head:
            assert msgspec.json.decode(body)["status"] == status
            assert b"x-request-id" in head
        else:
            assert "error_description" in msgspec.json.decode(body)  # RFC 6749's own shape


@pytest.mark.parametrize("path", PATHS, ids=lambda path: ascii(path)[2:40])
def test_odd_addresses(port, path):
    for method in METHODS:
        check(ask(port, method, path))


@pytest.mark.parametrize("header", HEADERS, ids=lambda header: ascii(header)[2:40])
def test_odd_headers(port, header):
    for method, path in (
        (b"GET", b"/health"),
        (b"GET", b"/api/v1/metrics/c797b618-df12-45f7-bbb2-cc6695a48e46"),
        (b"PUT", b"/api/v1/items/1"),
        (b"POST", b"/api/v1/imports/customers"),
        (b"POST", b"/oauth2/token"),
        (b"GET", b"/api/v1/external/fetch-data/1"),
    ):
        check(ask(port, method, path, None, header))


@pytest.mark.parametrize("host", HOSTS, ids=ascii)
def test_odd_hosts(port, host):
    for path in (b"/health", b"/health/live", b"/", b"/docs", b"/api/v1/metrics", b"/nothing"):
        answer = ask(port, b"GET", path, host)
        check(answer)
        assert answer[0] == (403 if host == b"127.0.0.1.evil.example" else 400)
        assert msgspec.json.decode(answer[2])["code"] in {"bad-request", "forbidden"}


def test_no_host_and_two(port):
    for headers in (b"", b"Host: 127.0.0.1\r\nHost: 127.0.0.1\r\n", b"Host: a\r\nHost: 127.0.0.1\r\n"):
        answer = send(port, b"GET /health HTTP/1.1\r\n" + headers + b"Connection: close\r\n\r\n")
        check(answer)
        assert answer[0] == 400
    assert send(port, b"GET /health/live HTTP/1.0\r\n\r\n")[0] == 200


VISIBLE = st.binary(max_size=30).map(lambda text: text.translate(None, b"\r\n\0"))
NAMES = [
    b"Host",
    b"Accept",
    b"Accept-Encoding",
    b"Origin",
    b"If-None-Match",
    b"Content-Type",
    b"Cache-Control",
]


@settings(max_examples=300, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(METHODS),
    st.lists(
        VISIBLE | st.sampled_from([b"/", b"%", b"api", b"v1", b"metrics", b"?", b"&", b"="]), max_size=6
    ),
    st.one_of(st.none(), VISIBLE, st.from_regex(rb"[\[\]:.@0-9a-f]{0,12}", fullmatch=True)),
    st.lists(st.tuples(st.sampled_from(NAMES), VISIBLE), max_size=3),
)
def test_any_bytes(port, method, parts, host, headers):
    path = b"/" + b"".join(parts).replace(b" ", b"")
    check(ask(port, method, path, host, *(name + b": " + value for name, value in headers)))
