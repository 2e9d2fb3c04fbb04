"""The reader's way to Postgres: the only place that runs stored SQL.

What holds whatever the SQL says, and why a statement cannot undo it:

- the reader is a login role with SELECT on the data schemas and nothing else;
- every statement runs READ ONLY: it is the session's default, and once a statement has its snapshot Postgres
  refuses to leave READ ONLY (25001). What a function changes in the session meets the next borrower at the
  earliest, and the reset on release has put it back by then (a judged text that calls only built-in
  functions can change nothing, and is spared the reset). Behind a pooler in transaction mode no session
  is ours: there each statement has a transaction that begins READ ONLY with these settings, and the rollback
  on release undoes what it changed;
- one statement per call, by the extended protocol (42601 otherwise);
- `statement_timeout` and `lock_timeout` are armed before the statement starts;
- rows stop in the portal at `row_limit` + 1; bytes are counted as they arrive and the connection is cut at
  the cap, so that one huge value is never held in memory.
"""

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final
from uuid import uuid4

import asyncpg
import msgspec
from msgspec import Struct

from service.database.connect import asyncpg_arguments
from service.database.gateway import Pool
from service.database.stored_sql.connection import (
    RESET,
    STATEMENTS,
    UNLOCK,
    ReaderConnection,
    Shape,
    shape_of,
)
from service.database.stored_sql.dependencies import StatementDependencies, read_dependencies
from service.database.stored_sql.limiter import GRACE_S, QUEUE_WAIT_S, ConnectionLimiter, Lingering, Watch
from service.database.stored_sql.plans import Plan, read_plan, weight_of
from service.errors import FieldError, InvalidInput
from service.settings import Database as DatabaseSettings

DESCRIBERS: Final = 2
"""Connections on which new SQL is prepared and planned, beside those that run it."""
DESCRIPTIONS: Final = 10_000
"""How many may wait for one of them: when views are redefined, that is each metric which is asked for."""

LOCK_TIMEOUT_MS: Final = 1000
MEMORY_SINCE: Final = 17
"""Postgres's version from which EXPLAIN tells the memory that planning took."""
# A prepared statement whose tables changed, or which a function of the data schemas deallocated.
STALE_STATEMENT: Final = (asyncpg.InvalidCachedStatementError, asyncpg.InvalidSQLStatementNameError)


class ResultColumn(Struct, frozen=True):
    """A column of a result: its unique name and Postgres's name of its type."""

    name: str
    type: str


class Description(Struct, frozen=True):
    """What Postgres says of a stored statement without running it.

    `parameters` are type names as in `pg_type` (`int4`, `date`, `int4[]`); `plan` is what is kept of
    EXPLAIN's generic plan; `json_columns` are the columns that the driver cannot hand over exactly;
    `per_caller` says
    that the rows may depend on who asks: the run needs `claims`, and its result belongs to them. `built_in`
    says that it calls only what pg_catalog brings. `shape` is what a run must still give.
    """

    parameters: tuple[str, ...]
    columns: tuple[ResultColumn, ...]
    plan: Plan
    json_columns: frozenset[int]
    reach: StatementDependencies
    built_in: bool
    shape: Shape

    @property
    def per_caller(self) -> bool:
        return self.reach.per_caller

    @property
    def head(self) -> str:
        """What stands before the text of a statement with odd columns."""
        json_columns = "ROW(to_json({0}), {0})"  # see `exact`
        columns = (
            json_columns.format(name) if n in self.json_columns else name
            for n, name in enumerate(self._names)
        )
        return f"SELECT {', '.join(columns)} FROM (\n" if self.json_columns else ""  # noqa: S608 (validated)

    def runnable(self, sql: str) -> str:
        """The text to run for `sql`, which gives these columns."""
        if not self.json_columns:
            return sql
        names = ", ".join(self._names)
        # Lists of unequal length are refused: that is how a column which `SELECT *` gained shows.
        return f"{self.head}{sql}\n) AS tally({names}) WHERE true OR EXISTS (VALUES (tally.*), ({names}))"

    @property
    def _names(self) -> list[str]:
        return [f"c{number}" for number in range(len(self.columns))]

    def trimmed(self) -> "Description":
        """It without the texts that only `dependencies` are read from."""
        plan = msgspec.structs.replace(self.plan, texts=())
        return msgspec.structs.replace(self, plan=plan)

    def fits(self, rows: "Rows") -> bool:
        """Whether a run still gave the columns that are described here."""
        return bool(self.json_columns) or rows.shape == self.shape


