"""The owner's access to Postgres: five verbs over an asyncpg pool, and the translation of its errors.

Store functions take `Database | Transaction` first, so that the caller decides what commits together.
Stored SQL never runs here: `reader` has its own role and its own pool.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Generator, Iterable, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import asyncpg
from msgspec import Struct

from service.database.connect import CONNECT_TIMEOUT_S, asyncpg_arguments, cause
from service.database.driver import Connection, Pool, RawConnection, give_place_back
from service.database.queries import Command, Statement
from service.errors import Busy, Conflict, DatabaseUnavailable, InvalidInput, Problem
from service.http import bodies

if TYPE_CHECKING:
    from service.database.breaker import Breaker  # which stands above this module

Row = TypeVar("Row", bound=Struct)
Record = Sequence[Any]

OWNER_POOL_SIZE: Final = 8
WRITE_TIMEOUT_S: Final = 30
CLOSE_WAIT_S: Final = 5
STREAMED_ROWS: Final = 50

# Raised by asyncpg when the server is unreachable, shutting down or not accepting connections.
LOST_CONNECTION: Final = (
    OSError,  # TimeoutError too: no connection within CONNECT_TIMEOUT_S
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # a shutdown of the server between two statements
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
)
# The login fails: a changed password, a dropped role or a dropped database.
REFUSED_LOGIN: Final = (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError)
# The server is a standby, or the database is set to read only.
TAKES_NO_WRITES: Final = asyncpg.ReadOnlySQLTransactionError
EXHAUSTED: Final = (asyncpg.DiskFullError, asyncpg.OutOfMemoryError)

NOT_MIGRATED: Final = (
    asyncpg.UndefinedTableError,
    asyncpg.UndefinedColumnError,
    asyncpg.InvalidSchemaNameError,
)


class Verbs:
    """The verbs of `Database` and `Transaction`: each acquires a connection and translates errors."""

    _timeout_s: float | None = None
    """Seconds that a statement may take; None means the pool's WRITE_TIMEOUT_S."""

    def _borrow(self) -> Any:
        raise NotImplementedError

    async def read(self, statement: Statement[Row], *args: Any) -> list[Row]:
        async with self._borrow() as connection:
            rows = await connection.fetch(statement.sql, *args, timeout=self._timeout_s)
        row = statement.row
        return [row(*record) for record in rows]

    async def read_one(self, statement: Statement[Row], *args: Any) -> Row | None:
        async with self._borrow() as connection:
            record = await connection.fetchrow(statement.sql, *args, timeout=self._timeout_s)
        return None if record is None else statement.row(*record)

    async def write(self, command: Command, *args: Any) -> int:
        """Run a statement that returns no rows; return the number of affected rows."""
        async with self._borrow() as connection:
            return _affected(await connection.execute(command.sql, *args, timeout=self._timeout_s))

    async def copy(
        self,
        schema: str,
        table: str,
        *,
        columns: Sequence[str],
        records: Iterable[Record] | AsyncIterable[Record],
    ) -> int:
        """COPY records into a table; return the number of copied rows."""
        async with self._borrow() as connection:
            status = await connection.copy_records_to_table(
                table, schema_name=schema, columns=columns, records=records, timeout=self._timeout_s
            )
        return _affected(status)


class Transaction(Verbs):
    """One open transaction; `savepoint` nests."""

    def __init__(self, connection: Connection, timeout_s: float | None = None) -> None:
        self._connection = connection
        self._timeout_s = timeout_s

    @asynccontextmanager
    async def _borrow(self) -> AsyncGenerator[Connection]:
        with translated():
            yield self._connection

    async def stream(self, statement: Statement[Row], *args: Any) -> AsyncGenerator[Row]:
        """Yield rows while they are fetched, so that memory holds only `STREAMED_ROWS` of them."""
        with translated():
            async for record in self._connection.cursor(
                statement.sql, *args, prefetch=STREAMED_ROWS, timeout=self._timeout_s
            ):
                yield statement.row(*record)

    @asynccontextmanager
    async def transaction(self, *, timeout_s: float | None = None) -> AsyncGenerator["Transaction"]:
        """A savepoint: when its block raises, only this block's changes are rolled back."""
        with translated():
            async with self._connection.transaction():
                yield Transaction(self._connection, timeout_s or self._timeout_s)


