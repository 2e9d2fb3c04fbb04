"""Event streams and sockets as no client library opens them: a problem or a close, never a 500."""

import base64
import re
import socket
import struct

import httpx
import msgspec
import pytest

from tests.adversity.test_raw_requests import METHODS, ask, check

UNKNOWN = b"00000000-0000-0000-0000-000000000000"
PATHS = [
    b"/api/v1/events", b"/api/v1/events?", b"/api/v1/events?ids", b"/api/v1/events?ids=%ff",
    b"/api/v1/events?ids=%00", b"/api/v1/events?ids=,", b"/api/v1/events?ids=" + b"a," * 3000,
    b"/api/v1/events?ids=" + b",".join([UNKNOWN] * 500), b"/api/v1/events?ids=" + UNKNOWN + b"&%ff=%ff",
    b"/api/v1/events?ids=" + UNKNOWN + b"&last_event_id=" + b"%ff:,:" * 1000,
    b"/api/v1/events?ids=" + UNKNOWN + b"&x=1" * 5000, b"/events?ticket=%ff", b"/events?ticket=",
    b"/events?ticket=a&ticket=b", b"/api/v1//events?ids=%ed%a0%80", b"/events/", b"//events",
    b"/api/v1/metrics/%ff/events", b"/api/v1/metrics/%00/events", b"/api/v1/metrics/x/events?%ff",
    b"/api/v1/metrics/" + UNKNOWN + b"/events", b"/api/v1/metrics//events", b"/metrics/a/b/events",
    b"/api/v1/dashboards/%ff/events", b"/api/v1/dashboards/%00/events", b"/api/v1/dashboards/../events",
    b"/live", b"/live/", b"/live?ticket=%ff", b"/api/v1/live", b"/live/tickets", b"/api/v1/live/tickets?%ff",
    b"/live/%ff",
]  # fmt: skip
LAST_EVENT_IDS = [
    b"\xff",
    b'"',
    b",",
    b":",
    b"," * 8000,
    b":," * 4000,
    UNKNOWN + b":" + b"\xb2" * 100,
    b"\x01",
]
KEY = base64.b64encode(bytes(16))
UPGRADE = {
    b"Upgrade": b"websocket",
    b"Connection": b"Upgrade",
    b"Sec-WebSocket-Version": b"13",
    b"Sec-WebSocket-Key": KEY,
}
UPGRADES = {
    "no key": {b"Sec-WebSocket-Key": None},
    "a short key": {b"Sec-WebSocket-Key": b"x"},
    "a key of other bytes": {b"Sec-WebSocket-Key": b"\xff" * 24},
    "an old version": {b"Sec-WebSocket-Version": b"8"},
    "no version": {b"Sec-WebSocket-Version": None},
    "another protocol": {b"Upgrade": b"h2c"},
    "no connection header": {b"Connection": None},
    "a body": {b"Content-Length": b"5"},
    "an odd protocol": {b"Sec-WebSocket-Protocol": b"\xff,,"},
    "an odd extension": {b"Sec-WebSocket-Extensions": b"permessage-deflate; client_max_window_bits=99"},
    "another site": {b"Origin": b"http://evil.example"},
    "an odd origin": {b"Origin": b"http://["},
    "a wrong token": {b"Authorization": b"Bearer \xff"},
    "an empty token": {b"Authorization": b"Bearer"},
}


@pytest.mark.parametrize("path", PATHS, ids=lambda path: ascii(path)[2:60])
def test_odd_addresses_of_streams(port, path):
    for method in METHODS:
        check(ask(port, method, path))


@pytest.mark.parametrize("value", LAST_EVENT_IDS, ids=lambda value: ascii(value)[2:40])
def test_odd_events_that_a_client_holds(port, metric, value):
    for path in (b"/metrics/%s/events" % metric, b"/events?ids=" + metric, b"/dashboards/default/events"):
        answer = ask(port, b"GET", path, None, b"Last-Event-ID: " + value)
        check(answer)
        assert answer[0] in {200, 400}


@pytest.fixture(scope="module")
def metric(port):
    answer = httpx.post(f"http://127.0.0.1:{port}/metrics", json={"sql": "SELECT 1 AS n"}, timeout=60)
    return answer.json()["id"].encode()


