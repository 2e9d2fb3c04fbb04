"""Serve HTTP from worker processes. Replace and log every worker that dies or hangs.

SIGHUP restarts all workers, one by one: the next one begins when the one before serves, and the old one has
ended its requests.
"""

import gc
import signal
import time
from functools import partial
from math import ceil
from multiprocessing.sharedctypes import RawArray
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog
from granian._granian import SocketHolder
from granian.constants import HTTPModes, Interfaces, Loops
from granian.http import HTTP1Settings
from granian.server.mp import MPServer

from service.errors import Stop
from service.observe.counters import SharedCounters
from service.observe.events import Observe, WorkerLost, WorkerStarted, both
from service.observe.log import EventLog
from service.observe.prometheus import Prometheus
from service.server.place import CLOSE_S, RESTART_S, STOPPED, Place
from service.server.sockets import listening
from service.settings import Auth, Settings

BACKLOG: Final = 4096
TICK_S: Final = 1.0
START_TICK_S: Final = 0.05  # until the first worker serves
STEADY_S: Final = 60.0  # a worker that lived longer than this is replaced at once when it dies
LONGEST_PAUSE_S: Final = 30.0

_Granian: Any = MPServer  # parts of its types are unknown
_Holder: Any = SocketHolder


class Supervisor(_Granian):
    """granian's main process, with our own handling of dead and hung workers."""

    hung_ticks = 20
    """Ticks without a heartbeat after which a worker counts as hung. A tick is a second."""
    start_ticks = 120
    """The same limit for a worker that has never sent a heartbeat."""
    wrks: list[Any]
    failed_starts = 3
    """Deaths in a row after which the service gives up, if no worker has ever started."""

    def __init__(self, settings: Settings, address: str, places: int, observe: Observe | None = None) -> None:
        """`observe` gets `WorkerLost` and `WorkerStarted`, which are counted; by default they are logged."""
        server = settings.server
        granian: Any = super()
        granian.__init__(
            "service.server.worker:build",
            address=address,
            port=server.port,
            interface=Interfaces.ASGI,
            loop=Loops.uvloop,
            http=HTTPModes.http1,  # the other modes wait for a first byte forever
            http1_settings=HTTP1Settings(header_read_timeout=server.header_timeout_s * 1000),
            workers=server.workers,
            workers_kill_timeout=server.grace_s + server.drain_s + ceil(max(CLOSE_S, RESTART_S)),
            backlog=BACKLOG,
            backpressure=places,
            log_enabled=False,
        )
        self._settings = settings
        self._places = places
        # Two slots for each worker: its successor beats in the other one.
        self._beats: Any = RawArray("Q", 2 * self.workers)
        self._stays: Any = RawArray("b", 2 * self.workers)
        self._slots = list(range(self.workers))
        self._sockets: list[Any] = []
        self._to_restart: list[int] = []
        self._successor: Any = None
        self._leaving: Any = None
        # Twice as many pages as workers: an old worker still counts while a new one begins.
        self._page_owners: list[Any] = [None] * (2 * self.workers)
        own_page = len(self._page_owners)
        self._counters = SharedCounters.memory(own_page + 1)
        self._pages = SharedCounters(self._counters)
        self._observe = both(observe or EventLog(), Prometheus(self._pages, own_page))
        self._last_beats = [0] * self.workers
        self._missed_beats = [0] * self.workers
        self._deaths = [0] * self.workers
        self._hung: set[int] = set()
        """Processes that were killed because they hung."""
        self._due: dict[int, float] = {}
        self._has_started = False
        self._serves = False
        self._last_tick = 0.0
        self._log: Any = structlog.get_logger("serve")

    def run(self) -> None:
        """Serve until stopped. Raises `Stop` if no worker ever starts."""
        self.serve(target_loader=_build, wrap_loader=False)

    def signal_handler_interrupt(self, *args: Any, **options: Any) -> None:
        """The first signal stops the service. A second one ends what the workers wait for (DRAIN_S)."""
        if self.interrupt_signal:
            for worker in self.wrks:
                worker.terminate()
        granian: Any = super()
        granian.signal_handler_interrupt(*args, **options)

    def _init_shared_socket(self) -> None:
        self._sockets = listening(self.bind_addr, self.bind_port, self.workers, self.backlog)

    def _drop_shared_socket(self) -> None:
        for each in self._sockets:
            each.close()

    def _spawn_worker(self, idx: int, target: Any, callback_loader: Any) -> Any:
        slot = self._slots[idx]
        self._beats[slot] = self._stays[slot] = 0
        own = self._sockets[idx]
        self._ssp, self._shd, self._sso = None, _Holder(own.fileno(), False, self.backlog), own
        granian: Any = super()
        page = self._free_page()
        place = Place(self._beats, self._stays, slot, self._counters, page, self._places)
        loader = partial(callback_loader, place, self._sockets, idx)
        worker = granian._spawn_worker(idx, target, loader)  # noqa: SLF001 (overrides this method)
        if page is not None:
            self._page_owners[page] = worker.inner
        return worker

    def _free_page(self) -> int | None:
        """A page of counters whose worker has died, for a page has one writer. None: it counts for itself."""
        for page, owner in enumerate(self._page_owners):
            if owner is not None and owner.exitcode is not None:
                self._page_owners[page] = None
                self._pages.end_gauges(page)
        return self._page_owners.index(None) if None in self._page_owners else None

    def _serve_loop(self, spawn_target: Any, target_loader: Any) -> None:
        while not self.interrupt_signal:
            restarting = self._successor is not None or self._leaving is not None
            self.main_loop_interrupt.wait(TICK_S if self._serves and not restarting else START_TICK_S)
            self.main_loop_interrupt.clear()
            if self.reload_signal:
                self._begin_restart()
            self._restart_in_turn(spawn_target, target_loader)
            self._note_first_beat()
            self._note_deaths()
            if time.monotonic() >= self._last_tick + TICK_S:
                self._last_tick = time.monotonic()
                self._check_heartbeats()
            self._restart_dead(spawn_target, target_loader)

    def _stop_workers(self) -> None:
        granian: Any = super()
        self.wrks += [each[-1] for each in (self._successor, self._leaving) if each is not None]
        granian._stop_workers()  # noqa: SLF001 (overrides this method)
        self.interrupt_children.clear()  # Ctrl-C also stops the workers, so their end is no death

    def _note_first_beat(self) -> None:
        """Say where the service is, once a worker answers there."""
        if self._serves or not any(self._beats):
            return
        self._serves = True
        own = msgspec.structs.replace(self._settings, auth=Auth()).public_url
        public = self._settings.auth.public_url
        self._log.info(f"serves on {own}", docs=f"{own}/docs", **({"public_url": public} if public else {}))

    def _note_deaths(self) -> None:
        while self.interrupt_children and not self.interrupt_signal:
            index = self.interrupt_children.pop()
            worker = self.wrks[index]
            if worker.is_alive():  # it is a successor already
                continue
            status, lived_s = worker.inner.exitcode, time.monotonic() - worker.birth
            self._deaths[index] = 1 if lived_s > STEADY_S else self._deaths[index] + 1
            self._has_started = self._has_started or self._beats[self._slots[index]] > 0
            if not self._has_started and (status == STOPPED or self._deaths[index] >= self.failed_starts):
                self._give_up(_describe(status), STOPPED if status == STOPPED else 1)
            pause_s = _pause_s(self._deaths[index])
            self._due[index] = time.monotonic() + pause_s
            pid = worker.inner.pid
            why = "hung, and was killed" if pid in self._hung else _describe(status)
            self._hung.discard(pid)
            self._observe(WorkerLost(index + 1, pid, why, round(lived_s, 1), pause_s))

    def _give_up(self, why: str, exit_code: int) -> None:
        self.shutdown()
        raise Stop(f"no worker came up, the last one {why}: the lines above say why", exit_code=exit_code)

    def _check_heartbeats(self) -> None:
        """Kill workers without a heartbeat. `_note_deaths` then handles their deaths."""
        for index, worker in enumerate(self.wrks):
            if index in self._due:
                continue
            beats = self._beats[self._slots[index]]
            self._missed_beats[index] = (
                0 if beats != self._last_beats[index] else self._missed_beats[index] + 1
            )
            self._last_beats[index] = beats
            self._has_started = self._has_started or beats > 0
            limit = self.hung_ticks if beats else self.start_ticks
            if self._missed_beats[index] >= limit and not _is_debugged(worker.inner.pid):
                self._missed_beats[index] = 0
                self._log.error(
                    "a worker hangs and is killed",
                    worker=index + 1,
                    process=worker.inner.pid,
                    silent_s=limit,
                )
                self._hung.add(worker.inner.pid)
                worker.inner.kill()

    def _restart_dead(self, spawn_target: Any, target_loader: Any) -> None:
        for index in [index for index, due in self._due.items() if due <= time.monotonic()]:
            del self._due[index]
            replacement = self._spawn_worker(index, spawn_target, target_loader)
            replacement.start()
            self.wrks[index] = replacement
            self._forget_beats(index)
            self._observe(WorkerStarted(index + 1, replacement.inner.pid))

    def _forget_beats(self, index: int) -> None:
        self._last_beats[index] = self._missed_beats[index] = 0

    # SIGHUP

    def _begin_restart(self) -> None:
        self.reload_signal = False
        self._to_restart = list(range(self.workers))
        self._log.info("restarts its workers one by one", workers=self.workers)

    def _restart_in_turn(self, spawn_target: Any, target_loader: Any) -> None:
        """Do the next step: start a successor, let it take over, wait for the end of the old worker."""
        if self._leaving is not None:
            self._await_end(*self._leaving)
        elif self._successor is not None:
            self._await_successor(*self._successor)
        elif self._to_restart and self._to_restart[0] not in self._due:
            index = self._to_restart.pop(0)
            old_slot = self._slots[index]
            self._slots[index] = (old_slot + self.workers) % (2 * self.workers)
            successor = self._spawn_worker(index, spawn_target, target_loader)
            self._slots[index] = old_slot
            successor.interrupt_by_parent = True  # its end is no death of the worker that serves
            successor.start()
            self._successor = index, time.monotonic(), successor

    def _await_successor(self, index: int, began: float, successor: Any) -> None:
        slot = (self._slots[index] + self.workers) % (2 * self.workers)
        late = time.monotonic() - began > self.start_ticks * TICK_S
        if late:
            successor.inner.kill()
        if late or not successor.is_alive():
            self._successor, self._to_restart = None, []
            why = "did not start in time" if late else _describe(successor.inner.exitcode)
            self._log.error("restart given up, the old workers serve on", worker=index + 1, why=why)
        elif self._beats[slot]:
            old, self.wrks[index] = self.wrks[index], successor
            old_slot, self._slots[index] = self._slots[index], slot
            self._forget_beats(index)
            self._due.pop(index, None)  # the old one had died meanwhile
            self._successor = None
            successor.interrupt_by_parent = False
            self._stays[old_slot] = 1
            old.terminate()
            self._leaving = index, time.monotonic() + self.workers_kill_timeout, old
            self._observe(WorkerStarted(index + 1, successor.inner.pid, restarted=True))

    def _await_end(self, index: int, until: float, old: Any) -> None:
        if not old.is_alive():
            self._leaving = None
        elif time.monotonic() > until:
            self._log.warning("a worker did not end in time and is killed", worker=index + 1)
            old.kill()


def _build(*place: Any) -> Any:
    """In a worker: its app, which takes most of a start to import. The supervisor does without."""
    gc.disable()  # until the app is built: looking through all that is imported takes a sixth of a start
    from service.server.worker import build  # noqa: PLC0415

    return build(*place)


def _pause_s(deaths: int) -> float:
    """Zero for the first death in a row, then doubled, so that deaths at the start cannot spin."""
    return 0.0 if deaths <= 1 else min(2.0 ** (deaths - 2), LONGEST_PAUSE_S)


def _is_debugged(pid: int | None) -> bool:
    """Whether a debugger holds the process. Only Linux tells."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    return "\nTracerPid:\t0\n" not in status and "\nTracerPid:\t" in status


def _describe(status: int | None) -> str:
    if status is None or status >= 0:
        return f"ended with exit status {status}"
    name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
    return f"was killed by {name}" + (" (out of memory?)" if -status == signal.SIGKILL else "")
