"""Workers die, hang and never come up; connections are held without a word. The service goes on answering."""

import os
import signal
import socket
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest

from service.http.current_caller import address_block
from service.server.supervisor import LONGEST_PAUSE_S, _describe, _pause_s
from service.settings import Database as DatabaseSettings
from tests.adversity.workers import EACH_DEATH_IS_THE_FIRST, Service, serving
from tests.processes import until_ready
from tests.waiting import eventually


@pytest.fixture(scope="module")
def service(
    shared_addresses: DatabaseSettings, tmp_path_factory: pytest.TempPathFactory
) -> Generator[Service]:
    folder = tmp_path_factory.mktemp("service")
    with serving(
        shared_addresses, folder, before=EACH_DEATH_IS_THE_FIRST, CONNECTIONS_PER_ADDRESS=PER_ADDRESS
    ) as found:
        until_ready(found.port)
        yield found
    assert found.process.returncode == 0


@pytest.mark.parametrize(
    ("how", "says"),
    [
        (signal.SIGKILL, "a worker died and is replaced"),
        (signal.SIGTERM, "a worker died and is replaced"),
        (signal.SIGSEGV, "a worker died and is replaced"),
        (signal.SIGSTOP, "hung, and was killed"),
    ],
    ids=lambda value: value.name if isinstance(value, signal.Signals) else "",
)
def test_a_worker_that_dies_or_hangs_is_replaced_and_the_log_says_so(
    service: Service, how: signal.Signals, says: str
):
    before, said = service.workers(), service.said(says)
    os.kill(min(before), how)

    def replaced() -> bool:
        now = service.workers()
        return len(now) == len(before) and now != before

    eventually(replaced)
    until_ready(service.port)
    assert service.said(says) > said


def test_a_connection_that_waits_to_be_accepted_is_not_lost_with_its_worker(service: Service):
    (worker,) = service.workers()
    os.kill(worker, signal.SIGSTOP)
    eventually(lambda: psutil.Process(worker).status() == psutil.STATUS_STOPPED)
    with socket.create_connection(("127.0.0.1", service.port), timeout=60) as waiting:
        waiting.sendall(HEAD + b"\r\n")
        os.kill(worker, signal.SIGKILL)
        assert waiting.recv(100).startswith(b"HTTP/1.1 200")


async def test_a_service_none_of_whose_workers_comes_up_ends_with_a_sentence(
    addresses: DatabaseSettings, tmp_path: Path
):
    before = (
        "from service.server import worker\ndef die(settings): raise MemoryError\nworker.create_app = die"
    )
    with serving(addresses, tmp_path, before=before) as broken:
        assert broken.process.wait(timeout=60) == 1
    assert broken.said("tally: no worker came up, the last one ended with exit status 1") == 1
    assert broken.said("a worker was started") == 2


def test_what_dies_again_and_again_is_started_ever_more_seldom():
    pauses = [_pause_s(deaths) for deaths in range(1, 9)]
    assert pauses == [0, 1, 2, 4, 8, 16, LONGEST_PAUSE_S, LONGEST_PAUSE_S]


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (-9, "was killed by SIGKILL (out of memory?)"),
        (-11, "was killed by SIGSEGV"),
        (3, "ended with exit status 3"),
    ],
)
def test_the_log_says_how_a_worker_ended(status: int, words: str):
    assert _describe(status) == words


# connections


PER_ADDRESS = 200
CLOSED = "idle connections closed"


def _silent(port: int, number: int, *, source: str = "127.0.0.1", says: bytes = b"") -> list[socket.socket]:
    held: list[socket.socket] = []
    for _ in range(number):
        each = socket.create_connection(("127.0.0.1", port), timeout=60, source_address=(source, 0))
        held.append(each)
        with suppress(ConnectionError):  # one too many for its address already
            each.sendall(says)
    return held


def _others_are_served(port: int) -> bool:
    """Whether somebody at another address, who was not there before, is answered."""
    transport = httpx.HTTPTransport(local_address="127.0.0.9")
    with httpx.Client(transport=transport, timeout=60) as client:
        return client.get(f"http://127.0.0.1:{port}/health/live").status_code == 200


def _is_open(connection: socket.socket) -> bool:
    """Whether the server has not closed it. What it sent before is read away."""
    connection.setblocking(False)
    try:
        while connection.recv(4096):
            pass
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


HEAD = b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n"
BODY = (
    b"POST /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    b"Content-Length: 99\r\n\r\n{"
)


@pytest.mark.parametrize(
    "says",
    [b"", HEAD, HEAD + b"\r\n", HEAD + b"Content-Length: 9\r\n\r\n"],
    ids=["silent", "head", "idle", "body"],
)
def test_thousands_of_connections_shut_nobody_out(service: Service, says: bytes):
    """The guard closes those above the limit of an address; the server itself those without their body."""
    held: list[socket.socket] = []
    try:
        for number in range(1, 6):
            held += _silent(service.port, 3 * PER_ADDRESS, source=f"127.0.0.{number}", says=says)
            assert _others_are_served(service.port)
        eventually(lambda: sum(map(_is_open, held)) <= 5 * PER_ADDRESS)
    finally:
        for each in held:
            each.close()


def test_connections_with_a_running_request_are_not_closed(service: Service):
    before = service.said(CLOSED)
    at_work = _silent(service.port, 5, says=BODY)
    held = _silent(service.port, 2 * PER_ADDRESS)
    try:
        eventually(lambda: service.said(CLOSED) > before)
        for each in at_work:
            each.sendall(b" " * 97 + b"}")
            assert each.recv(100).startswith(b"HTTP/1.1 422")
    finally:
        for each in (*at_work, *held):
            each.close()


async def test_a_late_head_ends_the_connection_and_a_late_body_is_408(
    addresses: DatabaseSettings, tmp_path: Path
):
    with serving(addresses, tmp_path, HEADER_TIMEOUT_S=1, BODY_TIMEOUT_S=1) as service:
        until_ready(service.port)
        silent, slow, late = (_silent(service.port, 1, says=says)[0] for says in (b"", HEAD, BODY))
        assert silent.recv(100) == b""
        assert not slow.recv(1000).startswith(b"HTTP/1.1 200")
        assert late.recv(1000).startswith(b"HTTP/1.1 408")
        for each in (silent, slow, late):
            each.close()


@pytest.mark.parametrize(
    ("host", "counted_as"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
    ],
)
def test_an_ipv6_customer_is_oneaddress_block(host: str, counted_as: str):
    assert address_block(host) == counted_as