def opened(port, **changes):
    """A connection that asked for a socket, and the head of the answer."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=30)
    headers = {**UPGRADE, **{name.encode(): value for name, value in changes.items()}}
    lines = [b"GET /live HTTP/1.1", b"Host: 127.0.0.1:%d" % port]
    lines += [name + b": " + value for name, value in headers.items() if value is not None]
    connection.sendall(b"\r\n".join([*lines, b"", b""]))
    head = b""
    while b"\r\n\r\n" not in head and (part := connection.recv(1)):
        head += part
    return connection, head


@pytest.mark.parametrize("changes", UPGRADES.values(), ids=UPGRADES)
def test_odd_upgrades(port, changes):
    connection, head = opened(port, **{name.decode(): value for name, value in changes.items()})
    connection.close()
    status = re.match(rb"HTTP/1\.1 (\d{3})", head)
    assert status is None or int(status[1]) < 500, head
    assert httpx.get(f"http://127.0.0.1:{port}/health/live").status_code == 200


def frame(opcode, payload=b"", *, final=True, mask=bytes(4), length=None, bits=0):
    size = len(payload) if length is None else length
    head = bytes([final << 7 | bits | opcode])
    masked = 0x80 if mask is not None else 0
    if size < 126:
        head += bytes([masked | size])
    elif size < 1 << 16:
        head += bytes([masked | 126]) + struct.pack(">H", size)
    else:
        head += bytes([masked | 127]) + struct.pack(">Q", size)
    return head + (mask or b"") + payload


def text(**message):
    return frame(1, msgspec.json.encode(message))


FRAMES = {
    "not masked": frame(1, b"{}", mask=None),
    "a reserved bit": frame(1, b"{}", bits=0x40),
    "a reserved opcode": frame(3, b"{}"),
    "a reserved control opcode": frame(11),
    "no UTF-8": frame(1, b"\xff\xfe"),
    "half a character": frame(1, '"é'.encode()[:-1]),
    "a surrogate": frame(1, b'{"type": "subscribe", "id": "\\ud800"}'),
    "binary": frame(2, b'{"type":"ping"}'),
    "binary without sense": frame(2, bytes(range(256))),
    "empty": frame(1),
    "a length of 2^63": frame(1, length=1 << 63),
    "a length of 2^40": frame(1, length=1 << 40),
    "a continuation of nothing": frame(0, b"x"),
    "a text within a text": frame(1, b"{", final=False) + frame(1, b"}"),
    "a control frame in pieces": frame(9, b"x", final=False),
    "a long control frame": frame(9, b"x" * 200),
    "a close without a code": frame(8),
    "a close of one byte": frame(8, b"\x03"),
    "a close of a reserved code": frame(8, struct.pack(">H", 1005)),
    "a close with a text that is none": frame(8, struct.pack(">H", 1000) + b"\xff"),
    "frames after a close": frame(8, struct.pack(">H", 1000)) + text(type="ping"),
    "pieces of one byte": b"".join(
        frame(1 if n == 0 else 0, b"%c" % c, final=n == 14) for n, c in enumerate(b'{"type":"ping"}')
    ),
    "a message of 60 kB in pieces": frame(1, b'"' + b"x" * 30_000, final=False)
    + frame(0, b"x" * 30_000 + b'"'),
    "a message of 1 MB": frame(1, b"x" * (1 << 20)),
    "deep": frame(1, b"[" * 60_000),
    "a deep parameter": frame(
        1, b'{"type":"subscribe","id":"%s","parameters":{"k":%s}}' % (UNKNOWN, b"[" * 900 + b"]" * 900)
    ),
    "a long number": frame(1, b'{"type":"subscribe","id":"x","parameters":{"k":%s}}' % (b"9" * 60_000)),
    "a thousand keys": text(type="subscribe", id="x", parameters={f"k{n}": n for n in range(3000)}),
    "a key twice": frame(1, b'{"type":"ping","type":"ping"}'),
    "a NUL": frame(1, b'{"type":"subscribe","id":"\\u0000"}'),
    "not a socket at all": b"GET / HTTP/1.1\r\n\r\n",
}


@pytest.mark.parametrize("sent", FRAMES.values(), ids=FRAMES)
def test_odd_frames_end_their_own_socket_at_most(port, metric, sent):
    other, _ = opened(port)
    connection, head = opened(port)
    assert head.startswith(b"HTTP/1.1 101")
    for each in (other, connection):
        each.sendall(text(type="subscribe", id=metric.decode()))
        assert b'"records":[{"n":1}]' in each.recv(65_536)
    try:
        connection.sendall(sent)
        connection.sendall(frame(8, struct.pack(">H", 1000)))
        while connection.recv(65_536):
            pass
    except ConnectionError:
        pass  # cut off
    connection.close()
    other.sendall(text(type="ping"))
    assert b'"pong"' in other.recv(65_536)
    other.close()
