"""Worker processes that parse large statements, with a memory limit and a deadline for each statement.

`main` is such a process: it reads requests from its standard input until the input ends.
"""

import asyncio
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import IO, Final

import msgspec

from service.errors import Busy, FieldError, SqlRefused
from service.process import start_process
from service.sql.parameters import Template
from service.sql.statements import Outcome, Submission, answer

WORKERS: Final = 2
QUEUE_LIMIT: Final = 200
CPU_S: Final = 10.0
DEADLINE_S: Final = 30.0  # of wall clock, for a busy machine
WAIT_S: Final = 30.0
"""How long a caller waits for a free worker and its reply. A caller who gives up delays nobody else."""
IDLE_S: Final = 60.0
MEMORY_BYTES: Final = 512 << 20  # limit of address space; the worst text of 100 kB takes a third of it
_HEAD: Final = 4


class Workers:
    """Parses submissions in worker processes, which start on demand and end when idle."""

    def __init__(
        self, count: int = WORKERS, *, deadline_s: float = DEADLINE_S, wait_s: float = WAIT_S
    ) -> None:
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="sql-reading")
        self._deadline_s = deadline_s
        self._wait_s = wait_s
        self._idle: list[_Process] = []
        self._busy: set[_Process] = set()
        self._guard = threading.Lock()
        self._waiting = 0
        self._closed = False

    async def read(self, submission: Submission) -> Template:
        """Raises `Busy` if too many callers wait or parsing takes too long, else the errors of `validate`."""
        future = self.submit(submission)
        try:
            async with asyncio.timeout(self._wait_s):
                return await asyncio.wrap_future(future)
        except TimeoutError:
            raise Busy(headers={"Retry-After": "5"}) from None

    def submit(self, submission: Submission) -> "Future[Template]":
        """Raises `Busy` when too many callers wait; the future raises the errors of `validate`."""
        with self._guard:
            if self._waiting >= QUEUE_LIMIT:
                raise Busy(headers={"Retry-After": "5"})
            self._waiting += 1
        future = self._threads.submit(self._read, submission)
        future.add_done_callback(self._done)
        return future

    def close(self) -> None:
        """End the processes and drop the waiting submissions."""
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        with self._guard:
            for process in self._busy:
                process.end()
            for process in self._idle:
                process.clear()

    def _done(self, _future: object) -> None:
        with self._guard:
            self._waiting -= 1

    def _read(self, submission: Submission) -> Template:
        process = self._take()
        reply = process.ask(msgspec.msgpack.encode(submission), self._deadline_s)
        with self._guard:
            self._busy.discard(process)
        if reply is None:
            message = "The SQL takes too long or too much memory to read; make it shorter."
            raise SqlRefused(message, errors=(FieldError("sql", message),))
        self._give_back(process)
        return msgspec.msgpack.decode(reply, type=Outcome).unwrap()

    def _take(self) -> "_Process":
        with self._guard:
            process = self._idle.pop() if self._idle else None
        if process is not None and not process.wake():
            process.clear()
            process = None
        process = process or _Process()
        with self._guard:
            self._busy.add(process)
            if self._closed:
                process.end()
        return process

    def _give_back(self, process: "_Process") -> None:
        with self._guard:
            if not self._closed:
                process.rest(IDLE_S, self._forget)
                self._idle.append(process)
                return
        process.clear()

    def _forget(self, process: "_Process") -> None:
        with self._guard, suppress(ValueError):
            self._idle.remove(process)


class _Process:
    """One worker process."""

    def __init__(self) -> None:
        self._process = start_process(__name__, stdout=subprocess.PIPE)
        assert self._process.stdin, "opened here"
        assert self._process.stdout, "opened here"
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self._timer: threading.Timer | None = None

    def ask(self, request: bytes, deadline_s: float) -> bytes | None:
        """The reply, or None when the process ended or the deadline killed it."""
        timer = threading.Timer(deadline_s, self.end)
        timer.daemon = True
        timer.start()
        try:
            _write(self._stdin, request)
            reply = _read(self._stdout)
        except OSError:
            reply = None
        finally:
            timer.cancel()
        if reply is None:
            self.clear()
        return reply

    def rest(self, idle_s: float, on_end: Callable[["_Process"], None]) -> None:
        """End the process after `idle_s`, unless `wake` is called first."""

        def end() -> None:
            on_end(self)
            self.clear()

        self._timer = threading.Timer(idle_s, end)
        self._timer.daemon = True
        self._timer.start()

    def wake(self) -> bool:
        """Cancel the idle timer; return whether the process still runs."""
        if self._timer is not None:
            self._timer.cancel()
        return self._process.poll() is None

    def end(self) -> None:
        """Kill the process at once; the thread that waits for its reply sees the end and cleans up."""
        self._process.kill()

    def clear(self) -> None:
        """Kill the process and close its pipes."""
        self.end()
        for pipe in (self._stdin, self._stdout):
            with suppress(OSError):
                pipe.close()
        self._process.wait()


def _write(pipe: IO[bytes], message: bytes) -> None:
    pipe.write(len(message).to_bytes(_HEAD, "big") + message)
    pipe.flush()


def _read(pipe: IO[bytes]) -> bytes | None:
    head = pipe.read(_HEAD)
    size = int.from_bytes(head, "big")
    message = pipe.read(size) if len(head) == _HEAD else b""
    return message if message and len(message) == size else None


def _limit_memory() -> None:
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


def main() -> None:
    """Answer requests until the input ends; a text that takes too much time or memory ends the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _limit_memory()
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    sys.stdout = sys.stderr
    while (request := _read(sys.stdin.buffer)) is not None:
        signal.setitimer(signal.ITIMER_PROF, CPU_S)
        try:
            reply = answer(request)
        except MemoryError:
            os._exit(1)
        signal.setitimer(signal.ITIMER_PROF, 0)
        _write(replies, reply)
