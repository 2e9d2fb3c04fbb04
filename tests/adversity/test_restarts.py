"""Restarts that callers do not notice: SIGHUP, readiness before the end, nodes behind a balancer in turn."""

import os
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from select import select
from typing import Self
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import msgspec
import pytest
from msgspec import Struct

from service.server import supervisor
from service.server.supervisor import Supervisor
from service.settings import Database as DatabaseSettings
from service.settings import Settings
from tests.adversity.workers import serving
from tests.nginx import Nginx
from tests.processes import free_port, readiness, start, until_ready
from tests.waiting import eventually

Request = tuple[str, str, object]
"""Method, path, and what is sent as JSON."""


class Caller:
    """Asks on a new connection or on a kept one, as clients of HTTP do, and costs little."""

    def __init__(self, address: str, *, keep: bool, trust: ssl.SSLContext | None):
        self._address = urlsplit(address).netloc
        self._trust = trust
        self._keep = keep
        self._connection: HTTPConnection | None = None

    def ask(self, method: str, path: str, body: object) -> tuple[int, str]:
        if (opened := self._connection) and (not opened.sock or select([opened.sock], [], [], 0)[0]):
            self.close()  # the server has closed it
        if not (opened := self._connection):
            opened = self._connection = (
                HTTPSConnection(self._address, timeout=60, context=self._trust)
                if self._trust
                else HTTPConnection(self._address, timeout=60)
            )
        sent = None if body is None else msgspec.json.encode(body)
        opened.request(method, path, sent, {"Content-Type": "application/json"} if sent else {})
        answer = opened.getresponse()
        text = answer.read().decode()
        if not self._keep:
            self.close()
        return answer.status, text

    def close(self) -> None:
        if self._connection:
            self._connection.close()
        self._connection = None


class Load:
    """Callers who ask again and again, each on a new connection or on a kept one; what went wrong."""

    def __init__(self, address: str, *requests: Request, trust: ssl.SSLContext | None = None):
        self.wrong: list[str] = []
        self.answered = 0
        self._stop = threading.Event()
        asks = [
            (Caller(address, keep=kept, trust=trust), each) for each in requests for kept in (True, False)
        ]
        self._threads = [threading.Thread(target=self._ask, args=each) for each in asks]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def more(self, number: int = 50) -> None:
        """Wait for so many more answers."""
        goal = self.answered + number
        eventually(lambda: self.answered >= goal)

    def _ask(self, caller: Caller, request: Request) -> None:
        method, path, body = request
        while not self._stop.wait(PAUSE_S):
            try:
                status, text = caller.ask(method, path, body)
                if status != HTTPStatus.OK:
                    self.wrong.append(f"{method} {path}: {status} {text[:200]}")
            except (OSError, HTTPException) as error:
                self.wrong.append(f"{method} {path}: {error!r}")
                caller.close()
            self.answered += 1
        caller.close()


PAUSE_S = 0.02
LIST = ("GET", "/api/v1/metrics", None)
LIVE = ("GET", "/health/live", None)
BATCH = ("POST", "/api/v1/metrics/batch", {"metrics": [{"id": str(uuid4()), "parameters": {}}]})


async def test_sighup_restarts_all_workers_and_loses_no_request(addresses: DatabaseSettings, tmp_path: Path):
    with serving(addresses, tmp_path, WORKERS=2) as service:
        until_ready(service.port)
        eventually(lambda: len(service.workers()) == 2)
        before = service.workers()
        with Load(f"http://127.0.0.1:{service.port}", LIST, LIVE) as load:
            load.more()
            service.process.send_signal(signal.SIGHUP)
            eventually(lambda: len(service.workers()) == 2 and not service.workers() & before)
            load.more()
        assert load.wrong == []
        assert service.said('"restarted":true') == 2
        assert service.said("a worker died") == 0
    assert service.process.returncode == 0


