"""Floods of live callers, and callers that do not read, under the watcher of `conftest.everybody_else`."""

import json
import socket
from collections.abc import Generator
from contextlib import ExitStack

import httpx
import pytest

from tests.adversity.conftest import Attacked
from tests.adversity.test_raw_live import frame, opened, text

LARGE = "SELECT string_agg(n::text, ' ') AS t FROM generate_series(1, 1000000) AS n WHERE n <> :k"
"""Seven megabytes, and others for each `k`."""


@pytest.fixture
def metric(attacked: Attacked) -> Generator[str]:
    made = attacked.client.post("/metrics", json={"sql": LARGE}).raise_for_status().json()["id"]
    yield made
    attacked.client.delete(f"/metrics/{made}")


@pytest.fixture
def connections() -> Generator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def deaf(attacked: Attacked, path: str) -> socket.socket:
    """A client that asks and takes next to nothing of the answer."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(60)
    connection.connect(("127.0.0.1", attacked.port))
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{attacked.port}\r\n\r\n".encode())
    return connection


def hears(connection: socket.socket, words: bytes) -> bytes:
    heard = b""
    while words not in heard:
        part = connection.recv(1 << 16)
        assert part, heard[-300:]
        heard += part
    return heard


def pushed(attacked: Attacked) -> None:
    """Whether others still get results."""
    made = attacked.client.post("/metrics", json={"sql": "SELECT 7 AS n"}).raise_for_status().json()["id"]
    with deaf(attacked, f"/metrics/{made}/events") as stream:
        hears(stream, b'"records":[{"n":7}]')
    connection, _ = opened(attacked.port)
    with connection:
        connection.sendall(text(type="subscribe", id=made))
        hears(connection, b'"records":[{"n":7}]')
    attacked.client.delete(f"/metrics/{made}")


def test_many_streams_of_a_large_result_that_nobody_reads(attacked, metric, connections):
    for _ in range(100):
        stream = connections.enter_context(deaf(attacked, f"/metrics/{metric}/events?k=0"))
        assert stream.recv(15) == b"HTTP/1.1 200 OK"
    pushed(attacked)


def test_many_sockets_of_a_large_result_that_nobody_reads(attacked, metric, connections):
    for _ in range(60):
        connection, _ = opened(attacked.port)
        connections.enter_context(connection).sendall(text(type="subscribe", id=metric, parameters={"k": 0}))
    pushed(attacked)


def test_many_different_large_results(attacked, metric, connections):
    """Together they take more than all watched results may: the rest is refused, and told why."""
    connection, _ = opened(attacked.port)
    connections.enter_context(connection)
    for k in range(60):
        connection.sendall(text(type="subscribe", id=metric, parameters={"k": k}))
    heard = b""
    while b"live-unavailable" not in heard[-1000:]:
        part = connection.recv(1 << 20)
        assert part
        heard = heard[-1000:] + part
    pushed(attacked)


def test_subscriptions_without_number_or_size(attacked, connections):
    made = (
        attacked.client.post("/metrics", json={"sql": "SELECT :k::text AS n"}).raise_for_status().json()["id"]
    )
    connection, _ = opened(attacked.port)
    connections.enter_context(connection)
    connection.sendall(text(type="subscribe", id=made, parameters={"k": "x" * 60_000}))
    hears(connection, b'"code":"too-large"')
    for _ in range(3):
        flood, _ = opened(attacked.port)
        connections.enter_context(flood)
        flood.sendall(b"".join(text(type="subscribe", id=made, parameters={"k": f"{k}"}) for k in range(300)))
        assert b'"code":"too-many-requests"' in hears(flood, b"\x88\x02\x03\xf0")  # closed with 1008
    attacked.client.delete(f"/metrics/{made}")
    pushed(attacked)


def test_lists_and_vectors_without_end(attacked):
    ids = ",".join(f"00000000-0000-0000-0000-{n:012x}" for n in range(1500))
    vector = ",".join(f"{each}:{'f' * 16}" for each in ids.split(",")[:1000])
    for path in (
        f"/events?ids={ids}",
        f"/events?ids={ids[:36]}&" + "&".join(f"p{n}=1" for n in range(5000)),
        f"/events?ids={ids[:36]}&" + "k=1&" * 10_000,
    ):
        answer = attacked.client.get(path)
        assert answer.status_code in {404, 414, 422, 431}, answer.text[:300]
    answer = attacked.client.get(f"/events?ids={ids[:3699]}", headers={"Last-Event-ID": vector})
    assert answer.text.count("event: gone") == 100  # and the stream has ended
    pushed(attacked)


def test_tickets_by_the_thousand(attacked):
    tickets = {attacked.client.post("/live/tickets").raise_for_status().json()["ticket"] for _ in range(1000)}
    assert len(tickets) == 1000
    pushed(attacked)


def test_streams_that_come_and_go(attacked, metric):
    for _ in range(200):
        deaf(attacked, f"/metrics/{metric}/events?k=1").close()
        connection, _ = opened(attacked.port)
        connection.sendall(frame(1, json.dumps({"type": "subscribe", "id": metric}).encode()))
        connection.close()
    pushed(attacked)
    assert httpx.get(f"{attacked.address}/health/live").status_code == 200
