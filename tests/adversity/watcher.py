"""Watch a running service from outside while it is attacked: does it answer, how much memory does it take.

The watcher is a process of its own, so that neither the attack nor the service can hold it up. Beside
`/health/live` it asks a control server that does nothing: what both are late by is the machine's doing. So
is the time that a thread of the service waited for a processor that it could have used.
"""

import http.client
import os
import select
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import msgspec
from msgspec import Struct

ANSWER_WITHIN_S = 0.25
MEMORY_BYTES = 512 << 20
PAUSE_S = 0.02
PATIENCE_S = 20
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Report(Struct, frozen=True):
    """What was seen between the start and the end of an attack.

    `late_s` is by how much the slowest `/health/live` was slower than the control server at that time,
    without the time that a thread of the service waited for a processor. The bytes are the most that all
    processes together held above what they held at the start.
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
    with watching(port, service, postmaster) as watcher, watcher.watched() as reports:
        yield reports


@contextmanager
def watching(port: int, service: int, postmaster: int = 0) -> Generator["Watcher"]:
    """A watcher of the service at `port`, for many attacks: its start takes longer than most of them."""
    command = [sys.executable, "-m", "tests.adversity.watcher", str(port), str(service), str(postmaster)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield Watcher(process)
        finally:
            process.kill()


class Watcher:
    """The end of the watcher's process that tests hold."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    @contextmanager
    def watched(self) -> Generator[list[Report]]:
        """Watch meanwhile; holds one report at the end."""
        found: list[Report] = []
        assert self._told() == b"ready\n"
        try:
            yield found
        finally:
            report = self._told()
        found.append(msgspec.json.decode(report, type=Report))

    def _told(self) -> bytes:
        """What the watcher answers to a line."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        readable, _, _ = select.select([self._process.stdout], [], [], PATIENCE_S)
        assert readable, "the watcher says nothing"
        return self._process.stdout.readline()


class _Looks:
    """Asks one address again and again; when each question began and how long its answer took.

    Not counted is what a thread of the process `root`, or of one below it, meanwhile waited for a processor.
    """

    def __init__(self, port: int, root: int = 0) -> None:
        self._port = port
        self._root = root
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
            before = _waited_s(self._root)
            began = time.monotonic()
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE_S / 2)
            try:
                connection.request("GET", "/health/live")
                self.failures += connection.getresponse().status != 200
            except (OSError, http.client.HTTPException):
                self.failures += 1
            finally:
                connection.close()
            took = time.monotonic() - began
            waited = [each - before.get(thread, 0.0) for thread, each in _waited_s(self._root).items()]
            self.taken.append((began, took - max(waited, default=0.0)))
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
        return sum(map(_private_bytes, _family(self._root))) if self._root else 0


def _family(root: int) -> Iterator[int]:
    """A process and all below it, as the kernel lists them: a look at every process takes far longer."""
    yield root
    with suppress(FileNotFoundError, ProcessLookupError):  # it has ended
        for task in Path(f"/proc/{root}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from _family(int(child))


def _waited_s(root: int) -> dict[str, float]:
    """For how long each thread of a process and of all below it could have run and had no processor."""
    found: dict[str, float] = {}
    for process in _family(root) if root else ():
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            for task in Path(f"/proc/{process}/task").iterdir():
                with suppress(FileNotFoundError, ProcessLookupError):
                    _, waited_ns, _ = (task / "schedstat").read_text().split()
                    found[task.name] = int(waited_ns) / 1e9
    return found


def _private_bytes(process: int) -> int:
    try:
        _, resident, shared, *_ = Path(f"/proc/{process}/statm").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return (int(resident) - int(shared)) * PAGE_BYTES


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
    """One line begins a watch and gets `ready`, the next one ends it and gets the report."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Nothing) as control:
        threading.Thread(target=control.serve_forever, daemon=True).start()
        while sys.stdin.readline():
            report = _watch(port, control.server_address[1], service, postmaster)
            sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
            sys.stdout.flush()
        control.shutdown()


def _watch(port: int, control: int, service: int, postmaster: int) -> Report:
    looks = _Looks(port, service), _Looks(control)
    memory = _Memory(service), _Memory(postmaster)
    stopped = threading.Event()
    end = threading.Thread(target=lambda: (sys.stdin.readline(), stopped.set()), daemon=True)
    end.start()
    for each in looks:
        each.start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while not stopped.wait(PAUSE_S):
        for taken in memory:
            taken.look()
    for each in looks:
        each.stop()
    end.join()
    return Report(
        answers=len(looks[0].taken),
        failures=looks[0].failures,
        late_s=late_s(looks[0].taken, looks[1].taken),
        service_bytes=memory[0].grown,
        postgres_bytes=memory[1].grown,
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
