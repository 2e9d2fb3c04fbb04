"""The reader's way to Postgres: the only place that runs stored SQL.

What holds whatever the SQL says, and why a statement cannot undo it:

- the reader is a login role with SELECT on the data schemas and nothing else;
- every statement runs READ ONLY: it is the session's default, and once a statement has its snapshot Postgres
  refuses to leave READ ONLY (25001). What a function changes in the session meets the next borrower at the
  earliest, and the reset on release has put it back by then;
- one statement per call, by the extended protocol (42601 otherwise);
- `statement_timeout` and `lock_timeout` are armed before the statement starts;
- rows stop in the portal at `row_limit` + 1; bytes are counted as they arrive and the connection is cut at
  the cap, so that one huge value is never held in memory.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Generator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Final

import asyncpg
import msgspec
from msgspec import Struct

from service.database.claims import claiming, is_per_caller
from service.database.gateway import CONNECT_TIMEOUT_S, LOST_CONNECTION, Pool, RawConnection
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
LOCK_TIMEOUT_MS: Final = 1000


class Column(Struct, frozen=True):
    """A column of a result: its unique name and Postgres's name of its type."""

    name: str
    type: str


class Description(Struct, frozen=True):
    """What Postgres says of a stored statement without running it.

    `parameters` are type names as in `pg_type` (`int4`, `date`, `int4[]`); `plan` is EXPLAIN's generic plan;
    `odd` are the columns that the driver cannot hand over exactly; `per_caller` says that the rows may
    depend on who asks: the run needs `claims`, and its result belongs to them.
    """

    parameters: tuple[str, ...]
    columns: tuple[Column, ...]
    plan: dict[str, Any]
    odd: frozenset[int]
    per_caller: bool

    def runnable(self, sql: str) -> str:
        """The text to run for `sql`, which gives these columns: Postgres writes the odd ones as JSON."""
        if not self.odd:
            return sql
        names = [f"c{number}" for number in range(len(self.columns))]
        columns = ", ".join(
            f"to_json({name})" if number in self.odd else name for number, name in enumerate(names)
        )
        return f"SELECT {columns} FROM (\n{sql}\n) AS tally({', '.join(names)})"  # noqa: S608 (judged text)


class Rows(Struct, frozen=True):
    """The rows of one run, at most `row_limit`, and what it took, in seconds."""

    records: list[asyncpg.Record]
    truncated: bool
    waited_s: float
    ran_s: float


class Reader:
    """The reader's pool with bounded waiting."""

    def __init__(self, pool: Pool, settings: DatabaseSettings) -> None:
        self._pool = pool
        self._settings = settings
        self._room = settings.reader_pool_size + settings.reader_queue_limit
        self._inside = 0

    async def run(self, sql: str, args: Sequence[Any] = (), *, claims: str | None = None) -> Rows:
        """Run one described statement; `Busy` when the queue is full, else what `_translated` raises.

        `claims` is what the statement and the policies of its tables read as
        `current_setting('request.claims', true)`: JSON text, for this statement alone.
        """
        asked = time.perf_counter()
        async with self._borrow() as connection:
            started = time.perf_counter()
            with _translated(connection, self._settings):
                async with claiming(connection, claims):
                    records = await connection.fetch_capped(sql, args)
            ended = time.perf_counter()
        limit = self._settings.row_limit
        return Rows(records[:limit], len(records) > limit, started - asked, ended - started)

    async def describe(self, sql: str) -> Description:
        """Prepare and plan a statement as the reader would run it; runs nothing of it."""
        async with self._borrow() as connection:
            with _translated(connection, self._settings):
                async with connection.transaction(readonly=True):
                    return await _describe(connection, sql)

    async def parameter_types(self, sql: str) -> tuple[str, ...]:
        """What Postgres takes `$1, $2, ...` of a statement for: names as in `pg_type`."""
        async with self._borrow() as connection:
            with _translated(connection, self._settings):
                statement = await connection.prepare(sql)
                return tuple(kind.name for kind in statement.get_parameters())

    @asynccontextmanager
    async def _borrow(self) -> AsyncGenerator["ReaderConnection"]:
        if self._inside >= self._room:
            raise Busy(headers={"Retry-After": "1"})
        self._inside += 1
        try:
            try:
                connection: Any = await self._pool.acquire(timeout=QUEUE_WAIT_S)
            except TimeoutError as error:
                if self._inside > self._settings.reader_pool_size:
                    raise Busy(headers={"Retry-After": "1"}) from error
                raise DatabaseUnavailable(headers={"Retry-After": "2"}) from error
            except LOST_CONNECTION as error:
                raise DatabaseUnavailable(headers={"Retry-After": "2"}) from error
            try:
                yield connection
            finally:
                await self._give_back(connection)
        finally:
            self._inside -= 1

    async def _give_back(self, connection: Any) -> None:
        with suppress(*LOST_CONNECTION):  # the pool throws the connection away; the caller's answer stands
            await self._pool.release(connection, timeout=GRACE_S)


