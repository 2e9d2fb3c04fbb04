"""The schema that the reader may read, cached until it or a vocabulary changes."""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterable, Sequence
from datetime import date
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct
from sqlglot import exp

from service.ask.schema import Column, ForeignKey, Schema, Table
from service.ask.sentence.lexicon import Lexicon
from service.database.queries import SqlFile
from service.database.stored_sql.reader import Reader
from service.errors import QueryFailed, QueryTimeout, ResultTooLarge
from service.results.feed import Change

SQL: Final = SqlFile(Path(__file__).with_name("queries.sql"))

# New tables and columns are not announced. We read the schema again at this age, and sooner for a prompt that
# was not understood.
OLDEST_S: Final = 300.0
OLDEST_FOR_UNKNOWN_S: Final = 2.0
VOCABULARY: Final = "data.vocabulary"
TABLES_LIMIT: Final = 200
ROWS_LOOKED_AT: Final = 200_000
VALUES_LIMIT: Final = 100
VALUE_LENGTH_LIMIT: Final = 60
FEW_VALUES: Final = 12
PARTIAL_SHARE: Final = 0.3
INTERNAL: Final = "internal"


class ColumnRow(Struct, frozen=True):
    schema: str
    table_name: str
    name: str
    type: str
    nullable: bool
    table_comment: str
    comment: str
    labels: list[str]


class KeyRow(Struct, frozen=True):
    """A foreign key, or a primary key if the target is empty."""

    schema: str
    table_name: str
    columns: list[str]
    target_schema: str
    target_table: str
    targets: list[str]


_LIST_COLUMNS: Final = SQL.rows("list_columns", ColumnRow)
_LIST_KEYS: Final = SQL.rows("list_keys", KeyRow)


class Known(Struct, frozen=True):
    schema: Schema
    lexicon: Lexicon


class SchemaCache:
    """The known schema. It is read on first use, after a change of schema or vocabulary, and when it is old.

    Rows change all the time and rarely bring a new word, so their changes alone do not make it outdated.
    """

    def __init__(self, reader: Reader, schemas: tuple[str, ...]) -> None:
        self._reader = reader
        self._schemas = schemas
        self._known: Known | None = None
        self._read_at = 0.0
        self._changes = self._row_changes = 0
        self._seen = (0, 0)
        """The two counts before the last read."""
        self._lock = asyncio.Lock()

    async def keep(self, changes: AsyncIterable[Change]) -> None:
        """Note all changes."""
        async for change in changes:
            self.note(change)

    def note(self, change: Change) -> None:
        """Note which rows changed, or that tables, columns, comments or rights may have changed."""
        self._row_changes += bool(change.tables)
        self._changes += change.renewed or VOCABULARY in change.tables

    async def now(self, oldest_s: float = OLDEST_S, *, with_rows: bool = False) -> Known:
        """Return the known schema, at most so old; `with_rows` it includes all announced changes of rows.

        Raises `DatabaseUnavailable` or `Busy` if it must be read and cannot.
        """
        async with self._lock:
            began, counts = time.monotonic(), (self._changes, self._row_changes)
            outdated = counts != self._seen if with_rows else self._changes != self._seen[0]
            if self._known is None or outdated or began - self._read_at > oldest_s:
                schema = await read_schema(self._reader, self._schemas)
                self._known = Known(schema, Lexicon(schema))
                self._read_at, self._seen = began, counts
            return self._known


async def read_schema(reader: Reader, schemas: tuple[str, ...]) -> Schema:
    """Read tables, keys and vocabularies, except tables and columns whose comment begins with `internal`."""
    rows: dict[tuple[str, str], list[ColumnRow]] = defaultdict(list)
    for record in (await reader.run(_LIST_COLUMNS.sql, [list(schemas)])).records:
        row = ColumnRow(*record)
        if not (row.comment.lower().startswith(INTERNAL) or row.table_comment.lower().startswith(INTERNAL)):
            rows[row.schema, row.table_name].append(row)
    keys = [KeyRow(*record) for record in (await reader.run(_LIST_KEYS.sql, [list(schemas)])).records]
    tables = [
        await _read_table(reader, columns, [key for key in keys if (key.schema, key.table_name) == name])
        for name, columns in list(rows.items())[:TABLES_LIMIT]
    ]
    return Schema(tables=tuple(tables), search_path=schemas)


