"""The watcher itself: what it must notice, it notices."""

import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager

import httpx
import pytest

from tests.adversity.watcher import Report, late_s, watched
from tests.processes import free_port
from tests.waiting import eventually

SERVER = """
import sys, time
from http.server import BaseHTTPRequestHandler, HTTPServer

kept = []

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/freeze":
            time.sleep(1)
        if self.path == "/grow":
            kept.append(bytearray(b"x") * (600 << 20))
        self.send_response(503 if kept and self.path == "/health/live" and "sick" in sys.argv else 200)
        self.end_headers()

    def log_message(self, *_):
        pass

HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@contextmanager
def attacked(path: str, *arguments: str) -> Generator[list[Report]]:
    """A server of one thread is watched while somebody asks it for `path`."""
    port = free_port()
    with subprocess.Popen([sys.executable, "-c", SERVER, str(port), *arguments]) as server:
        try:
            eventually(lambda: _answers(port))
            with watched(port, server.pid, os.getpid()) as reports:
                httpx.get(f"http://127.0.0.1:{port}{path}", timeout=30)
            yield reports
        finally:
            server.kill()


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health/live").status_code == 200
    except httpx.TransportError:
        return False


def test_a_quiet_service_is_unharmed():
    with attacked("/") as (report,):
        report.assert_unharmed(postgres_bytes=1 << 30)


@pytest.mark.parametrize(
    ("path", "arguments", "what"),
    [("/freeze", (), "late"), ("/grow", (), "MiB more"), ("/grow", ("sick",), "got no answer")],
    ids=["a frozen service", "a grown service", "a service that is not healthy"],
)
def test_harm_is_noticed(path, arguments, what):
    with attacked(path, *arguments) as (report,), pytest.raises(AssertionError, match=what):
        report.assert_unharmed()


def test_what_the_machine_is_late_by_is_not_the_services_fault():
    service = [(0.0, 0.01), (1.0, 2.0), (4.0, 0.3)]
    control = [(0.0, 0.01), (1.5, 1.4), (5.0, 0.01)]
    assert late_s(service, control) == pytest.approx(0.6)