class ReaderConnection(RawConnection):
    """A connection that counts what arrives and leaves nothing behind for its next borrower."""

    def __init__(self, protocol: Any, transport: Any, *args: Any) -> None:
        super().__init__(protocol, transport, *args)
        self.cap = _ByteCap(protocol, transport)
        transport.set_protocol(self.cap)
        self.row_cap = 0
        self.byte_cap = 0

    async def fetch_capped(self, sql: str, args: Sequence[Any]) -> list[asyncpg.Record]:
        """Rows up to `row_cap`; the protocol's own limit, as `fetchrow` uses it with 1."""
        self.cap.start(self.byte_cap)
        try:
            return await self._execute(sql, args, self.row_cap, None)  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownVariableType]
        finally:
            self.cap.stop()

    def get_reset_query(self) -> str:
        # RESET ALL spares the role.
        return super().get_reset_query() + "\nRESET SESSION AUTHORIZATION;"


class _ByteCap(asyncio.Protocol):
    """Stands between the socket and the driver, and cuts the connection when a result passes its cap."""

    def __init__(self, driver: Any, transport: Any) -> None:
        self._driver = driver
        self._transport = transport
        self._left = -1
        self.exceeded = False

    def start(self, cap: int) -> None:
        self._left = cap
        self.exceeded = False

    def stop(self) -> None:
        self._left = -1

    def data_received(self, data: bytes) -> None:
        if self._left >= 0:
            self._left -= len(data)
            if self._left < 0:
                self.exceeded = True
                self._transport.abort()
                return
        self._driver.data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._driver.connection_lost(exc)

    def eof_received(self) -> bool | None:
        return self._driver.eof_received()

    def pause_writing(self) -> None:
        self._driver.pause_writing()

    def resume_writing(self) -> None:
        self._driver.resume_writing()


@asynccontextmanager
async def open_reader(url: str, settings: DatabaseSettings) -> AsyncGenerator[Reader]:
    """Open the reader's pool lazily, with the session that stored SQL runs in."""

    async def prepare(connection: Any) -> None:
        connection.row_cap = settings.row_limit + 1
        connection.byte_cap = settings.result_bytes_limit
        await _decode_exactly(connection)

    pool = asyncpg.create_pool(
        url,
        min_size=0,
        max_size=settings.reader_pool_size,
        connection_class=ReaderConnection,
        init=prepare,
        timeout=CONNECT_TIMEOUT_S,
        command_timeout=settings.statement_timeout_ms / 1000 + GRACE_S,
        max_cacheable_statement_size=1 << 20,
        server_settings={
            "application_name": "tally reader",
            "default_transaction_read_only": "on",
            "statement_timeout": str(settings.statement_timeout_ms),
            "lock_timeout": str(min(LOCK_TIMEOUT_MS, settings.statement_timeout_ms)),
            "search_path": ", ".join(f'"{name}"' for name in settings.data_schemas),
            "timezone": "UTC",
            "datestyle": "ISO",
            "intervalstyle": "iso_8601",
        },
    )
    async with pool:
        yield Reader(pool, settings)


def _same(text: str) -> str:
    return text


def _number(text: str) -> msgspec.Raw | None:
    """A JSON number exactly as Postgres writes it; NaN and the infinities are null."""
    return None if text[-1] in "Ny" else msgspec.Raw(text.encode())


def _embedded_json(text: str) -> msgspec.Raw:
    # Raw newlines can only stand between tokens; without them a record stays one line of NDJSON.
    return msgspec.Raw(text.replace("\n", " ").replace("\r", " ").encode())


def _timestamp(text: str) -> str:
    """ISO 8601 for years 1 to 9999, else Postgres's text (infinity, BC, far years)."""
    return text if text[4] != "-" or text[-1] == "C" else text[:10] + "T" + text[11:]