async def _read_table(reader: Reader, rows: list[ColumnRow], keys: list[KeyRow]) -> Table:
    first = rows[0]
    columns = [
        Column(
            name=row.name,
            type=row.type,
            comment=row.comment,
            nullable=row.nullable,
            values=tuple(row.labels[:VALUES_LIMIT]),
        )
        for row in rows
    ]
    primary = next((tuple(key.columns) for key in keys if not key.target_table), ())
    table = Table(schema=first.schema, name=first.table_name, columns=tuple(columns))
    filled = await _filled(reader, table)
    known = [
        await _with_values(reader, table, column, primary)
        for column in (_counted(column, filled) for column in columns)
        if column is not None
    ]
    return Table(
        schema=first.schema,
        name=first.table_name,
        columns=tuple(known),
        comment=first.table_comment,
        primary_key=primary,
        foreign_keys=tuple(
            ForeignKey(
                columns=tuple(key.columns),
                schema=key.target_schema,
                table=key.target_table,
                targets=tuple(key.targets),
            )
            for key in keys
            if key.target_table
        ),
    )


class _Filled(Struct, frozen=True):
    """The number of sampled rows, how many of them fill each column, and the last day of each date column."""

    rows: int
    filled: dict[str, int]
    last: dict[str, date]


async def _filled(reader: Reader, table: Table) -> _Filled | None:
    """Sample a table. None if that takes too long."""
    dated = [column for column in table.columns if column.dated]
    values: list[exp.Expr] = [exp.Count(this=exp.Star())]
    values += [exp.Count(this=_name(column.name)) for column in table.columns]
    values += [exp.cast(exp.Max(this=exp.cast(_name(column.name), "date")), "text") for column in dated]
    sample = exp.select(*(_name(column.name) for column in table.columns)).from_(_table(table))
    for column in dated:
        sample = sample.where(
            exp.or_(
                exp.func("isfinite", _name(column.name)),
                exp.Is(this=_name(column.name), expression=exp.Null()),
            )
        )
    tree = exp.select(*values).from_(sample.limit(ROWS_LOOKED_AT).subquery("sample"))
    record = next(iter(await _bounded(reader, tree)), None)
    if record is None:
        return None
    names = [column.name for column in table.columns]
    counts: Sequence[int] = record[1 : len(names) + 1]
    days: Sequence[str | None] = record[len(names) + 1 :]
    return _Filled(
        record[0],
        dict(zip(names, counts, strict=True)),
        {
            column.name: date.fromisoformat(day)
            for column, day in zip(dated, days, strict=True)
            if day is not None and len(day) == len("2025-01-01")
        },
    )


def _counted(column: Column, filled: _Filled | None) -> Column | None:
    """Add the figures of a column's rows. None for a column that no row fills, so nothing can be asked."""
    if filled is None or filled.rows == 0:
        return column
    count = filled.filled[column.name]
    if count == 0:
        return None
    partial = count < filled.rows * (1 - PARTIAL_SHARE)
    return msgspec.structs.replace(column, partial=partial, last=filled.last.get(column.name))


async def _with_values(reader: Reader, table: Table, column: Column, primary: tuple[str, ...]) -> Column:
    """Give a text column its vocabulary if it has one: few, short and repeated values."""
    if column.values or column.kind != "text" or primary == (column.name,):
        return column
    sample = exp.select(_name(column.name)).from_(_table(table)).limit(ROWS_LOOKED_AT).subquery("sample")
    tree = (
        exp.select(_name(column.name), exp.Count(this=exp.Star()))
        .from_(sample)
        .where(exp.Is(this=_name(column.name), expression=exp.Not(this=exp.Null())))
        .group_by(_name(column.name))
        .order_by(exp.column("count").desc(), _name(column.name))
        .limit(VALUES_LIMIT + 1)
    )
    found = [(str(value), int(count)) for value, count in await _bounded(reader, tree)]
    rows = sum(count for _, count in found)
    few = len(found) <= FEW_VALUES or (len(found) <= VALUES_LIMIT and 2 * len(found) <= rows)
    short = all(len(value.strip()) > 0 and len(value) <= VALUE_LENGTH_LIMIT for value, _ in found)
    return msgspec.structs.replace(column, values=tuple(v for v, _ in found)) if few and short else column


async def _bounded(reader: Reader, tree: exp.Select) -> list[Any]:
    """The rows, or none if the reader's limits are too tight: the table is then known by its names alone."""
    try:
        return list((await reader.run(tree.sql(dialect="postgres"))).records)
    except (QueryTimeout, QueryFailed, ResultTooLarge):
        return []


def _name(name: str) -> exp.Column:
    return exp.Column(this=exp.to_identifier(name, quoted=True))


def _table(table: Table) -> exp.Table:
    schema, name = (exp.to_identifier(part, quoted=True) for part in table.key)
    return exp.Table(this=name, db=schema)
