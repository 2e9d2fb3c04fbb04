"""Single flight: one execution per key at a time, for any number of callers.

A caller joins a flight only if it started late enough for that caller. Otherwise the caller waits for its end
and joins the next flight, which starts later than the caller came. So a caller waits for at most two flights,
however fast the data change. A flight is a task of its own. It is cancelled when its last caller leaves.

A flight runs in the name of the caller who started it, and may be refused for what that caller does (`Busy`).
Who joined it in another name then tries once in its own.
"""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from functools import partial
from math import inf
from typing import Any, Final, Generic, TypeVar

from service.errors import Busy, DatabaseUnavailable
from service.http.current_caller import current_caller

V = TypeVar("V")
Run = Callable[[], Coroutine[Any, Any, V]]

REMEMBER_ERROR_S: Final = 1.0
REMEMBERED_ERRORS: Final = 1024


class Flight(Generic[V]):
    """One execution. It is `finished` one turn of the event loop after its task has ended.

    `background`: it runs on without callers. `next_run` starts when it has finished.
    """

    __slots__ = (
        "abandoned",
        "background",
        "caller",
        "finished",
        "futures",
        "next_run",
        "started_at",
        "task",
        "waiters",
    )

    def __init__(self, started_at: float, task: "asyncio.Task[V]", *, background: bool) -> None:
        self.started_at = started_at
        self.caller = current_caller.get()
        self.task = task
        self.waiters = 0
        self.background = background
        self.abandoned = False
        self.finished = False
        self.next_run: Run[V] | None = None
        self.futures: list[asyncio.Future[None]] = []

    async def end(self, until: float) -> None:
        """Wait until it has finished, or raise TimeoutError. This costs a fraction of `asyncio.wait`."""
        if self.finished:
            return
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        self.futures.append(waiter)
        timer = loop.call_at(until, _expire, waiter) if until < inf else None
        try:
            await waiter
        finally:
            if timer is not None:
                timer.cancel()

    def finish(self) -> None:
        self.finished = True
        for waiter in self.futures:
            if not waiter.done():
                waiter.set_result(None)


def _expire(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_exception(TimeoutError())


class SingleFlight(Generic[V]):
    """Running executions by key. `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._running: dict[Hashable, Flight[V]] = {}
        self._errors: dict[Hashable, tuple[float, float, Exception]] = {}
        self._closed = False

    def __len__(self) -> int:
        return len(self._running)

    def runs(self, key: Hashable) -> bool:
        return key in self._running

    async def take(
        self,
        key: Hashable,
        run: Run[V],
        accepts: Callable[[float], bool],
        *,
        afresh: bool,
        until: float = inf,
    ) -> tuple[V, bool]:
        """Return the value of an acceptable flight, and whether the caller joined a running one.

        `accepts` is called with a flight's start time. `until` is the event loop's time at which TimeoutError
        is raised. All waiters get a flight's error. For `REMEMBER_ERROR_S` later callers get it too, if they
        accept the flight and `afresh` is false. The loss of the database does not depend on data, so every
        such caller gets it. `Busy` is not remembered: it is about one caller.
        """
        refused = False
        while flight := self._running.get(key):
            if flight.abandoned or not accepts(flight.started_at):
                await flight.end(until)
                continue
            try:
                return await self._join(flight, until), True
            except Busy:
                if refused or flight.caller == current_caller.get():
                    raise
                refused = True
        if not afresh and (error := self._remembered(key, accepts)):
            raise error.with_traceback(None)
        return await self._join(self._start(key, run, background=False), until), False

    def refresh(self, key: Hashable, run: Run[V], accepts: Callable[[float], bool]) -> None:
        """Run in the background, unless the last run failed a moment ago.

        An acceptable flight runs on without callers. After any other flight one new flight starts, however
        many callers ask for it.
        """
        flight = self._running.get(key)
        if flight is None:
            if self._remembered(key, accepts) is None:
                self._start(key, run, background=True)
        elif not flight.abandoned and accepts(flight.started_at):
            flight.background = True
        else:
            flight.next_run = run

    def forgive(self) -> None:
        """Forget all remembered errors."""
        self._errors.clear()

    async def close(self) -> None:
        """Cancel all flights and wait for their end."""
        self._closed = True
        tasks = [flight.task for flight in self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _remembered(self, key: Hashable, accepts: Callable[[float], bool]) -> Exception | None:
        until, started_at, error = self._errors.get(key, (-inf, -inf, None))
        applies = self._clock() < until and (isinstance(error, DatabaseUnavailable) or accepts(started_at))
        return error if applies else None

    def _start(self, key: Hashable, run: Run[V], *, background: bool) -> Flight[V]:
        task = asyncio.get_running_loop().create_task(run())  # `asyncio.create_task` costs twice as much
        flight = Flight(self._clock(), task, background=background)
        self._running[key] = flight
        flight.task.add_done_callback(partial(self._finish, key, flight))
        return flight

    def _finish(self, key: Hashable, flight: Flight[V], _task: "asyncio.Task[V]") -> None:
        del self._running[key]
        if self._errors:
            self._errors.pop(key, None)
        error = None if flight.task.cancelled() else flight.task.exception()
        if isinstance(error, Exception) and not isinstance(error, Busy):
            self._errors[key] = (self._clock() + REMEMBER_ERROR_S, flight.started_at, error)
            if len(self._errors) > REMEMBERED_ERRORS:
                del self._errors[next(iter(self._errors))]
        elif error is None and flight.next_run and not self._closed:
            self._start(key, flight.next_run, background=True)
        flight.finish()

    async def _join(self, flight: Flight[V], until: float) -> V:
        flight.waiters += 1
        try:
            await flight.end(until)
        finally:
            flight.waiters -= 1
            if not flight.waiters and not flight.background and not flight.task.done():
                flight.abandoned = True
                flight.task.cancel()
        if flight.task.cancelled():  # the service shuts down
            raise DatabaseUnavailable(headers={"Retry-After": "2"})
        if error := flight.task.exception():
            raise error.with_traceback(None)
        return flight.task.result()
