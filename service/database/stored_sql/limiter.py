"""Connections of the reader, lent to one statement at a time and handed back as they were.

Whatever a statement may have changed in its session is put back before the next one meets it. Connections
that need no putting back stay at hand, past the pool's own lending, which takes longer than a small query.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, NamedTuple

import asyncpg
import structlog

from service.database.gateway import LOST_CONNECTION, Pool
from service.database.stored_sql.connection import ByteCap
from service.errors import (
    Busy,
    DatabaseUnavailable,
    FieldError,
    Problem,
    QueryFailed,
    QueryTimeout,
    ResultTooLarge,
)
from service.settings import Database as DatabaseSettings

# No call outlives the statement's own timeout by more than these together.
QUEUE_WAIT_S: Final = 2.0
GRACE_S: Final = 0.5
LINGER_S: Final = 1.0
NOTICE_S: Final = 0.25
"""When a statement is first looked for again that did not end within GRACE_S of its cancellation."""


# Behind a pooler only the session's name tells it; else it has none of its own.
_BACKEND: Final = "(pid = $1 OR application_name = $2) AND usename = current_user AND state = 'active'"
_AT_IT: Final = f"SELECT EXISTS (SELECT FROM pg_stat_activity WHERE {_BACKEND})"  # noqa: S608 (a constant)
_END_IT: Final = f"SELECT count(pg_terminate_backend(pid)) > 0 FROM pg_stat_activity WHERE {_BACKEND}"  # noqa: S608
CUT_S: Final = 0.05
"""When a statement whose connection was cut is looked for again: most are gone by then."""


class Watch(NamedTuple):
    """`check` raises where a statement may not run; `lingered` hears that Postgres does not stop it."""

    check: Callable[[], None]
    lingered: Callable[[], Awaitable[None]]


class Lingering(NamedTuple):
    """How many statements linger, and how many of their places others have."""

    statements: int
    replaced: int


class ConnectionLimiter:
    """Lends connections of the pool to `places` borrowers at once; a bounded queue waits its turn.

    A connection that needs nothing put back goes straight to the next in the queue, or stays at hand. Where
    Postgres goes on with a statement that it was told to cancel, a new connection takes its place, up to a
    limit; past that a place stays taken, as such statements would pile up else.
    """

    def __init__(
        self,
        pool: Pool,
        settings: DatabaseSettings,
        places: int,
        *,
        queue_limit: int,
        replaceable: int | None = None,
    ) -> None:
        """`replaceable` places may be given away while statements linger; as many as there are by default."""
        self._replaceable = places if replaceable is None else replaceable
        self._pool = pool
        self._settings = settings
        self._places = places
        self._queue_limit = queue_limit
        self._lent = 0
        self._lingering: set[asyncio.Task[None]] = set()
        self._replaced = 0
        self._log: Any = structlog.get_logger("statements")
        self._at_hand: list[Any] = []
        self._queue: deque[asyncio.Future[Any]] = deque()
        self._borrowings = 0

    @property
    def lingering(self) -> Lingering:
        return Lingering(len(self._lingering), self._replaced)

    def acquire(self, watch: Watch | None = None) -> "_Acquired":
        """A context manager; `Busy` when the queue is full, else what `translated` makes of an error."""
        return _Acquired(self, watch)

    async def close(self) -> None:
        for lingering in self._lingering:
            lingering.cancel()
        while self._at_hand:
            await self._give_back(self._at_hand.pop())

    async def retire(self) -> None:
        """Lend no connection again that stands now; the pool must have expired them."""
        self._borrowings += 1
        while self._at_hand:
            await self._give_back(self._at_hand.pop())

    async def take(self) -> Any:
        connection = await self._turn()
        try:
            while connection is not None and connection.is_closed():
                await self._give_back(connection)
                connection = self._at_hand.pop() if self._at_hand else None
            if connection is None:
                proxy: Any = await self._pool.acquire(timeout=QUEUE_WAIT_S)
                connection = proxy.itself
                connection.proxy = proxy
                connection.borrowings = self._borrowings
        except LOST_CONNECTION as error:
            self._pass_on(None)
            raise DatabaseUnavailable(headers={"Retry-After": "2"}) from error
        except asyncpg.PostgresError as error:  # no right to log in
            self._pass_on(None)
            raise DatabaseUnavailable("The database does not let the reader in.") from error
        except BaseException:
            self._pass_on(None)
            raise
        connection.cap.start(self._settings.result_bytes_limit)
        return connection

    async def release(self, connection: Any, *, sound: bool, watch: Watch | None = None) -> None:
        """Take a connection back; one that is not `sound` may still be hit by a cancellation."""
        if sound and connection.take_back() and connection.borrowings == self._borrowings:
            self._pass_on(connection)
            return
        backend, ended = (connection.get_server_pid(), connection.mark), False
        cut, noticed = connection.cap.exceeded, asyncio.Event()
        try:
            ended = await self._give_back(connection)
        finally:
            if ended and not cut:
                self._pass_on(None)
            else:
                lingering = asyncio.create_task(self._linger(backend, watch, noticed, cut=cut))
                self._lingering.add(lingering)
                lingering.add_done_callback(self._lingering.discard)
        if not ended:  # so that who asks again finds it counted
            with suppress(TimeoutError):
                async with asyncio.timeout(GRACE_S):
                    await noticed.wait()

    async def _linger(
        self, backend: tuple[int, str | None], watch: Watch | None, noticed: asyncio.Event, *, cut: bool
    ) -> None:
        """Watch a backend until it is through with its statement; its place is given back once."""
        told = replaced = False
        try:
            if cut and not await self._end_cut(backend):
                return
            wait_s = NOTICE_S
            while (at_it := await self._is_at_it(backend, wait_s)) is not False:
                wait_s = LINGER_S
                if at_it and not told:
                    told = True
                    await self._tell(backend, watch)
                    noticed.set()
                if at_it and not replaced and self._replaced < self._replaceable:
                    replaced = True
                    self._replaced += 1
                    self._pass_on(None)
        finally:
            noticed.set()
            if replaced:
                self._replaced -= 1
            else:
                self._pass_on(None)

    async def _end_cut(self, backend: tuple[int, str | None]) -> bool:
        """End a statement whose connection was cut, as nobody has told Postgres; whether it goes on."""
        with suppress(*LOST_CONNECTION, asyncpg.PostgresError):
            async with asyncio.timeout(QUEUE_WAIT_S):
                if not await self._pool.fetchval(_END_IT, *backend):
                    return False
        return await self._is_at_it(backend, CUT_S) is True

    async def _tell(self, backend: tuple[int, str | None], watch: Watch | None) -> None:
        self._log.warning(
            "statement heeds no cancellation",
            backend=backend[1] or backend[0],
            lingering=len(self._lingering),
            replaced=self._replaced,
            replaceable=self._replaceable,
        )
        if watch is not None:
            await watch.lingered()

    async def _is_at_it(self, backend: tuple[int, str | None], wait_s: float) -> bool | None:
        """Whether it still runs, after a while; None when Postgres cannot be asked."""
        await asyncio.sleep(wait_s)
        with suppress(*LOST_CONNECTION, asyncpg.PostgresError):
            async with asyncio.timeout(QUEUE_WAIT_S):
                return await self._pool.fetchval(_AT_IT, *backend)
        return None

    async def _turn(self) -> Any:
        """A connection at hand, or None for the right to have one of the pool's."""
        if self._lent < self._places:
            self._lent += 1
            return self._at_hand.pop() if self._at_hand else None
        if len(self._queue) >= self._queue_limit:
            raise Busy(headers={"Retry-After": "1"})
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        self._queue.append(turn)
        timer = loop.call_later(QUEUE_WAIT_S, _end_waiting, turn)
        try:
            return await turn
        except BaseException:
            if turn in self._queue:
                self._queue.remove(turn)
            elif not turn.cancelled():  # it came at the moment of the cancellation
                self._pass_on(turn.result())
            raise
        finally:
            timer.cancel()

    def _pass_on(self, connection: Any) -> None:
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(connection)
                return
        self._lent -= 1
        if connection is not None:
            self._at_hand.append(connection)

    async def _give_back(self, connection: Any) -> bool:
        """Whether Postgres has ended what ran; the pool throws away what it cannot put back."""
        try:
            await self._pool.release(connection.proxy, timeout=GRACE_S)
        except TimeoutError:
            return False
        except (*LOST_CONNECTION, asyncpg.PostgresError):
            pass  # lost, or hit by a cancellation that came late: the caller's answer stands
        return True

    def translated(self, error: BaseException, cap: ByteCap) -> Problem | None:
        """What a caller is told of an error, None of what is none of Postgres's."""
        timeout_ms, limit = self._settings.statement_timeout_ms, self._settings.result_bytes_limit
        match error:
            case asyncpg.QueryCanceledError() | TimeoutError():
                return QueryTimeout(f"The stored SQL ran longer than {timeout_ms} ms and was cancelled.")
            case asyncpg.LockNotAvailableError():
                return QueryTimeout("The stored SQL waited too long for a lock on one of its tables.")
            case _ if isinstance(error, LOST_CONNECTION) and cap.exceeded:
                return ResultTooLarge(
                    f"The result takes more than {limit} bytes (RESULT_BYTES_LIMIT): "
                    "select fewer columns or rows."
                )
            case _ if isinstance(error, LOST_CONNECTION):
                return DatabaseUnavailable(headers={"Retry-After": "2"})
            case asyncpg.PostgresError():
                return _query_failed(error)
            case _:
                return None


