"""Live streams of a service in processes of its own: SIGTERM, cut connections, clients that never read."""

import asyncio
import base64
import re
import signal
import socket
import struct
import time
from collections.abc import Generator

import asyncpg
import httpx
import pytest

from service.auth.issuer import Issuer, KeyFile
from service.database import embedded
from service.database.embedded import running
from service.database.migrate import migrate
from service.http.connections import raise_file_limit
from tests.processes import free_port, open_folder, start, until_ready
from tests.waiting import eventually

STREAMS = 2000
GRACE_S = 20
LARGE = "SELECT occupation FROM customers"
UPGRADE = (
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    f"Sec-WebSocket-Key: {base64.b64encode(bytes(16)).decode()}",
)


@pytest.fixture
def port(addresses, tmp_path) -> Generator[tuple[int, object]]:
    port = free_port()
    raise_file_limit()
    process = start(
        DATABASE_URL=addresses.url,
        READER_DATABASE_URL=addresses.reader_url,
        DATA_DIR=tmp_path,
        PORT=port,
        GRACE_S=GRACE_S,
        LIVE_STREAMS=STREAMS + 10,
        CONNECTIONS_PER_ADDRESS=2 * STREAMS,
        LIVE_HEARTBEAT_S=0.5,
        FRESH_FOR_S=1,
        LOG_LEVEL="error",
    )
    try:
        until_ready(port)
        yield port, process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


def made(port, sql):
    answer = httpx.post(f"http://127.0.0.1:{port}/metrics", json={"sql": sql}, timeout=60)
    return answer.raise_for_status().json()["id"]


