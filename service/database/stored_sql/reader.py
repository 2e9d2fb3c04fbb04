"""Run stored SQL as the reader: the only place that does so.

These limits hold for any SQL, and a statement cannot undo them:

- the reader is a login role with SELECT on the data schemas and nothing else;
- every statement runs READ ONLY: this is the session's default, and Postgres refuses to leave READ ONLY once
  a statement has its snapshot (25001). A function may change session settings, but the release resets them
  before the next statement runs. (Validated SQL that calls only built-in functions cannot change the session
  and skips the reset.) Behind a pooler in transaction mode we own no session: each statement gets a
  transaction that begins READ ONLY with these settings, and the rollback on release undoes its changes;
- one statement per call: the extended protocol refuses more (42601);
- `statement_timeout` and `lock_timeout` are set before the statement starts;
- the portal stops after `row_limit` + 1 rows; bytes are counted as they arrive, and the connection is aborted
  at the cap, so that one huge value is never held in memory.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Hashable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, NamedTuple
from uuid import uuid4

import asyncpg
from msgspec import Struct

from service.database.breaker import Breaker
from service.database.driver import Pool
from service.database.gateway import PoolUsage
from service.database.snapshots import Seen, parse_snapshot
from service.database.stored_sql.connection import (
    SQL,
    ReaderConnection,
    Shape,
)
from service.database.stored_sql.describing import Description, describe
from service.database.stored_sql.exact import RECORD, decode_pairs
from service.database.stored_sql.limiter import QUEUE_WAIT_S, ConnectionLimiter, Lingering, Watch
from service.database.stored_sql.plans import weight_of
from service.database.stored_sql.sessions import DESCRIBERS, SET_NO_CLAIMS, begin_sql, make_pool
from service.database.stored_sql.standbys import (
    Needs,
    NotThere,
    Standby,
    Standbys,
    is_asked_elsewhere,
    open_standbys,
)
from service.errors import DatabaseUnavailable, Problem, QueryTimeout
from service.observe.events import Observe, ignore
from service.settings import Database as DatabaseSettings

DECODE_HERE: Final = 1 << 16
"""Bytes received up to which `json_columns` are decoded on the event loop."""
DESCRIPTIONS: Final = 10_000
"""How many callers may wait for one: after views are redefined, every requested metric is planned anew."""

# The tables of a prepared statement changed, or a function of the data schemas deallocated the statement.
STALE_STATEMENT: Final = (
    asyncpg.InvalidCachedStatementError,
    asyncpg.InvalidSQLStatementNameError,
    asyncpg.OutdatedSchemaCacheError,
)


class _Claims(Struct, frozen=True):
    claims: str


class _SeenRow(Struct, frozen=True):
    """The columns of `read_seen`."""

    snapshot: str
    server: str


_READ_SEEN: Final = SQL.rows("read_seen", _SeenRow)
_SET_CLAIMS: Final = SQL.rows("set_claims", _Claims)


class Rows(Struct, frozen=True, gc=False):
    """The rows of one run (at most `row_limit`), the bytes received, and the durations in seconds.

    `seen` is what the run saw at least, if that was asked for.
    """

    records: list[Any]
    shape: Shape
    truncated: bool
    received: int
    waited_s: float
    ran_s: float
    seen: Seen | None = None


class _Statement(NamedTuple):
    """One statement and how it is run: see `Reader.run`."""

    sql: str
    args: Sequence[Any]
    claims: str | None
    skip_reset: bool
    twice_the_bytes: bool
    weight: int
    with_seen: bool
    once: bool


class Reader:
    """Runs and describes stored SQL on connections of the reader's pool."""

    def __init__(self, pool: Pool, settings: DatabaseSettings, observe: Observe, standbys: Standbys) -> None:
        self._pool = pool
        self.standbys = standbys
        self._run_limiter = ConnectionLimiter(
            pool,
            settings,
            settings.reader_pool_size,
            queue_limit=settings.reader_queue_limit,
            observe=observe,
        )
        # Planning can take long and ignore cancellation; known statements still run meanwhile.
        self._describe_limiter = ConnectionLimiter(
            pool,
            settings,
            DESCRIBERS,
            queue_limit=DESCRIPTIONS,
            replaceable=settings.reader_pool_size,
            sheds=False,
            observe=observe,
        )
        self._settings = settings
        self._begin = begin_sql(settings)
        self._role: str | None = None

    async def close(self) -> None:
        await self._run_limiter.close()
        await self._describe_limiter.close()
        await self.standbys.close()

    async def retire(self) -> None:
        """Use new logins for all further statements: names, rights or settings have changed."""
        await self._pool.expire_connections()
        await self._run_limiter.retire()
        await self._describe_limiter.retire()
        await self.standbys.retire()

    async def role(self) -> str:
        """The reader's role name in Postgres."""
        if self._role is None:
            rows = await self.run("SELECT current_user::text", skip_reset=True)
            self._role = str(rows.records[0][0])
        return self._role

    def run(
        self,
        sql: str,
        args: Sequence[Any] = (),
        *,
        claims: str | None = None,
        skip_reset: bool = False,
        twice_the_bytes: bool = False,
        weight: int | None = None,
        watch: Watch | None = None,
        with_seen: bool = False,
        comment: str = "",
        needs: Needs | None = None,
    ) -> Awaitable[Rows]:
        """Run one described statement; raises `Busy` for who would wait too long, else the problems that
        `problem_of` gives.

        `twice_the_bytes` doubles the byte cap, for `json_columns`: they arrive in two forms. `skip_reset`
        declares that the statement cannot change its session, and saves the reset's round trip. That is true
        for validated SQL whose dependencies are `built_in`: no allowed function can change the session.
        `claims` is JSON text that the statement and the policies of its tables read as
        `current_setting('request.claims', true)`; it is set for this statement only. `weight` is the plan's:
        the bytes of memory that keeping the statement prepared takes. `with_seen` asks what the run sees.
        With a `comment`, which is another each time, the statement is not kept prepared, and takes the place
        of no other.
        `needs`: a standby may run it that shows this.
        """
        statement = _Statement(
            sql + comment,
            args,
            claims,
            skip_reset,
            twice_the_bytes,
            weight_of(sql + comment) if weight is None else weight,
            with_seen,
            bool(comment),
        )
        if self.standbys and needs is not None and needs() is not None:
            return self._run_on_any(statement, watch, needs)
        return self._run_on(None, statement, watch, None)

    async def _run_on_any(self, statement: "_Statement", watch: Watch | None, needs: Needs) -> Rows:
        """Run on a standby, or if none can, on the primary."""
        for standby in self.standbys.choose():
            try:
                return await self._run_on(standby, statement, watch, needs)
            except NotThere as reason:
                if reason.state == "lost":
                    self.standbys.lose(standby, str(reason))
            except Problem as problem:
                if not is_asked_elsewhere(problem):
                    raise
                if isinstance(problem, DatabaseUnavailable | QueryTimeout):
                    self.standbys.lose(standby, "it was lost while it ran a statement")
        return await self._run_on(None, statement, watch, None)

    async def _run_on(
        self, standby: Standby | None, statement: "_Statement", watch: Watch | None, needs: Needs | None
    ) -> Rows:
        """Run on a standby, or on the primary. Raises `NotThere` if the standby does not show enough."""
        requested = time.perf_counter()
        limiter = self._run_limiter if standby is None else standby.limiter
        async with limiter.acquire(watch) as connection:
            if (
                connection.expect(statement.sql, statement.weight, once=statement.once)
                and statement.skip_reset
            ):
                connection.skip_reset()
            if statement.twice_the_bytes:
                connection.cap.start(2 * self._settings.result_bytes_limit)
            started = time.perf_counter()
            try:
                records, seen = await self._fetch(connection, statement, standby, needs)
            except STALE_STATEMENT:
                await connection.reset()
                await connection.reload_schema_state()
                records, seen = await self._fetch(connection, statement, standby, needs)
            shape, received = connection.shape(), connection.cap.received
            if standby is not None:
                await standby.confirm(connection)
            ended = time.perf_counter()
        limit = self._settings.row_limit
        rows: list[Any] = records[:limit]
        if pairs := [number for number, (_, oid) in enumerate(shape) if oid == RECORD]:
            large = received > DECODE_HERE
            rows = await asyncio.to_thread(decode_pairs, rows, pairs) if large else decode_pairs(rows, pairs)
        return Rows(rows, shape, len(records) > limit, received, started - requested, ended - started, seen)

    def refuse(self, metric: Hashable, *, runs: bool = True) -> None:
        """Raise `Busy` if `run` would refuse the current caller at once. A standby may have a place.

        `runs`: if not refused, the caller calls `run` now.
        """
        if not self.standbys.any_there:
            self._run_limiter.refuse(metric, runs=runs)

    def count_refused(self) -> None:
        """Count a caller who was refused elsewhere, for want of a turn."""
        self._run_limiter.count_shed()

    async def _fetch(
        self,
        connection: ReaderConnection,
        statement: "_Statement",
        standby: Standby | None,
        needs: Needs | None,
    ) -> tuple[list[asyncpg.Record], Seen | None]:
        claims = statement.claims
        if claims is not None or self._settings.reader_pooler != "none":
            await connection.execute(self._beginning(connection))
        # The later snapshot of the statement itself includes this one.
        seen = None
        if standby is not None and needs is not None:
            seen = await standby.check(connection, needs)
        elif statement.with_seen:
            seen = await _seen(connection)
        if claims is not None:
            await connection.execute(_SET_CLAIMS.sql, claims)
        limit = self._settings.row_limit + 1
        return await connection.fetch_limited(statement.sql, statement.args, limit), seen

    @property
    def usage(self) -> PoolUsage:
        """How the pool is used, with the connections that plan new SQL."""
        both = (self._run_limiter.usage, self._describe_limiter.usage)
        used, opened = sum(each.used for each in both), self._pool.get_size()
        return PoolUsage(used, max(0, opened - used), sum(each.waiting for each in both))

    @property
    def lingering(self) -> Lingering:
        """Statements that still run in Postgres although they were cancelled."""
        both = (self._run_limiter.lingering, self._describe_limiter.lingering)
        return Lingering(sum(each.statements for each in both), sum(each.replaced for each in both))

    def _beginning(self, connection: ReaderConnection) -> str:
        """SQL that begins a transaction; behind a pooler it names the session, as its process is unknown."""
        if self._settings.reader_pooler == "none":
            return self._begin
        connection.session_name = f"tally reader {uuid4().hex}"
        return f"{self._begin}, pg_catalog.set_config('application_name', '{connection.session_name}', true)"

    async def describe(self, sql: str, watch: Watch | None = None) -> Description:
        """Prepare and plan a statement as the reader would run it, without running it."""
        async with self._prepared(sql, watch) as (connection, statement, name):
            return await describe(connection, statement, name, sql)

    async def parameter_types(self, sql: str, watch: Watch | None = None) -> tuple[str, ...]:
        """The types that Postgres resolves for `$1, $2, ...` of a statement: names as in `pg_type`."""
        async with self._prepared(sql, watch) as (_, statement, _name):
            return tuple(kind.name for kind in statement.get_parameters())

    @asynccontextmanager
    async def _prepared(self, sql: str, watch: Watch | None) -> AsyncGenerator[tuple[Any, Any, str]]:
        """Prepare a statement in a transaction, and under a name that SQL knows and no other client uses."""
        async with self._describe_limiter.acquire(watch) as connection:
            await connection.execute(f"{self._beginning(connection)}, {SET_NO_CLAIMS}")
            name = f"tally_{uuid4().hex}"
            if self._settings.reader_pooler == "none":
                statement = await connection.prepare(sql, name=name)
            else:  # a pooler may rename statements of the protocol, and knows none that SQL prepares
                statement = await connection.prepare(sql, name="")
                await connection.execute(f'PREPARE "{name}" AS {sql}')
            connection.forget(name)
            yield connection, statement, name


@asynccontextmanager
async def open_reader(
    url: str, settings: DatabaseSettings, observe: Observe = ignore, breaker: Breaker | None = None
) -> AsyncGenerator[Reader]:
    """Open the reader's pool lazily, with the session settings for stored SQL.

    `observe` gets `CallersShed`. `breaker` is that of the server that the address leads to.
    """
    pool = await make_pool(url, settings, breaker)
    reader = Reader(pool, settings, observe, await open_standbys(settings, observe))
    try:
        yield reader
    finally:
        with suppress(TimeoutError):  # the pool drops connections that do not close in time
            async with asyncio.timeout(QUEUE_WAIT_S):
                await reader.close()
                await pool.close()


async def _seen(connection: ReaderConnection) -> Seen:
    snapshot, server = (await connection.fetch_limited(_READ_SEEN.sql, (), 1))[0]
    return Seen(server, parse_snapshot(snapshot))
