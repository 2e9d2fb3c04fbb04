"""Limit how many connections of the reader are in use: one statement acquires one connection.

`admission` decides who gets one, who waits and who is refused. Session state that a statement may have
changed is reset before the next statement runs. Connections that need no reset stay idle here instead of
going back to the pool, whose release takes longer than a small query.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from contextlib import suppress
from contextvars import Context
from types import TracebackType
from typing import Any, Final, NamedTuple

import asyncpg
from msgspec import Struct

from service.database.driver import Pool, give_place_back
from service.database.gateway import LOST_CONNECTION, acquire
from service.database.queries import Statement
from service.database.stored_sql.admission import Admission
from service.database.stored_sql.connection import SQL, ByteCap
from service.database.stored_sql.problems import problem_of
from service.database.stored_sql.waiters import Place
from service.errors import Busy, DatabaseUnavailable, Problem
from service.http.current_caller import current_caller
from service.observe.events import CallersShed, Observe, StatementLingers, ignore
from service.settings import Database as DatabaseSettings

# A call ends at the latest this long (their sum) after the statement's own timeout.
QUEUE_WAIT_S: Final = 2.0
GRACE_S: Final = 0.5
LINGER_S: Final = 1.0
NOTICE_S: Final = 0.25
"""Delay before the first check of a statement that did not end within GRACE_S of its cancellation."""


LOOK_S: Final = 0.1
"""Pause between two looks for waiters whose turn will not come in time."""
TELL_SHED_S: Final = 1.0


CUT_S: Final = 0.05
"""Delay before the check of a statement whose connection was aborted: most have ended by then."""


class _Backend(Struct, frozen=True):
    """Whether a backend was found."""

    found: bool


_IS_RUNNING: Final = SQL.rows("is_running", _Backend)
_TERMINATE: Final = SQL.rows("terminate", _Backend)


class Watch(NamedTuple):
    """`check` raises if the statement may not run; `lingered` is called when cancelling does not stop it.

    `metric` is whose places the statement takes; None for a statement that no metric asked for.
    """

    check: Callable[[], None]
    lingered: Callable[[], Awaitable[None]]
    metric: Hashable = None


class Usage(NamedTuple):
    """How many connections are in use, and how many callers wait for one."""

    used: int
    waiting: int


class Lingering(NamedTuple):
    """How many cancelled statements still run, and how many of their slots were replaced."""

    statements: int
    replaced: int


class ConnectionLimiter:
    """Lets `slots` callers at once acquire a connection of the pool; more callers wait in a bounded queue.

    A connection that needs no reset stays idle for the next caller. When
    Postgres continues a cancelled statement, a new connection may replace its slot, up to a limit. Above the
    limit the slot stays in use, because such statements would otherwise accumulate.
    """

    def __init__(
        self,
        pool: Pool,
        settings: DatabaseSettings,
        slots: int,
        *,
        queue_limit: int,
        replaceable: int | None = None,
        sheds: bool = True,
        observe: Observe = ignore,
    ) -> None:
        """`replaceable` slots may be replaced while statements linger; by default all of them.

        `observe` gets `CallersShed` and `StatementLingers`. For `sheds` see `Admission`.
        """
        self._replaceable = slots if replaceable is None else replaceable
        self._pool = pool
        self._settings = settings
        self._admission = Admission(
            slots, queue_limit=queue_limit, wait_s=QUEUE_WAIT_S, clock=time.monotonic, sheds=sheds
        )
        self._observe = observe
        self._shed = 0
        self._turning = False
        self._look: asyncio.TimerHandle | None = None
        self._lingering: set[asyncio.Task[None]] = set()
        self._replaced = 0
        self._idle: list[Any] = []
        self._pool_generation = 0

    @property
    def usage(self) -> Usage:
        return Usage(self._admission.used, self._admission.waiting)

    @property
    def lingering(self) -> Lingering:
        return Lingering(len(self._lingering), self._replaced)

    def acquire(self, watch: Watch | None = None) -> "_Acquired":
        """A context manager; raises `Busy` for who would wait too long, else the problems of `problem_of`."""
        return _Acquired(self, watch)

    def refuse(self, metric: Hashable, *, runs: bool) -> None:
        """Raise `Busy` if the current caller would be refused, before any work is done for it."""
        admission = self._admission
        try:
            admission.refuse(current_caller.get(), metric, expect=runs)
        except Busy:
            self.count_shed()
            raise
        if admission.expected.number and not self._turning:
            self._turning = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        """Tell the admission of each turn of the event loop, while callers are expected."""
        self._turning = self._admission.expected.turn()
        if self._turning:
            asyncio.get_running_loop().call_soon(self._turn)

    async def close(self) -> None:
        for lingering in self._lingering:
            lingering.cancel()
        if self._look is not None:
            self._look.cancel()
            self._look = None
        while self._idle:
            await self._return_to_pool(self._idle.pop())

    async def retire(self) -> None:
        """Stop reusing all current connections; the caller must have expired them in the pool."""
        self._pool_generation += 1
        while self._idle:
            await self._return_to_pool(self._idle.pop())

    async def take(self, place: Place) -> Any:
        connection = await self._wait_for_slot(place)
        try:
            while connection is not None and connection.is_closed():
                await self._return_to_pool(connection)
                connection = self._idle.pop() if self._idle else None
            if connection is None:
                proxy: Any = await self._pool.acquire(timeout=QUEUE_WAIT_S)
                connection = proxy.itself
                connection.proxy = proxy
                connection.pool_generation = self._pool_generation
        except LOST_CONNECTION as error:
            self._hand_over(None, place, ran=False)
            raise DatabaseUnavailable(headers={"Retry-After": "2"}) from error
        except asyncpg.PostgresError as error:  # no right to log in
            self._hand_over(None, place, ran=False)
            raise DatabaseUnavailable("The database does not let the reader in.") from error
        except BaseException:
            self._hand_over(None, place, ran=False)
            raise
        connection.cap.start(self._settings.result_bytes_limit)
        self._admission.start(place)
        return connection

    def take_idle(self, place: Place) -> Any:
        """A connection that needs no wait; None if there is none, for whoever then waits with `take`."""
        if place.caller is not None and self._admission.expected.number:
            self._admission.expected.arrive(place.caller, place.metric)
        if not self._idle or self._idle[-1].is_closed() or not self._admission.take(place):
            return None
        connection = self._idle.pop()
        connection.cap.start(self._settings.result_bytes_limit)
        return connection

    def keep(self, connection: Any, place: Place) -> bool:
        """Keep a sound connection for the next caller. Returns whether it needs no reset."""
        if not connection.is_reusable() or connection.pool_generation != self._pool_generation:
            return False
        self._hand_over(connection, place)
        return True

    async def release(self, connection: Any, place: Place, watch: Watch | None = None) -> None:
        """Release a connection to the pool, which resets it; a pending cancellation may still hit it."""
        backend, ended = (connection.get_server_pid(), connection.session_name), False
        cut, noticed = connection.cap.exceeded, asyncio.Event()
        try:
            ended = await self._return_to_pool(connection)
        finally:
            if ended and not cut:
                self._hand_over(None, place)
            else:
                lingering = asyncio.create_task(self._linger(backend, place, watch, noticed, cut=cut))
                self._lingering.add(lingering)
                lingering.add_done_callback(self._lingering.discard)
        if not ended:  # so that the caller's next attempt sees the statement counted
            with suppress(TimeoutError):
                async with asyncio.timeout(GRACE_S):
                    await noticed.wait()

    async def _linger(
        self,
        backend: tuple[int, str | None],
        place: Place,
        watch: Watch | None,
        noticed: asyncio.Event,
        *,
        cut: bool,
    ) -> None:
        """Watch a backend until its statement ends; free its slot exactly once."""
        reported = replaced = False
        try:
            if cut and not await self._end_cut(backend):
                return
            wait_s = NOTICE_S
            while (running := await self._is_running(backend, wait_s)) is not False:
                wait_s = LINGER_S
                if running and not reported:
                    reported = True
                    await self._report(backend, watch)
                    noticed.set()
                if running and not replaced and self._replaced < self._replaceable:
                    replaced = True
                    self._replaced += 1
                    self._hand_over(None, place)
        finally:
            noticed.set()
            if replaced:
                self._replaced -= 1
            else:
                self._hand_over(None, place)

    async def _end_cut(self, backend: tuple[int, str | None]) -> bool:
        """Terminate a statement whose connection was aborted; return whether it still runs.

        Aborting the connection does not cancel the statement in Postgres.
        """
        with suppress(*LOST_CONNECTION, asyncpg.PostgresError):
            async with asyncio.timeout(QUEUE_WAIT_S):
                if not await self._ask(_TERMINATE, backend):
                    return False
        return await self._is_running(backend, CUT_S) is True

    async def _report(self, backend: tuple[int, str | None], watch: Watch | None) -> None:
        lingering = len(self._lingering)
        name = backend[1] or backend[0]
        self._observe(StatementLingers(name, lingering, self._replaced, self._replaceable))
        if watch is not None:
            await watch.lingered()

    async def _is_running(self, backend: tuple[int, str | None], wait_s: float) -> bool | None:
        """Whether the statement still runs after `wait_s`; None when Postgres cannot be queried."""
        await asyncio.sleep(wait_s)
        with suppress(*LOST_CONNECTION, asyncpg.PostgresError):
            async with asyncio.timeout(QUEUE_WAIT_S):
                return await self._ask(_IS_RUNNING, backend)
        return None

    async def _ask(self, statement: Statement[_Backend], backend: tuple[int, str | None]) -> bool | None:
        """Ask about a backend, on a connection that takes no slot."""
        async with acquire(self._pool, timeout_s=QUEUE_WAIT_S) as connection:
            return await connection.fetchval(statement.sql, *backend)

    async def _wait_for_slot(self, place: Place) -> Any:
        """Wait for a slot; return an idle connection, or None if one must be acquired from the pool."""
        if self._admission.take(place):
            return self._idle.pop() if self._idle else None
        loop = asyncio.get_running_loop()
        try:
            pushed_out = self._admission.wait(place)
        except Busy:
            self.count_shed()
            raise
        answer: asyncio.Future[Any] = loop.create_future()
        place.answer = answer
        if pushed_out is not None:
            self._expire(pushed_out)
        if self._look is None:
            self._look = loop.call_later(LOOK_S, self._shed_late)
        # The service itself waits for as long as its own caller does.
        timer = None if place.caller is None else loop.call_later(QUEUE_WAIT_S, self._expire, place)
        try:
            return await answer
        except BaseException:
            self._admission.leave(place)
            if answer.done() and not answer.cancelled() and answer.exception() is None:
                # the slot was handed over at the moment of the cancellation
                self._hand_over(answer.result(), place, ran=False)
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def _expire(self, place: Place) -> None:
        self._refuse(place, Busy(headers={"Retry-After": "1"}))

    def _refuse(self, place: Place, problem: Busy) -> None:
        if not place.answer.done():
            place.answer.set_exception(problem)
            self.count_shed()

    def _shed_late(self) -> None:
        """Refuse the waiters whose turn will not come in time, and look again while somebody waits."""
        self._look = None
        for place, problem in self._admission.shed():
            self._refuse(place, problem)
        if self._admission.waiting:
            self._look = asyncio.get_running_loop().call_later(LOOK_S, self._shed_late)

    def count_shed(self) -> None:
        """Tell of refused callers once a second: there may be thousands."""
        if not self._shed:  # in a context of its own: the line is not about one request
            asyncio.get_running_loop().call_later(TELL_SHED_S, self._tell_shed, context=Context())
        self._shed += 1

    def _tell_shed(self) -> None:
        number, self._shed = self._shed, 0
        self._observe(CallersShed(number, self._admission.waiting))

    def _hand_over(self, connection: Any, place: Place, *, ran: bool = True) -> None:
        """Free a slot for the next in turn, with a connection that needs no reset or None."""
        admission = self._admission
        admission.give_back(place, ran=ran)
        if connection is not None:
            self._idle.append(connection)
        while (waiter := admission.grant()) is not None:
            if waiter.answer.done():  # it has just left
                admission.give_back(waiter, ran=False)
            else:
                waiter.answer.set_result(self._idle.pop() if self._idle else None)

    def problem_of(self, error: BaseException, cap: ByteCap) -> Problem | None:
        return problem_of(error, cap, self._settings)

    async def _return_to_pool(self, connection: Any) -> bool:
        """Release to the pool, which closes a connection if its reset fails; whether the statement ended."""
        try:
            await self._pool.release(connection.proxy, timeout=GRACE_S)
        except TimeoutError:
            return False
        except (*LOST_CONNECTION, asyncpg.PostgresError):
            pass  # lost, or hit by a late cancellation: the caller's result stays valid
        finally:
            give_place_back(connection.proxy)
        return True


class _Acquired:
    """One connection for the duration of the context; a class, because every query passes it."""

    __slots__ = ("_cap", "_connection", "_limiter", "_place", "_watch")

    def __init__(self, limiter: ConnectionLimiter, watch: Watch | None) -> None:
        self._limiter = limiter
        self._watch = watch

    async def __aenter__(self) -> Any:
        watch = self._watch
        if watch is not None:
            watch.check()
        place = self._place = Place(current_caller.get(), None if watch is None else watch.metric)
        connection = self._limiter.take_idle(place)
        if connection is None:
            connection = await self._waited_for(place, watch)
        self._connection, self._cap = connection, connection.cap
        return connection

    async def _waited_for(self, place: Place, watch: Watch | None) -> Any:
        connection = await self._limiter.take(place)
        if watch is not None:
            try:  # the metric may have been suspended while this caller waited in the queue
                watch.check()
            except BaseException:
                connection.cap.stop()
                await self._limiter.release(connection, place)
                raise
        return connection

    async def __aexit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._cap.stop()  # kept from `__aenter__`: a lost connection no longer gives its cap
        if error is None and self._limiter.keep(self._connection, self._place):
            return
        await self._limiter.release(self._connection, self._place, self._watch)
        if error is not None and (problem := self._limiter.problem_of(error, self._cap)):
            raise problem from error
