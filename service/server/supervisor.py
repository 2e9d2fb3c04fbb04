"""Serve HTTP from worker processes. Replace and log every worker that dies or hangs."""

import signal
import time
from functools import partial
from multiprocessing.sharedctypes import RawArray
from typing import Any, Final

import msgspec
import structlog
from granian.constants import HTTPModes, Interfaces, Loops
from granian.http import HTTP1Settings
from granian.server.mp import MPServer

from service.errors import Stop
from service.observe.counters import SharedCounters
from service.server.worker import STOPPED, build
from service.settings import Auth, Settings

BACKLOG: Final = 4096
TICK_S: Final = 1.0
START_TICK_S: Final = 0.05  # until the first worker serves
STEADY_S: Final = 60.0  # a worker that lived longer than this is replaced at once when it dies
LONGEST_PAUSE_S: Final = 30.0

_Granian: Any = MPServer  # parts of its types are unknown


class Supervisor(_Granian):
    """granian's main process, with our own handling of dead and hung workers."""

    hung_ticks = 20
    """Ticks without a heartbeat after which a worker counts as hung. A tick is a second."""
    start_ticks = 120
    """The same limit for a worker that has never sent a heartbeat."""
    failed_starts = 3
    """Deaths in a row after which the service gives up, if no worker has ever started."""

    def __init__(self, settings: Settings, address: str, places: int) -> None:
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
            workers_kill_timeout=server.grace_s,
            backlog=BACKLOG,
            backpressure=places,
            log_enabled=False,
        )
        self._settings = settings
        self._places = places
        self._beats: Any = RawArray("Q", self.workers)
        # Twice as many pages as workers: an old worker still counts while a new one begins.
        self._page_owners: list[Any] = [None] * (2 * self.workers)
        self._counters = SharedCounters.memory(len(self._page_owners))
        self._pages = SharedCounters(self._counters)
        self._last_beats = [0] * self.workers
        self._missed_beats = [0] * self.workers
        self._deaths = [0] * self.workers
        self._due: dict[int, float] = {}
        self._has_started = False
        self._serves = False
        self._last_tick = 0.0
        self._log: Any = structlog.get_logger("serve")

    def run(self) -> None:
        """Serve until stopped. Raises `Stop` if no worker ever starts."""
        self.serve(target_loader=build, wrap_loader=False)

    def _spawn_worker(self, idx: int, target: Any, callback_loader: Any) -> Any:
        self._last_beats[idx] = self._beats[idx] = 0
        self._missed_beats[idx] = 0
        granian: Any = super()
        page = self._free_page()
        loader = partial(callback_loader, self._beats, self._counters, page, idx, self._places)
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
            self.main_loop_interrupt.wait(TICK_S if self._serves else START_TICK_S)
            self.main_loop_interrupt.clear()
            if self.reload_signal:
                self._reload(spawn_target, target_loader)
            self._note_first_beat()
            self._note_deaths()
            if time.monotonic() >= self._last_tick + TICK_S:
                self._last_tick = time.monotonic()
                self._check_heartbeats()
            self._restart_dead(spawn_target, target_loader)

    def _stop_workers(self) -> None:
        granian: Any = super()
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
            status, lived_s = worker.inner.exitcode, time.monotonic() - worker.birth
            self._deaths[index] = 1 if lived_s > STEADY_S else self._deaths[index] + 1
            self._has_started = self._has_started or self._beats[index] > 0
            if not self._has_started and (status == STOPPED or self._deaths[index] >= self.failed_starts):
                self._give_up(_describe(status), STOPPED if status == STOPPED else 1)
            pause_s = _pause_s(self._deaths[index])
            self._due[index] = time.monotonic() + pause_s
            self._log.error(
                "a worker died and is replaced",
                worker=index + 1,
                process=worker.inner.pid,
                why=_describe(status),
                lived_s=round(lived_s, 1),
                in_s=pause_s,
            )

    def _give_up(self, why: str, exit_code: int) -> None:
        self.shutdown()
        raise Stop(f"no worker came up, the last one {why}: the lines above say why", exit_code=exit_code)

    def _check_heartbeats(self) -> None:
        """Kill workers without a heartbeat. `_note_deaths` then handles their deaths."""
        for index, worker in enumerate(self.wrks):
            if index in self._due:
                continue
            beats = self._beats[index]
            self._missed_beats[index] = (
                0 if beats != self._last_beats[index] else self._missed_beats[index] + 1
            )
            self._last_beats[index] = beats
            self._has_started = self._has_started or beats > 0
            limit = self.hung_ticks if beats else self.start_ticks
            if self._missed_beats[index] >= limit:
                self._missed_beats[index] = 0
                self._log.error(
                    "a worker hangs and is killed",
                    worker=index + 1,
                    process=worker.inner.pid,
                    silent_s=limit,
                )
                worker.inner.kill()

    def _restart_dead(self, spawn_target: Any, target_loader: Any) -> None:
        for index in [index for index, due in self._due.items() if due <= time.monotonic()]:
            del self._due[index]
            replacement = self._spawn_worker(index, spawn_target, target_loader)
            replacement.start()
            self.wrks[index] = replacement
            self._log.warning("a worker was started", worker=index + 1, process=replacement.inner.pid)


def _pause_s(deaths: int) -> float:
    """Zero for the first death in a row, then doubled, so that deaths at the start cannot spin."""
    return 0.0 if deaths <= 1 else min(2.0 ** (deaths - 2), LONGEST_PAUSE_S)


def _describe(status: int | None) -> str:
    if status is None or status >= 0:
        return f"ended with exit status {status}"
    name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
    return f"was killed by {name}" + (" (out of memory?)" if -status == signal.SIGKILL else "")
