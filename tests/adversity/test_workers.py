"""Workers die, hang and never come up; connections are held without a word. The service goes on answering."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from service.http.connections import _address_block
from service.server.supervisor import LONGEST_PAUSE_S, _describe, _pause_s
from service.settings import Database as DatabaseSettings
from tests.processes import ROOT, environment, free_port, until_ready
from tests.waiting import eventually

# What a test cannot wait for: a worker counts as hung after three seconds here.
QUICK = "from service.server.supervisor import Supervisor; "
QUICK += "Supervisor.hung_ticks = 3; Supervisor.start_ticks = 60;"


@contextmanager
def serving(addresses: DatabaseSettings, data_dir: Path, *, before: str = "", **more: Any) -> Generator[Any]:
    """The service in processes of its own; what `before` says is done first in each."""
    port = free_port()
    script = f"{QUICK} {before}\nfrom service.cli import main\nif __name__ == '__main__': main(['serve'])"
    log = (data_dir / "log").open("w+")
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=environment(
            DATABASE_URL=addresses.url,
            READER_DATABASE_URL=addresses.reader_url,
            DATA_DIR=data_dir,
            PORT=port,
            **more,
        ),
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )

    def said() -> str:
        return (data_dir / "log").read_text()

    try:
        yield process, port, said
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)
        log.close()


def _workers(process: subprocess.Popen[bytes]) -> set[int]:
    return {child.pid for child in psutil.Process(process.pid).children()}


def _replaced(process: subprocess.Popen[bytes], before: set[int]) -> None:
    def different() -> bool:
        now = _workers(process)
        return len(now) == len(before) and now != before

    eventually(different)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV], ids=lambda how: how.name)
async def test_a_worker_that_dies_is_replaced_and_the_log_says_so(
    addresses: DatabaseSettings, tmp_path: Path, how: signal.Signals
):
    with serving(addresses, tmp_path) as (process, port, said):
        until_ready(port)
        before = _workers(process)
        os.kill(min(before), how)
        _replaced(process, before)
        until_ready(port)
        assert "a worker died and is replaced" in said()
    assert process.returncode == 0


async def test_a_worker_that_hangs_is_replaced(addresses: DatabaseSettings, tmp_path: Path):
    with serving(addresses, tmp_path) as (process, port, said):
        until_ready(port)
        before = _workers(process)
        os.kill(min(before), signal.SIGSTOP)
        _replaced(process, before)
        until_ready(port)
        assert "a worker hangs and is killed" in said()


async def test_a_service_none_of_whose_workers_comes_up_ends_with_a_sentence(
    addresses: DatabaseSettings, tmp_path: Path
):
    before = (
        "from service.server import worker\ndef die(settings): raise MemoryError\nworker.create_app = die"
    )
    with serving(addresses, tmp_path, before=before) as (process, _, said):
        assert process.wait(timeout=60) == 1
    assert "tally: no worker came up, the last one ended with exit status 1" in said()
    assert said().count("a worker was started") == 2


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


def _silent(port: int, number: int, *, source: str = "127.0.0.1", says: bytes = b"") -> list[socket.socket]:
    held: list[socket.socket] = []
    for _ in range(number):
        each = socket.create_connection(("127.0.0.1", port), timeout=60, source_address=(source, 0))
        if says:
            each.sendall(says)
        held.append(each)
    return held


def _lives(port: int) -> bool:
    return httpx.get(f"http://127.0.0.1:{port}/health/live", timeout=10).status_code == 200


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
async def test_thousands_of_connections_shut_nobody_out(
    addresses: DatabaseSettings, tmp_path: Path, says: bytes
):
    with serving(addresses, tmp_path, CONNECTIONS_PER_ADDRESS=200) as (_, port, said):
        until_ready(port)
        held: list[socket.socket] = []
        try:
            for number in range(1, 6):
                held += _silent(port, 600, source=f"127.0.0.{number}", says=says)
                assert _lives(port)
            eventually(lambda: "idle connections closed" in said())
        finally:
            for each in held:
                each.close()


async def test_connections_with_a_running_request_are_not_closed(addresses: DatabaseSettings, tmp_path: Path):
    with serving(addresses, tmp_path, CONNECTIONS_PER_ADDRESS=20) as (_, port, said):
        until_ready(port)
        at_work = _silent(port, 5, says=BODY)
        held = _silent(port, 100)
        try:
            eventually(lambda: "idle connections closed" in said())
            for each in at_work:
                each.sendall(b" " * 97 + b"}")
                assert each.recv(100).startswith(b"HTTP/1.1 422")
        finally:
            for each in (*at_work, *held):
                each.close()


async def test_a_late_head_ends_the_connection_and_a_late_body_is_408(
    addresses: DatabaseSettings, tmp_path: Path
):
    with serving(addresses, tmp_path, HEADER_TIMEOUT_S=1, BODY_TIMEOUT_S=1) as (_, port, _):
        until_ready(port)
        silent, slow, late = (_silent(port, 1, says=says)[0] for says in (b"", HEAD, BODY))
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
def test_an_ipv6_customer_is_one_address_block(host: str, counted_as: str):
    assert _address_block(host) == counted_as