def _timestamptz(text: str) -> str:
    """RFC 3339 in UTC, which the session's time zone is."""
    return text if text[4] != "-" or text[-1] == "C" else text[:10] + "T" + text[11:-3] + "Z"


_DECODERS: Final = {
    **dict.fromkeys(
        ("date", "time", "timetz", "interval", "uuid", "money", "xml", "char", "jsonpath"), _same
    ),
    **dict.fromkeys(("inet", "cidr", "macaddr", "macaddr8", "bit", "varbit", "tsvector", "tsquery"), _same),
    **dict.fromkeys(("point", "box", "line", "lseg", "path", "polygon", "circle"), _same),
    **dict.fromkeys(("pg_lsn", "xid8", "tid", "pg_snapshot", "txid_snapshot"), _same),
    "numeric": _number,
    "float4": _number,
    "json": _embedded_json,
    "jsonb": _embedded_json,
    "timestamp": _timestamp,
    "timestamptz": _timestamptz,
}


async def _decode_exactly(connection: RawConnection) -> None:
    """Take from Postgres's own text what Python's types would round, shift or refuse."""
    for name, decoder in _DECODERS.items():
        await connection.set_type_codec(
            name, schema="pg_catalog", encoder=str, decoder=decoder, format="text"
        )


async def _describe(connection: Any, sql: str) -> Description:
    statement = await connection.prepare(sql)
    attributes = statement.get_attributes()
    parameters = tuple(kind.name for kind in statement.get_parameters())
    types = await connection.fetchval(
        "SELECT array_agg(format_type(oid, NULL) ORDER BY n)"
        " FROM unnest($1::oid[]) WITH ORDINALITY AS t(oid, n)",
        [attribute.type.oid for attribute in attributes],
    )
    columns = tuple(map(Column, _unique(attribute.name for attribute in attributes), types or ()))
    odd = frozenset(n for n, attribute in enumerate(attributes) if not _is_plain(attribute.type))
    # A plan for any values: with NULLs bound, Postgres would plan for NULLs and drop tables from it.
    await connection.execute("SET LOCAL plan_cache_mode = force_generic_plan")
    nulls = f"({', '.join(['NULL'] * len(parameters))})" if parameters else ""
    explained = await connection.fetchval(
        f'EXPLAIN (VERBOSE, FORMAT JSON) EXECUTE "{statement.get_name()}"{nulls}'
    )
    plan = msgspec.json.decode(bytes(explained))[0]["Plan"]
    return Description(parameters, columns, plan, odd, await is_per_caller(connection, sql, plan))


def _unique(names: Iterable[str]) -> Iterator[str]:
    """`a, a` becomes `a, a_2`; a name that is taken by then counts on."""
    used: set[str] = set()
    for name in names:
        candidate, number = name, 2
        while candidate in used:
            candidate, number = f"{name}_{number}", number + 1
        used.add(candidate)
        yield candidate


def _is_plain(kind: Any) -> bool:
    if kind.kind == "array":
        return kind.schema == "pg_catalog" and not kind.name.endswith(("range[]", "vector[]", "record[]"))
    return kind.kind == "scalar" and kind.name != "record"


@contextmanager
def _translated(connection: Any, settings: DatabaseSettings) -> Generator[None]:
    try:
        yield
    except (asyncpg.QueryCanceledError, TimeoutError) as error:
        raise QueryTimeout(
            f"The stored SQL ran longer than {settings.statement_timeout_ms} ms and was cancelled."
        ) from error
    except asyncpg.LockNotAvailableError as error:
        raise QueryTimeout("The stored SQL waited too long for a lock on one of its tables.") from error
    except LOST_CONNECTION as error:
        if connection.cap.exceeded:
            raise ResultTooLarge(
                f"The result takes more than {settings.result_bytes_limit} bytes (RESULT_BYTES_LIMIT): "
                "select fewer columns or rows."
            ) from error
        raise DatabaseUnavailable(headers={"Retry-After": "2"}) from error
    except asyncpg.PostgresError as error:
        raise _query_failed(error) from error


def _query_failed(error: asyncpg.PostgresError) -> Problem:
    message = getattr(error, "message", None) or str(error)
    position = getattr(error, "position", None)
    members: dict[str, Any] = {"sqlstate": error.sqlstate}
    if position is not None:
        members["position"] = int(position)
    if hint := getattr(error, "hint", None):
        members["hint"] = hint
    return QueryFailed(f"Postgres: {message}", errors=(FieldError("sql", message),), **members)
