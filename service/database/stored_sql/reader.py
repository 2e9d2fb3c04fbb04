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
import re
import time
from collections.abc import AsyncGenerator, Hashable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final
from uuid import uuid4

import asyncpg
import msgspec
from msgspec import Struct

from service.database.connect import asyncpg_arguments
from service.database.gateway import Pool, PoolUsage
from service.database.snapshots import Seen, parse_snapshot
from service.database.stored_sql.connection import (
    RESET,
    SQL,
    STATEMENTS,
    UNLOCK,
    ReaderConnection,
    Shape,
    shape_of,
)
from service.database.stored_sql.dependencies import StatementDependencies, read_dependencies
from service.database.stored_sql.exact import RECORD, decode_pairs
from service.database.stored_sql.limiter import GRACE_S, QUEUE_WAIT_S, ConnectionLimiter, Lingering, Watch
from service.database.stored_sql.plans import Plan, read_plan, weight_of
from service.errors import FieldError, InvalidInput
from service.observe.events import Observe, ignore
from service.settings import Database as DatabaseSettings

DECODE_HERE: Final = 1 << 16
"""Bytes received up to which `json_columns` are decoded on the event loop."""
DESCRIBERS: Final = 2
"""Connections that prepare and plan new SQL, beside those that run it."""
DESCRIPTIONS: Final = 10_000
"""How many callers may wait for one: after views are redefined, every requested metric is planned anew."""

LOCK_TIMEOUT_MS: Final = 1000
MEMORY_SINCE: Final = 17
"""The first Postgres version whose EXPLAIN reports the memory that planning used."""
# The tables of a prepared statement changed, or a function of the data schemas deallocated the statement.
STALE_STATEMENT: Final = (asyncpg.InvalidCachedStatementError, asyncpg.InvalidSQLStatementNameError)


class ResultColumn(Struct, frozen=True):
    """A column of a result: its unique name and Postgres's name for its type."""

    name: str
    type: str


class Description(Struct, frozen=True):
    """Postgres's description of a stored statement, obtained without running it.

    `parameters` are type names as in `pg_type` (`int4`, `date`, `int4[]`). `plan` holds the needed parts of
    EXPLAIN's generic plan. `json_columns` are the columns that the driver cannot decode exactly. `per_caller`
    is true if the rows may depend on the caller: the run needs `claims`, and only the same claims may share
    its result. `shape` is the shape that a run must still return.
    """

    parameters: tuple[str, ...]
    columns: tuple[ResultColumn, ...]
    plan: Plan
    json_columns: frozenset[int]
    dependencies: StatementDependencies
    shape: Shape

    @property
    def per_caller(self) -> bool:
        return self.dependencies.per_caller

    @property
    def head(self) -> str:
        """The SQL before the text of a statement with `json_columns`."""
        json_column = "ROW(to_json({0}), {0})"  # see `exact`
        columns = (
            json_column.format(name) if n in self.json_columns else name for n, name in enumerate(self._names)
        )
        return f"SELECT {', '.join(columns)} FROM (\n" if self.json_columns else ""  # noqa: S608 (validated)

    def runnable(self, sql: str) -> str:
        """The SQL to run for `sql`, which returns these columns."""
        if not self.json_columns:
            return sql
        names = ", ".join(self._names)
        # Postgres refuses lists of unequal length, so we notice a column that `SELECT *` gained.
        return f"{self.head}{sql}\n) AS tally({names}) WHERE true OR EXISTS (VALUES (tally.*), ({names}))"

    @property
    def _names(self) -> list[str]:
        return [f"c{number}" for number in range(len(self.columns))]

    def trimmed(self) -> "Description":
        """A copy without the plan's texts, which only `read_dependencies` needs."""
        plan = msgspec.structs.replace(self.plan, texts=())
        return msgspec.structs.replace(self, plan=plan)

    def fits(self, rows: "Rows") -> bool:
        """Whether a run still returned the columns that are described here."""
        return bool(self.json_columns) or rows.shape == self.shape


class _Names(Struct, frozen=True):
    names: list[str]


class _Claims(Struct, frozen=True):
    claims: str


class _SeenRow(Struct, frozen=True):
    """The columns of `read_seen`."""

    snapshot: str
    server: str


_READ_SEEN: Final = SQL.rows("read_seen", _SeenRow)
_TYPE_NAMES: Final = SQL.rows("list_type_names", _Names)
_SET_CLAIMS: Final = SQL.rows("set_claims", _Claims)


class Rows(Struct, frozen=True):
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


