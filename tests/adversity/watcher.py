"""Watch a running service from outside while it is attacked: does it answer, how much memory does it take.

The watcher is a process of its own, so that neither the attack nor the service can hold it up. Beside
`/health/live` it asks a control server that does nothing: what both are late by is the machine's doing.
"""

import http.client
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler

import msgspec
import psutil
from msgspec import Struct

ANSWER_WITHIN_S = 0.25
MEMORY_BYTES = 512 << 20
PAUSE_S = 0.02
PATIENCE_S = 20


class Report(Struct, frozen=True):
    """What was seen between the start and the end of an attack.

    `late_s` is by how much the slowest `/health/live` was slower than the control server at that time; the
    bytes are the most that all processes together held above what they held at the start.
    """

    answers: int
    failures: int
    late_s: float
    service_bytes: int
    postgres_bytes: int

    def assert_unharmed(self, *, postgres_bytes: int = 1 << 62) -> None:
        """The promise to everybody else: an answer in time, and bounded memory."""
        harms = [
            (self.answers == 0, "nothing was seen"),
            (self.failures > 0, f"{self.failures} of {self.answers} looks got no answer"),
            (self.late_s > ANSWER_WITHIN_S, f"/health/live was {self.late_s * 1000:.0f} ms late"),
            (self.service_bytes > MEMORY_BYTES, f"the service took {self.service_bytes >> 20} MiB more"),
            (self.postgres_bytes > postgres_bytes, f"Postgres took {self.postgres_bytes >> 20} MiB more"),
        ]
        seen = [harm for happened, harm in harms if happened]
        assert not seen, "; ".join(seen)


@contextmanager
def watched(port: int, service: int, postmaster: int = 0) -> Generator[list[Report]]:
    """Watch the service at `port` with these process ids; holds one report at the end."""
    command = [sys.executable, "-m", "tests.adversity.watcher", str(port), str(service), str(postmaster)]
    watcher = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert watcher.stdout, "a pipe was asked for"
    found: list[Report] = []
    try:
        assert watcher.stdout.readline() == b"ready\n"
        yield found
        told, _ = watcher.communicate(b"stop\n", timeout=PATIENCE_S)
        found.append(msgspec.json.decode(told, type=Report))
    finally:
        watcher.kill()
        watcher.wait()


class _Looks:
    """Asks one address again and again; when each question began and how long its answer took."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.taken: list[tuple[float, float]] = []
        self.failures = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._go_on, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(PATIENCE_S)

    def _go_on(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE_S / 2)
            try:
                connection.request("GET", "/health/live")
                self.failures += connection.getresponse().status != 200
            except (OSError, http.client.HTTPException):
                self.failures += 1
            finally:
                connection.close()
            self.taken.append((began, time.monotonic() - began))
            self._stop.wait(PAUSE_S)


class _Memory:
    """The private memory of a process and all below it."""

    def __init__(self, root: int) -> None:
        self._root = root
        self.first = self.peak = self._now()

    def look(self) -> None:
        self.peak = max(self.peak, self._now())

    @property
    def grown(self) -> int:
        return self.peak - self.first

    def _now(self) -> int:
        if not self._root:
            return 0
        held = 0
        with suppress(psutil.NoSuchProcess):
            root = psutil.Process(self._root)
            for process in [root, *root.children(recursive=True)]:
                with suppress(psutil.NoSuchProcess):
                    memory = process.memory_info()
                    held += memory.rss - memory.shared
        return held


class _Nothing(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def late_s(service: list[tuple[float, float]], control: list[tuple[float, float]]) -> float:
    """How much later than the control's slowest answer of the same time the service's slowest one came."""

    def excess(began: float, took: float) -> float:
        beside = [each for start, each in control if start < began + took and start + each > began]
        return took - max(beside, default=0.0)

    return max(excess(began, took) for began, took in service)


def main(port: int, service: int, postmaster: int) -> None:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Nothing) as control:
        threading.Thread(target=control.serve_forever, daemon=True).start()
        looks = _Looks(port), _Looks(control.server_address[1])
        memory = _Memory(service), _Memory(postmaster)
        stopped = threading.Event()
        threading.Thread(target=lambda: (sys.stdin.readline(), stopped.set()), daemon=True).start()
        for each in looks:
            each.start()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while not stopped.wait(PAUSE_S):
            for taken in memory:
                taken.look()
        for each in looks:
            each.stop()
        control.shutdown()
    report = Report(
        answers=len(looks[0].taken),
        failures=looks[0].failures,
        late_s=late_s(looks[0].taken, looks[1].taken),
        service_bytes=memory[0].grown,
        postgres_bytes=memory[1].grown,
    )
    sys.stdout.write(msgspec.json.encode(report).decode())


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