def _end_waiting(turn: "asyncio.Future[Any]") -> None:
    if not turn.done():
        turn.set_exception(Busy(headers={"Retry-After": "1"}))


class _Acquired:
    """One connection for as long as the context lasts; a class, as it is on every query's way."""

    __slots__ = ("_cap", "_connection", "_loans", "_watch")

    def __init__(self, loans: ConnectionLimiter, watch: Watch | None) -> None:
        self._loans = loans
        self._watch = watch

    async def __aenter__(self) -> Any:
        watch = self._watch
        if watch is not None:
            watch.check()
        connection = self._connection = await self._loans.take()
        self._cap = connection.cap
        if watch is not None:
            try:  # it may have been set aside while this one waited in the queue
                watch.check()
            except BaseException:
                self._cap.stop()
                await self._loans.release(connection, sound=False)
                raise
        return connection

    async def __aexit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._cap.stop()  # taken before, since a lost connection no longer says
        await self._loans.release(self._connection, sound=error is None, watch=self._watch)
        if error is not None and (problem := self._loans.translated(error, self._cap)):
            raise problem from error


def _query_failed(error: asyncpg.PostgresError) -> Problem:
    message = getattr(error, "message", None) or str(error)
    position = getattr(error, "position", None)
    members: dict[str, Any] = {"sqlstate": error.sqlstate}
    if position is not None:
        members["position"] = int(position)
    if hint := getattr(error, "hint", None):
        members["hint"] = hint
    return QueryFailed(f"Postgres: {message}", errors=(FieldError("sql", message),), **members)