class Rows(Struct, frozen=True):
    """The rows of one run, at most `row_limit`, how many bytes came, and what it took, in seconds."""

    records: list[asyncpg.Record]
    shape: Shape
    truncated: bool
    received: int
    waited_s: float
    ran_s: float


class Reader:
    """Runs and describes stored SQL on lent connections."""

    def __init__(self, pool: Pool, settings: DatabaseSettings) -> None:
        self._pool = pool
        self._loans = ConnectionLimiter(
            pool, settings, settings.reader_pool_size, queue_limit=settings.reader_queue_limit
        )
        # Planning can take long and heed no cancellation; known statements run on meanwhile.
        self._to_describe = ConnectionLimiter(
            pool,
            settings,
            DESCRIBERS,
            queue_limit=DESCRIPTIONS,
            replaceable=settings.reader_pool_size,
        )
        self._settings = settings
        self._begin = _begin(settings)
        self._role: str | None = None

    async def close(self) -> None:
        await self._loans.close()
        await self._to_describe.close()

    async def retire(self) -> None:
        """Log in anew for whatever runs next: names, rights or settings have changed."""
        await self._pool.expire_connections()
        await self._loans.retire()
        await self._to_describe.retire()

    async def role(self) -> str:
        """The name that Postgres has for the reader."""
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
    ) -> Rows:
        """Run one described statement; `Busy` when the queue is full, else what `ConnectionLimiter` makes of
        an error.

        `twice_the_bytes` says that it has odd columns, which come in two forms and so count by half.
        `skip_reset` vouches that the statement cannot change its session (a judged text that is `built_in`:
        no listed function can), which spares the reset and its round trip. `claims` is what the statement and
        the policies of its tables read as `current_setting('request.claims', true)`: JSON text, for this
        statement alone. `weight` is its plan's: bytes of memory that it takes to keep it prepared.
        """
        asked = time.perf_counter()
        async with self._loans.acquire(watch) as connection:
            if connection.prepares(sql, weight_of(sql) if weight is None else weight) and skip_reset:
                connection.skip_reset()
            if twice_the_bytes:
                connection.cap.start(2 * self._settings.result_bytes_limit)
            started = time.perf_counter()
            try:
                records, shape = await self._fetch(connection, sql, args, claims)
            except STALE_STATEMENT:
                await connection.reset()
                await connection.reload_schema_state()
                records, shape = await self._fetch(connection, sql, args, claims)
            ended = time.perf_counter()
            received = connection.cap.received
        limit = self._settings.row_limit
        return Rows(records[:limit], shape, len(records) > limit, received, started - asked, ended - started)

    async def _fetch(
        self, connection: ReaderConnection, sql: str, args: Sequence[Any], claims: str | None
    ) -> tuple[list[asyncpg.Record], Shape]:
        if claims is not None or self._settings.reader_pooler != "none":
            await connection.execute(self._beginning(connection))
        if claims is not None:
            await connection.execute("SELECT pg_catalog.set_config('request.claims', $1, true)", claims)
        return await connection.fetch_some(sql, args, self._settings.row_limit + 1)

    @property
    def lingering(self) -> Lingering:
        """Statements that Postgres goes on with although they were cancelled."""
        both = (self._loans.lingering, self._to_describe.lingering)
        return Lingering(sum(each.statements for each in both), sum(each.replaced for each in both))

    def _beginning(self, connection: ReaderConnection) -> str:
        """What begins a transaction; behind a pooler it names the session, whose process nobody tells."""
        if self._settings.reader_pooler == "none":
            return self._begin
        connection.mark = f"tally reader {uuid4().hex}"
        return f"{self._begin}, pg_catalog.set_config('application_name', '{connection.mark}', true)"

    async def describe(self, sql: str, watch: Watch | None = None) -> Description:
        """Prepare and plan a statement as the reader would run it; runs nothing of it."""
        async with self._prepared(sql, watch) as (connection, statement):
            return await _describe(connection, statement, sql)

    async def parameter_types(self, sql: str, watch: Watch | None = None) -> tuple[str, ...]:
        """What Postgres takes `$1, $2, ...` of a statement for: names as in `pg_type`."""
        async with self._prepared(sql, watch) as (_, statement):
            return tuple(kind.name for kind in statement.get_parameters())

    @asynccontextmanager
    async def _prepared(self, sql: str, watch: Watch | None) -> AsyncGenerator[tuple[Any, Any]]:
        """A statement prepared in a transaction, under a name that no other client of a pooler has."""
        async with self._to_describe.acquire(watch) as connection:
            await connection.execute(f"{self._beginning(connection)}, {_NO_CLAIMS}")
            name = f"tally_{uuid4().hex}"
            statement = await connection.prepare(sql, name=name)
            connection.forget(name)
            yield connection, statement