def opened(port, path, *more):
    """A connection on which the answer has begun."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    lines = "".join(f"{line}\r\n" for line in (f"Host: 127.0.0.1:{port}", *more))
    connection.sendall(f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode())
    return connection


def until_end(connection):
    text = b""
    while part := connection.recv(1 << 20):
        text += part
    return text


async def test_sigterm_tells_every_stream_and_ends_in_time(addresses, port):
    number, process = port
    owner = await asyncpg.connect(addresses.url)
    await owner.execute(
        "INSERT INTO data.customers SELECT g, repeat('x', 100000), 'Gold' FROM generate_series(1, 60) AS g"
    )
    await owner.close()
    metric, large = made(number, "SELECT count(*) AS n FROM customers"), made(number, LARGE)
    streams = [opened(number, f"/metrics/{metric}/events") for _ in range(STREAMS)]
    assert all(stream.recv(15) == b"HTTP/1.1 200 OK" for stream in streams)
    deaf = opened(number, f"/metrics/{large}/events")
    live = opened(number, "/live", *UPGRADE)
    assert live.recv(12) == b"HTTP/1.1 101"
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0
    assert time.monotonic() - began < GRACE_S
    waits = set()
    for stream in streams:
        with stream:
            text = until_end(stream)
        (wait,) = re.findall(rb"event: reconnect\nretry: (\d+)\n", text)
        waits.add(int(wait))
        assert text.endswith(b"0\r\n\r\n")
    assert 1000 <= min(waits) < 2000  # they do not come back in one second
    assert 4000 < max(waits) <= 5000
    assert len(waits) > STREAMS / 2
    with live, deaf:
        assert until_end(live).endswith(b"\x88\x02" + struct.pack(">H", 1012))


async def test_a_socket_is_closed_when_its_token_ends_and_its_place_is_free(addresses, tmp_path):
    number = free_port()
    process = start(
        DATABASE_URL=addresses.url,
        READER_DATABASE_URL=addresses.reader_url,
        DATA_DIR=tmp_path,
        PORT=number,
        AUTH="on",
        LIVE_STREAMS_PER_CALLER=1,
        LOG_LEVEL="error",
    )
    try:
        await asyncio.to_thread(until_ready, number)
        issuer = Issuer(f"http://127.0.0.1:{number}", KeyFile(tmp_path))

        def bearer(ttl_s):
            return f"Authorization: Bearer {issuer.sign('ann', ['metrics:read'], ttl_s)}"

        live = opened(number, "/live", *UPGRADE, bearer(-27))  # accepted for three more seconds
        assert live.recv(12) == b"HTTP/1.1 101"
        refused = opened(number, "/live", *UPGRADE, bearer(600))
        assert refused.recv(12) == b"HTTP/1.1 429"
        text = await asyncio.to_thread(until_end, live)
        assert b'"type":"denied","code":"invalid-token"' in text
        assert text.endswith(b"\x88\x02" + struct.pack(">H", 1008))

        def free():
            with opened(number, "/live", *UPGRADE, bearer(600)) as probe:
                return probe.recv(12) == b"HTTP/1.1 101"

        await asyncio.to_thread(eventually, free)
        live.close()
        refused.close()
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


def test_cut_connections_leave_and_their_places_are_free(port):
    number, _ = port
    metric = made(number, "SELECT count(*) AS n FROM customers")
    path = f"/metrics/{metric}/events"
    for _ in range(3):
        streams = [opened(number, path) for _ in range(STREAMS)]
        assert all(stream.recv(15) == b"HTTP/1.1 200 OK" for stream in streams)
        for stream in streams:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
            stream.close()

        def free():
            with opened(number, path) as probe:
                return probe.recv(12) == b"HTTP/1.1 200"

        eventually(free)


async def test_postgres_restarts_under_open_streams(tmp_path):
    with open_folder() as folder, running(folder) as server:
        await asyncio.to_thread(migrate, server.owner_url, server.reader_url, ("data",))
        number = free_port()
        process = start(
            DATABASE_URL=server.owner_url,
            READER_DATABASE_URL=server.reader_url,
            DATA_DIR=tmp_path,
            PORT=number,
            LOG_LEVEL="error",
        )
        try:
            await asyncio.to_thread(until_ready, number)
            metric = await asyncio.to_thread(made, number, "SELECT count(*) AS n FROM customers")
            streams = [Reading(number, f"/metrics/{metric}/events") for _ in range(3)]
            streams.append(Reading(number, f"/events?ids={metric}"))
            for stream in streams:
                await stream.told(b'"records":[{"n":0}]')
            for customer in (1, 2):  # it is not only survived once
                embedded._stop((folder / "postgres").resolve())
                for stream in streams:
                    await stream.told(b"event: stale\n")
                assert embedded._start(folder, 18, durable=True) == server
                owner = await asyncpg.connect(server.owner_url)
                await owner.execute("INSERT INTO data.customers VALUES ($1, 'Cook', 'Gold')", customer)
                for stream in streams:  # fresh may be the result before the row, if that comes late
                    await stream.told(b'"records":[{"n":%d}]' % customer, b"event: fresh\n")
                await owner.close()
            answer = await asyncio.to_thread(httpx.get, f"http://127.0.0.1:{number}/metrics/{metric}")
            assert answer.json()["records"] == [{"n": 2}]
            assert b"event: gone" not in b"".join(stream.seen for stream in streams)
            for stream in streams:
                stream.close()
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=60)


class Reading:
    """An open event stream, read up to the words that are waited for."""

    def __init__(self, port, path):
        self.connection = opened(port, path)
        self.seen = b""
        self._rest = b""

    async def told(self, *words):
        """Read on until all words came, in any order; the next time from behind the last of them."""
        async with asyncio.timeout(60):  # a stream that says nothing else has a heartbeat
            while not all(each in self._rest for each in words):
                part = await asyncio.to_thread(self.connection.recv, 1 << 16)
                assert part, f"ended before {words!r}: {self.seen[-300:]!r}"
                self.seen += part
                self._rest += part
        self._rest = self._rest[max(self._rest.index(each) + len(each) for each in words) :]

    def close(self):
        self.connection.close()


async def test_a_lost_database_is_told_and_its_changes_are_pushed_after(addresses, port):
    number, _ = port
    metric = made(number, "SELECT count(*) AS n FROM customers")
    stream = Reading(number, f"/metrics/{metric}/events")
    told = stream.told
    await told(b'"records":[{"n":0}]')
    owner = await asyncpg.connect(addresses.url)
    name = await owner.fetchval("SELECT current_database()")
    await owner.execute(f'ALTER DATABASE "{name}" WITH CONNECTION LIMIT 0')  # superusers still come in
    await owner.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    await owner.execute("INSERT INTO data.customers VALUES (1, 'Cook', 'Gold')")
    await told(b'event: stale\ndata: {"since":')
    await owner.execute(f'ALTER DATABASE "{name}" WITH CONNECTION LIMIT -1')
    await told(b'"records":[{"n":1}]', b"event: fresh")
    await owner.close()
    stream.close()