async def test_a_successor_that_does_not_start_leaves_the_old_worker_at_work(
    addresses: DatabaseSettings, tmp_path: Path
):
    flag = tmp_path / "broken"
    before = f"""
from pathlib import Path
from service.server import worker
make = worker.create_app
def dies(*given):
    if Path({str(flag)!r}).exists(): raise MemoryError
    return make(*given)
worker.create_app = dies
"""
    with serving(addresses, tmp_path, before=before) as service:
        until_ready(service.port)
        workers = service.workers()
        flag.touch()
        service.process.send_signal(signal.SIGHUP)
        eventually(lambda: service.said("restart given up, the old workers serve on"))
        assert service.workers() == workers
        until_ready(service.port)
        flag.unlink()
        service.process.send_signal(signal.SIGHUP)
        eventually(lambda: len(service.workers()) == 1 and service.workers() != workers)
        until_ready(service.port)


async def test_readiness_turns_before_the_service_stops(addresses: DatabaseSettings, tmp_path: Path):
    with serving(addresses, tmp_path, DRAIN_S=3600) as service:
        until_ready(service.port)
        service.process.send_signal(signal.SIGTERM)
        eventually(lambda: (answer := readiness(service.port)) and answer.status_code == 503)
        told = readiness(service.port)
        assert told is not None
        assert (told.json()["status"], "serving" in told.json()["checks"]) == ("unavailable", True)
        async with httpx.AsyncClient() as client:
            answer = await client.get(f"http://127.0.0.1:{service.port}/api/v1/metrics")
        assert (answer.status_code, answer.headers["connection"]) == (200, "close")
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(timeout=60) == 0


class Process:
    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.kills = 0

    def kill(self) -> None:
        self.kills += 1


class Worker(Struct):
    inner: Process


def test_a_worker_is_killed_after_missed_heartbeats_unless_a_debugger_holds_it(
    monkeypatch: pytest.MonkeyPatch,
):
    own = Supervisor(Settings(), "127.0.0.1", 100)
    process = Process(os.getpid())
    own.wrks = [Worker(process)]
    own._beats[0] = 1
    for _ in range(own.hung_ticks):
        own._check_heartbeats()
    assert process.kills == 0, "the first tick has seen a heartbeat"
    monkeypatch.setattr(supervisor, "_is_debugged", lambda _pid: True)
    for _ in range(3 * own.hung_ticks):
        own._check_heartbeats()
    assert process.kills == 0
    monkeypatch.undo()
    own._check_heartbeats()
    assert process.kills == 1


TRACED = (
    "import ctypes, sys; ctypes.CDLL(None).ptrace(0, 0, 0, 0); print('traced', flush=True); sys.stdin.read()"
)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells who is debugged")
def test_a_debugged_process_is_known():
    assert not supervisor._is_debugged(os.getpid())
    assert not supervisor._is_debugged(2**22 + 1)
    with subprocess.Popen(
        [sys.executable, "-c", TRACED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as traced:
        assert traced.stdout
        assert traced.stdout.readline() == "traced\n"
        assert supervisor._is_debugged(traced.pid)
        traced.kill()


@contextmanager
def node(addresses: DatabaseSettings, folder: Path, port: int) -> Generator[subprocess.Popen[str]]:
    with (folder / f"log-{port}").open("a") as log:
        process = start(
            log,
            DATABASE_URL=addresses.url,
            READER_DATABASE_URL=addresses.reader_url,
            DATA_DIR=folder,
            PORT=port,
            DRAIN_S=1,
        )
        try:
            until_ready(port)
            yield process
        finally:
            process.terminate()
            process.wait(timeout=60)


async def test_nodes_behind_a_balancer_restart_one_by_one_and_lose_no_request(
    addresses: DatabaseSettings, tmp_path: Path
):
    one, other = free_port(), free_port()
    with ExitStack() as nodes, Nginx(tmp_path, [one, other]) as nginx:
        running = {port: nodes.enter_context(node(addresses, tmp_path, port)) for port in (one, other)}
        with Load(nginx.address, LIST, LIVE, BATCH, trust=nginx.trust) as load:
            load.more()
            for port, process in running.items():
                process.terminate()
                assert process.wait(timeout=60) == 0
                load.more()
                nodes.enter_context(node(addresses, tmp_path, port))
                load.more()
        assert load.wrong == []