@asynccontextmanager
async def open_reader(url: str, settings: DatabaseSettings) -> AsyncGenerator[Reader]:
    """Open the reader's pool lazily, with the session that stored SQL runs in."""
    own = settings.reader_pooler == "none"

    async def prepare(connection: Any) -> None:
        connection.at_end = RESET if own else UNLOCK

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
    reader = Reader(pool, settings)
    try:
        yield reader
    finally:
        with suppress(TimeoutError):  # the pool then drops what does not close
            async with asyncio.timeout(QUEUE_WAIT_S):
                await reader.close()
                await pool.close()


def _session(settings: DatabaseSettings) -> dict[str, str]:
    """What Postgres keeps to while stored SQL runs."""
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


# Planning reads the setting where a policy does: unset, or left empty by a caller before, it may be no JSON.
_NO_CLAIMS: Final = "pg_catalog.set_config('request.claims', '{}', true)"


def _begin(settings: DatabaseSettings) -> str:
    """Begin a transaction that keeps to `_session` whatever session it is in."""
    session = [(name, value.replace("'", "''")) for name, value in _session(settings).items()]
    calls = ", ".join(f"pg_catalog.set_config('{name}', '{value}', true)" for name, value in session)
    return f"BEGIN READ ONLY; SELECT {calls}"


async def _describe(connection: Any, statement: Any, sql: str) -> Description:
    attributes = statement.get_attributes()
    parameters = tuple(kind.name for kind in statement.get_parameters())
    types = await connection.fetchval(
        "SELECT array_agg(format_type(oid, NULL) ORDER BY n)"
        " FROM unnest($1::oid[]) WITH ORDINALITY AS t(oid, n)",
        [attribute.type.oid for attribute in attributes],
    )
    columns = tuple(map(ResultColumn, _unique(attribute.name for attribute in attributes), types or ()))
    _refuse_control_characters(columns)
    json_columns = frozenset(
        n for n, attribute in enumerate(attributes) if attribute.type.oid in connection.json_columns
    )
    # A plan for any values: with NULLs bound, Postgres would plan for NULLs and drop tables from it.
    await connection.execute("SET LOCAL plan_cache_mode = force_generic_plan")
    nulls = f"({', '.join(['NULL'] * len(parameters))})" if parameters else ""
    memory = ", MEMORY" if connection.get_server_version().major >= MEMORY_SINCE else ""
    explained = await connection.fetchval(
        f'EXPLAIN (VERBOSE, FORMAT JSON{memory}) EXECUTE "{statement.get_name()}"{nulls}'
    )
    plan = read_plan(bytes(explained), sql, len(columns))
    reach = await read_dependencies(connection, sql, plan)
    # The plan names functions of the search path bare, which `read_dependencies` looks for, others with a
    # schema.
    built_in = (
        not reach.per_caller
        and not reach.calls_own
        and not any(_FOREIGN_CALL.search(text) for text in plan.texts)
    )
    return Description(parameters, columns, plan, json_columns, reach, built_in, shape_of(attributes))


_FOREIGN_CALL: Final = re.compile(r'[\w"]\.[\w"]++\(|operator\(', re.IGNORECASE)


def _refuse_control_characters(columns: Iterable[ResultColumn]) -> None:
    """A name stands in every record and in headings: what does not show in it can only deceive."""
    for number, column in enumerate(columns, 1):
        if _CONTROL.search(column.name):
            message = f"the name of column {number} holds control characters: name it with AS"
            raise InvalidInput(f"{message[0].upper()}{message[1:]}.", errors=(FieldError("sql", message),))


_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def _unique(names: Iterable[str]) -> Iterator[str]:
    """`a, a` becomes `a, a_2`; a name that is taken by then counts on."""
    used: set[str] = set()
    for name in names:
        candidate, number = name, 2
        while candidate in used:
            candidate, number = f"{name}_{number}", number + 1
        used.add(candidate)
        yield candidate