class Reader:
    """Runs and describes stored SQL on connections of the reader's pool."""

    def __init__(self, pool: Pool, settings: DatabaseSettings, observe: Observe) -> None:
        self._pool = pool
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
        self._begin = _begin(settings)
        self._role: str | None = None

    async def close(self) -> None:
        await self._run_limiter.close()
        await self._describe_limiter.close()

    async def retire(self) -> None:
        """Use new logins for all further statements: names, rights or settings have changed."""
        await self._pool.expire_connections()
        await self._run_limiter.retire()
        await self._describe_limiter.retire()

    async def role(self) -> str:
        """The reader's role name in Postgres."""
        if self._role is None:
            rows = await self.run("SELECT current_user::text", skip_reset=True)
            self._role = str(rows.records[0][0])
        return self._role

    async def run(
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
    ) -> Rows:
        """Run one described statement; raises `Busy` for who would wait too long, else the problems that
        `ConnectionLimiter.translated` gives.

        `twice_the_bytes` doubles the byte cap, for `json_columns`: they arrive in two forms. `skip_reset`
        declares that the statement cannot change its session, and saves the reset's round trip. That is true
        for validated SQL whose dependencies are `built_in`: no allowed function can change the session.
        `claims` is JSON text that the statement and the policies of its tables read as
        `current_setting('request.claims', true)`; it is set for this statement only. `weight` is the plan's:
        the bytes of memory that keeping the statement prepared takes. `with_seen` asks what the run sees.
        With a `comment`, which is another each time, the statement is not kept prepared, and takes the place
        of no other.
        """
        requested = time.perf_counter()
        sql += comment
        async with self._run_limiter.acquire(watch) as connection:
            weight = weight_of(sql) if weight is None else weight
            if connection.expect(sql, weight, once=bool(comment)) and skip_reset:
                connection.skip_reset()
            if twice_the_bytes:
                connection.cap.start(2 * self._settings.result_bytes_limit)
            started = time.perf_counter()
            try:
                fetched = await self._fetch(connection, sql, args, claims, with_seen=with_seen)
            except STALE_STATEMENT:
                await connection.reset()
                await connection.reload_schema_state()
                fetched = await self._fetch(connection, sql, args, claims, with_seen=with_seen)
            records, shape, seen = fetched
            ended = time.perf_counter()
            received = connection.cap.received
        limit = self._settings.row_limit
        rows: list[Any] = records[:limit]
        if pairs := [number for number, (_, oid) in enumerate(shape) if oid == RECORD]:
            large = received > DECODE_HERE
            rows = await asyncio.to_thread(decode_pairs, rows, pairs) if large else decode_pairs(rows, pairs)
        return Rows(rows, shape, len(records) > limit, received, started - requested, ended - started, seen)

    def refuse(self, metric: Hashable) -> None:
        """Raise `Busy` if `run` would refuse the current caller at once."""
        self._run_limiter.refuse(metric)

    async def _fetch(
        self,
        connection: ReaderConnection,
        sql: str,
        args: Sequence[Any],
        claims: str | None,
        *,
        with_seen: bool,
    ) -> tuple[list[asyncpg.Record], Shape, Seen | None]:
        if claims is not None or self._settings.reader_pooler != "none":
            await connection.execute(self._beginning(connection))
        if claims is not None:
            await connection.execute(_SET_CLAIMS.sql, claims)
        # The later snapshot of the statement itself includes this one.
        seen = await _seen(connection) if with_seen else None
        return *await connection.fetch_some(sql, args, self._settings.row_limit + 1), seen

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
        async with self._prepared(sql, watch) as (connection, statement):
            return await _describe(connection, statement, sql)

    async def parameter_types(self, sql: str, watch: Watch | None = None) -> tuple[str, ...]:
        """The types that Postgres resolves for `$1, $2, ...` of a statement: names as in `pg_type`."""
        async with self._prepared(sql, watch) as (_, statement):
            return tuple(kind.name for kind in statement.get_parameters())

    @asynccontextmanager
    async def _prepared(self, sql: str, watch: Watch | None) -> AsyncGenerator[tuple[Any, Any]]:
        """Prepare a statement in a transaction, under a name that no other client of a pooler uses."""
        async with self._describe_limiter.acquire(watch) as connection:
            await connection.execute(f"{self._beginning(connection)}, {_NO_CLAIMS}")
            name = f"tally_{uuid4().hex}"
            statement = await connection.prepare(sql, name=name)
            connection.forget(name)
            yield connection, statement


