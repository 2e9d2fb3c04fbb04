"""Single flight: whatever the number of callers, one execution per key at a time.

A caller takes part in a flight only if it departed late enough for that caller; else it waits for the end of
that flight and takes the next, which departs after it. So nobody waits for more than two, however fast the
data move. The flight is a task of its own: callers come and go, and with the last one it is cancelled.
"""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from functools import partial
from math import inf
from typing import Any, Final, Generic, TypeVar

from service.errors import DatabaseUnavailable

V = TypeVar("V")
Run = Callable[[], Coroutine[Any, Any, V]]

REMEMBER_ERROR_S: Final = 1.0
REMEMBERED_ERRORS: Final = 1024


class Flight(Generic[V]):
    """One execution, under way until it has `landed`: a turn of the event loop after its task has ended.

    `keep` holds it in the air without callers, `follow` is run when it has landed.
    """

    __slots__ = ("abandoned", "aboard", "departed_at", "follow", "keep", "landed", "task", "waiting")

    def __init__(self, departed_at: float, task: "asyncio.Task[V]", *, keep: bool) -> None:
        self.departed_at = departed_at
        self.task = task
        self.aboard = 0
        self.keep = keep
        self.abandoned = False
        self.landed = False
        self.follow: Run[V] | None = None
        self.waiting: list[asyncio.Future[None]] = []

    async def end(self, until: float) -> None:
        """Wait until it has landed, or raise TimeoutError; as `asyncio.wait`, at a fraction of its price."""
        if self.landed:
            return
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        self.waiting.append(waiter)
        timer = loop.call_at(until, _expire, waiter) if until < inf else None
        try:
            await waiter
        finally:
            if timer is not None:
                timer.cancel()

    def land(self) -> None:
        self.landed = True
        for waiter in self.waiting:
            if not waiter.done():
                waiter.set_result(None)


def _expire(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_exception(TimeoutError())


class SingleFlight(Generic[V]):
    """Executions under way by key; `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._under_way: dict[Hashable, Flight[V]] = {}
        self._errors: dict[Hashable, tuple[float, float, Exception]] = {}
        self._closed = False

    def __len__(self) -> int:
        return len(self._under_way)

    async def take(
        self,
        key: Hashable,
        run: Run[V],
        accepts: Callable[[float], bool],
        *,
        afresh: bool,
        until: float = inf,
    ) -> tuple[V, bool]:
        """Give the outcome of a flight that `accepts` (asked with its departure), and whether it was joined.

        `until` is the event loop's time at which TimeoutError is raised. An error reaches all aboard.
        For `REMEMBER_ERROR_S` it is raised again at once while its flight `accepts`, unless `afresh`; the
        loss
        of the database hangs on no data, so it suits all.
        """
        while flight := self._under_way.get(key):
            if not flight.abandoned and accepts(flight.departed_at):
                return await self._ride(flight, until), True
            await flight.end(until)
        if not afresh and (error := self._remembered(key, accepts)):
            raise error.with_traceback(None)
        return await self._ride(self._depart(key, run, keep=False), until), False

    def refresh(self, key: Hashable, run: Run[V], accepts: Callable[[float], bool]) -> None:
        """Run for nobody in particular, unless it failed a moment ago.

        A flight that suits is kept in the air; after one that does not, the next departs, however many ask.
        """
        flight = self._under_way.get(key)
        if flight is None:
            if self._remembered(key, accepts) is None:
                self._depart(key, run, keep=True)
        elif not flight.abandoned and accepts(flight.departed_at):
            flight.keep = True
        else:
            flight.follow = run

    def forgive(self) -> None:
        """Remember no error any longer."""
        self._errors.clear()

    async def close(self) -> None:
        """Cancel what is under way and wait until it has ended."""
        self._closed = True
        tasks = [flight.task for flight in self._under_way.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _remembered(self, key: Hashable, accepts: Callable[[float], bool]) -> Exception | None:
        until, departed_at, error = self._errors.get(key, (-inf, -inf, None))
        holds = self._clock() < until and (isinstance(error, DatabaseUnavailable) or accepts(departed_at))
        return error if holds else None

    def _depart(self, key: Hashable, run: Run[V], *, keep: bool) -> Flight[V]:
        task = asyncio.get_running_loop().create_task(run())  # `asyncio.create_task` costs twice as much
        flight = Flight(self._clock(), task, keep=keep)
        self._under_way[key] = flight
        flight.task.add_done_callback(partial(self._landed, key, flight))
        return flight

    def _landed(self, key: Hashable, flight: Flight[V], _task: "asyncio.Task[V]") -> None:
        del self._under_way[key]
        if self._errors:
            self._errors.pop(key, None)
        error = None if flight.task.cancelled() else flight.task.exception()
        if isinstance(error, Exception):
            self._errors[key] = (self._clock() + REMEMBER_ERROR_S, flight.departed_at, error)
            if len(self._errors) > REMEMBERED_ERRORS:
                del self._errors[next(iter(self._errors))]
        elif flight.follow and not self._closed:
            self._depart(key, flight.follow, keep=True)
        flight.land()

    async def _ride(self, flight: Flight[V], until: float) -> V:
        flight.aboard += 1
        try:
            await flight.end(until)
        finally:
            flight.aboard -= 1
            if not flight.aboard and not flight.keep and not flight.task.done():
                flight.abandoned = True
                flight.task.cancel()
        if flight.task.cancelled():  # the service shuts down
            raise DatabaseUnavailable(headers={"Retry-After": "2"})
        if error := flight.task.exception():
            raise error.with_traceback(None)
        return flight.task.result()