class PoolUsage(NamedTuple):
    """Connections in use, open connections that are idle, and callers that wait."""

    used: int
    idle: int
    waiting: int = 0


class Database(Verbs):
    """The owner's pool."""

    def __init__(self, pool: Pool, breaker: "Breaker | None" = None, *, pooled: bool = False) -> None:
        """`pooled`: behind a pooler in transaction mode, where a session lasts for one transaction."""
        self._pool = pool
        self._breaker = breaker
        self._pooled = pooled

    @property
    def usage(self) -> PoolUsage:
        idle = self._pool.get_idle_size()
        return PoolUsage(self._pool.get_size() - idle, idle)

    @asynccontextmanager
    async def _borrow(self) -> AsyncGenerator[Connection]:
        if self._breaker is not None:
            self._breaker.check()
        try:
            with translated():
                async with acquire(self._pool, timeout_s=CONNECT_TIMEOUT_S) as connection:
                    if not self._pooled:
                        yield connection
                        return
                    async with connection.transaction():
                        await connection.execute(_BEGIN_POOLED)
                        yield connection
        except Problem as problem:
            if self._breaker is not None and isinstance(problem.__cause__, TAKES_NO_WRITES):
                self._breaker.fail_over()
            raise

    @asynccontextmanager
    async def transaction(self, *, timeout_s: float | None = None) -> AsyncGenerator[Transaction]:
        """Commit when the block ends, roll back when it raises; `timeout_s` applies to each statement."""
        async with self._borrow() as connection, connection.transaction():
            yield Transaction(connection, timeout_s)

    @asynccontextmanager
    async def snapshot(self, *, timeout_s: float | None = None) -> AsyncGenerator[Transaction]:
        """A READ ONLY transaction in which every statement sees the same state of the database."""
        async with (
            self._borrow() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            yield Transaction(connection, timeout_s)


@asynccontextmanager
async def open_database(
    url: str, *, size: int = OWNER_POOL_SIZE, pooled: bool = False, breaker: "Breaker | None" = None
) -> AsyncGenerator[Database]:
    """Open the owner's pool lazily: for an unreachable server the first verb raises `DatabaseUnavailable`.

    With `pooled` the address is that of a pooler in transaction mode. It keeps no prepared statements before
    version 1.21 and no session settings, so each statement gets a transaction with our settings. `breaker` is
    that of the server that the address leads to.
    """
    options: dict[str, Any] = (
        {"statement_cache_size": 0, "connection_class": PooledConnection, "init": _use_json_pooled}
        if pooled
        else {"init": use_json}
    )
    pool = asyncpg.create_pool(
        **asyncpg_arguments(url, None if pooled else _SESSION),
        min_size=0,
        max_size=size,
        command_timeout=WRITE_TIMEOUT_S,
        connect=None if breaker is None else breaker.connect,
        setup=refuse_lost,
        **options,
    )
    await pool
    if breaker is not None:
        breaker.watch_pool(pool)
    try:
        yield Database(pool, breaker, pooled=pooled)
    finally:
        with suppress(TimeoutError):  # a hanging server does not answer; the pool drops the connections
            async with asyncio.timeout(CLOSE_WAIT_S):
                await pool.close()


_SESSION: Final = {"application_name": "tally", "timezone": "UTC", "search_path": "pg_catalog"}
_BEGIN_POOLED: Final = "SELECT " + ", ".join(
    f"pg_catalog.set_config('{name}', '{value}', true)" for name, value in _SESSION.items()
)


class PooledConnection(RawConnection):
    """A connection to a pooler: what a transaction has set ends with it, so there is nothing to reset."""

    def get_reset_query(self) -> str:
        return ""


async def _use_json_pooled(connection: Connection) -> None:
    """Look up the type within one transaction, so that both messages reach one server."""
    async with connection.transaction():
        await use_json(connection)


async def refuse_lost(connection: Connection) -> None:
    """Refuse a new connection that is lost already, for a pool's `setup`.

    The pool hears of a loss only while a connection is lent. One that ends between its first statement and
    that moment, as in a restart of the server, would keep its place in the pool for ever.
    """
    if connection.is_closed():
        raise asyncpg.ConnectionDoesNotExistError("the connection was lost at once")


@asynccontextmanager
async def acquire(pool: Pool, *, timeout_s: float) -> AsyncGenerator[Any]:
    """A connection of a pool. The pool gets its place back also if it is lost meanwhile."""
    # Not the pool's own timeout, which is `asyncio.wait_for`: before Python 3.12 it can lose a cancellation.
    async with asyncio.timeout(timeout_s):
        connection: Any = await pool.acquire()
    try:
        yield connection
    finally:
        try:
            await pool.release(connection, timeout=timeout_s)
        finally:
            give_place_back(connection)


async def use_json(connection: Connection) -> None:
    """Encode and decode jsonb columns as Python values. Numbers with a fraction are Decimals."""
    await connection.set_type_codec(
        "jsonb",
        schema="pg_catalog",
        encoder=_to_json,
        decoder=bodies.decode_exact,
    )


def _to_json(value: Any) -> str:
    return bodies.encode(value).decode()


def _affected(status: str) -> int:
    last = status.rsplit(" ", 1)[-1]
    return int(last) if last.isdigit() else 0


@contextmanager
def translated() -> Generator[None]:
    """Translate the driver's errors into `Problem`s; programming errors pass through unchanged."""
    try:
        yield
    except Exception as error:
        problem = error if isinstance(error, Problem) else _problem_of(error)
        if problem is not None:
            raise_if_cancelled(error)
        if problem is None or problem is error:
            raise
        raise problem from error


def raise_if_cancelled(error: Exception) -> None:
    """Raise CancelledError if the current task is cancelled: the error then came in its place.

    A connection whose statement is cancelled may be lost when it is given back. Whoever tries again after
    that error would never end.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError from error


def _problem_of(error: Exception) -> Problem | None:
    for kinds, problem, detail, retry_s in _PROBLEMS:
        if isinstance(error, kinds):
            return problem(detail.format(error), headers={"Retry-After": str(retry_s)} if retry_s else None)
    return None


_Kinds = type[Exception] | tuple[type[Exception], ...]

_PROBLEMS: Final[Sequence[tuple[_Kinds, type[Problem], str, int]]] = (
    (asyncpg.LockNotAvailableError, Busy, "Others work on the same tables right now.", 5),
    (
        asyncpg.InsufficientPrivilegeError,
        DatabaseUnavailable,
        "The role of DATABASE_URL lacks a right: {}",
        0,
    ),
    # A user's trigger refuses or fails.
    ((asyncpg.RaiseError, asyncpg.AssertError), Conflict, "{}", 0),
    (
        asyncpg.CharacterNotInRepertoireError,
        InvalidInput,
        "Postgres stores no NUL characters: remove them.",
        0,
    ),
    (NOT_MIGRATED, DatabaseUnavailable, "The database lacks migrations: run `tally migrate`.", 0),
    (EXHAUSTED, DatabaseUnavailable, "The database has no disk or memory left.", 30),
    (
        TAKES_NO_WRITES,
        DatabaseUnavailable,
        "The database takes no writes: it is a standby, or set to read only.",
        2,
    ),
    (REFUSED_LOGIN, DatabaseUnavailable, "The database refuses the service's login.", 10),
    (LOST_CONNECTION, DatabaseUnavailable, "", 2),
)
"""For each kind of error its problem, the detail and after how many seconds to retry. The first that fits."""


@contextmanager
def violation(constraint: str, problem: Problem) -> Generator[None]:
    """Raise the caller's problem if a statement of the block violates this named constraint."""
    try:
        yield
    except asyncpg.IntegrityConstraintViolationError as error:
        if error.constraint_name != constraint:
            raise
        raise problem from error


def reason(error: BaseException) -> str:
    """What caused a `DatabaseUnavailable`, for an operator."""
    known = error.__cause__
    return str(error) if known is None or isinstance(known, NOT_MIGRATED) else cause(known)