@asynccontextmanager
async def open_reader(
    url: str, settings: DatabaseSettings, observe: Observe = ignore
) -> AsyncGenerator[Reader]:
    """Open the reader's pool lazily, with the session settings for stored SQL.

    `observe` gets `CallersShed`.
    """
    own = settings.reader_pooler == "none"

    async def prepare(connection: Any) -> None:
        connection.reset_sql = RESET if own else UNLOCK

    pool = asyncpg.create_pool(
        **asyncpg_arguments(url, _session(settings) if own else None),
        min_size=0,
        max_size=settings.reader_pool_size + DESCRIBERS,
        connection_class=ReaderConnection,
        init=prepare,
        command_timeout=settings.statement_timeout_ms / 1000 + GRACE_S,
        max_cacheable_statement_size=1 << 20,
        statement_cache_size=STATEMENTS if own else 0,
    )
    await pool
    reader = Reader(pool, settings, observe)
    try:
        yield reader
    finally:
        with suppress(TimeoutError):  # the pool drops connections that do not close in time
            async with asyncio.timeout(QUEUE_WAIT_S):
                await reader.close()
                await pool.close()


def _session(settings: DatabaseSettings) -> dict[str, str]:
    """Session settings that apply while stored SQL runs."""
    return {
        "application_name": "tally reader",
        "default_transaction_read_only": "on",
        "statement_timeout": str(settings.statement_timeout_ms),
        "lock_timeout": str(min(LOCK_TIMEOUT_MS, settings.statement_timeout_ms)),
        "search_path": ", ".join(f'"{name}"' for name in settings.data_schemas),
        "timezone": settings.time_zone,
        "datestyle": "ISO",
        "intervalstyle": "iso_8601",
    }


# Planning reads the setting if a policy does. Unset or left empty by an earlier caller, it is not JSON.
_NO_CLAIMS: Final = "pg_catalog.set_config('request.claims', '{}', true)"


def _begin(settings: DatabaseSettings) -> str:
    """SQL that begins a transaction with the settings of `_session`, independent of the session's own."""
    session = [(name, value.replace("'", "''")) for name, value in _session(settings).items()]
    calls = ", ".join(f"pg_catalog.set_config('{name}', '{value}', true)" for name, value in session)
    return f"BEGIN READ ONLY; SELECT {calls}"


async def _seen(connection: ReaderConnection) -> Seen:
    snapshot, server = (await connection.fetch_limited(_READ_SEEN.sql, (), 1))[0]
    return Seen(server, parse_snapshot(snapshot))


async def _describe(connection: Any, statement: Any, sql: str) -> Description:
    attributes = statement.get_attributes()
    parameters = tuple(kind.name for kind in statement.get_parameters())
    types = await connection.fetchval(_TYPE_NAMES.sql, [attribute.type.oid for attribute in attributes])
    columns = tuple(map(ResultColumn, _unique(attribute.name for attribute in attributes), types))
    _refuse_control_characters(columns)
    json_columns = frozenset(
        n for n, attribute in enumerate(attributes) if attribute.type.oid in connection.json_columns
    )
    # A generic plan: a plan for the bound NULLs could leave tables out.
    await connection.execute("SET LOCAL plan_cache_mode = force_generic_plan")
    nulls = f"({', '.join(['NULL'] * len(parameters))})" if parameters else ""
    memory = ", MEMORY" if connection.get_server_version().major >= MEMORY_SINCE else ""
    explained = await connection.fetchval(
        f'EXPLAIN (VERBOSE, FORMAT JSON{memory}) EXECUTE "{statement.get_name()}"{nulls}'
    )
    plan = read_plan(bytes(explained), sql, len(columns))
    dependencies = await read_dependencies(connection, sql, plan)
    return Description(parameters, columns, plan, json_columns, dependencies, shape_of(attributes))


def _refuse_control_characters(columns: Iterable[ResultColumn]) -> None:
    """Raise `InvalidInput` for invisible characters in names, which appear in every record and heading."""
    for number, column in enumerate(columns, 1):
        if _CONTROL.search(column.name):
            message = f"the name of column {number} holds control characters: name it with AS"
            raise InvalidInput(f"{message[0].upper()}{message[1:]}.", errors=(FieldError("sql", message),))


_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def _unique(names: Iterable[str]) -> Iterator[str]:
    """Number repeated names: `a, a` becomes `a, a_2`, or the next number whose name is free."""
    used: set[str] = set()
    for name in names:
        candidate, number = name, 2
        while candidate in used:
            candidate, number = f"{name}_{number}", number + 1
        used.add(candidate)
        yield candidate
