"""Rows of tables as JSON, exactly as Postgres has them, and back.

A value that is NULL has no key in its row: a `null` is JSON's own, of a jsonb column. Columns that Postgres
computes are left out.
"""

from collections.abc import AsyncGenerator, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import asyncpg
import msgspec
from msgspec import Raw, Struct

from service.database.gateway import Database, Transaction
from service.database.queries import Command, SqlFile, Statement, literal, quoted
from service.errors import Conflict

TIMEOUT_S: Final = 3_600
"""Seconds that one statement over a whole table may take."""


class StoredColumn(Struct, frozen=True):
    """A column of a table with a primary key, whose columns are `in_key`."""

    table_name: str
    name: str
    is_jsonb: bool
    is_identity: bool
    in_key: bool


class JsonRow(Struct, frozen=True):
    row: str


class _Exact(Struct, frozen=True):
    float_digits: str
    binary_form: str
    zone: str


class _Last(Struct, frozen=True):
    last: str


class _Highest(Struct, frozen=True):
    highest: int


_SQL: Final = SqlFile(Path(__file__).with_name("queries.sql"))
_LIST_COLUMNS: Final = _SQL.rows("list_stored_columns", StoredColumn)
_WRITE_EXACTLY: Final = _SQL.rows("write_exactly", _Exact)
_RAISE_IDENTITY: Final = _SQL.rows("raise_identity", _Last)


async def stored_columns(
    database: Database | Transaction, tables: Iterable[str]
) -> dict[str, list[StoredColumn]]:
    """The columns of each table (`schema.table`) in their order. Tables that are missing have no entry."""
    found: dict[str, list[StoredColumn]] = {}
    for column in await database.read(_LIST_COLUMNS, list(tables)):
        found.setdefault(column.table_name, []).append(column)
    return found


async def rows_as_json(
    tx: Transaction, table: str, columns: Sequence[StoredColumn]
) -> AsyncGenerator[JsonRow]:
    """Each row of a table as a JSON object, by the primary key."""
    await tx.read(_WRITE_EXACTLY)
    values = ", ".join(f"{literal(each.name)} VALUE t.{quoted(each.name)}" for each in columns)
    order = ", ".join(f"t.{quoted(each.name)}" for each in columns if each.in_key)
    sql = f"""SELECT json_object({values} ABSENT ON NULL RETURNING text) AS row
    FROM {_table(table)} AS t ORDER BY {order}"""  # noqa: S608 (names are quoted)
    async for row in tx.stream(Statement("rows_as_json", sql, JsonRow)):
        yield row


async def load_rows(
    tx: Transaction, table: str, columns: Sequence[StoredColumn], rows: Sequence[Raw], *, replace: bool
) -> None:
    """Insert rows of JSON. With `replace` a row takes the place of the one with its key.

    Raises `Conflict` if Postgres refuses a row, and the problems of the gateway.
    """
    names = ", ".join(quoted(each.name) for each in columns)
    # A record of the table would take a JSON null for NULL.
    values = ", ".join(
        f"r.found -> {literal(each.name)}" if each.is_jsonb else f"p.{quoted(each.name)}" for each in columns
    )
    sql = f"""INSERT INTO {_table(table)} ({names}) OVERRIDING SYSTEM VALUE
    SELECT {values}
    FROM jsonb_array_elements($1::jsonb) WITH ORDINALITY AS r(found, nth)
    CROSS JOIN LATERAL jsonb_populate_record(NULL::{_table(table)}, r.found) AS p
    ORDER BY r.nth"""  # noqa: S608 (names are quoted)
    if replace:
        key = ", ".join(quoted(each.name) for each in columns if each.in_key)
        others = ", ".join(
            f"{quoted(each.name)} = excluded.{quoted(each.name)}" for each in columns if not each.in_key
        )
        sql += f"\n    ON CONFLICT ({key}) DO UPDATE SET {others}"
    try:
        await tx.write(Command("load_rows", sql), Raw(b"[" + b",".join(rows) + b"]"))
    except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError) as error:
        said = [getattr(error, part, None) for part in ("message", "detail")]
        raise Conflict(": ".join(filter(None, said)) or str(error)) from error


async def raise_identities(tx: Transaction, table: str, columns: Sequence[StoredColumn]) -> None:
    """Let the identity columns of a table go on after the rows that were loaded."""
    for column in columns:
        if column.is_identity:
            sql = f"SELECT coalesce(max({quoted(column.name)}), 0)::bigint AS highest FROM {_table(table)}"  # noqa: S608 (quoted)
            found = await tx.read_one(Statement("highest", sql, _Highest))
            await tx.read_one(_RAISE_IDENTITY, _table(table), column.name, found.highest if found else 0)


async def count_rows(tx: Transaction, table: str) -> int:
    sql = f"SELECT count(*) AS highest FROM {_table(table)}"  # noqa: S608 (quoted)
    found = await tx.read_one(Statement("count", sql, _Highest))
    return found.highest if found else 0


async def delete_rows(tx: Transaction, table: str) -> int:
    return await tx.write(Command("delete_rows", f"DELETE FROM {_table(table)}"))  # noqa: S608 (quoted)


async def lock_tables(tx: Transaction, tables: Iterable[str], *, wait: str) -> None:
    """Keep all others from writing to these tables. Raises `Busy` if they are in use for longer."""
    await tx.write(Command("limit_waiting", f"SET LOCAL lock_timeout = {literal(wait)}"))
    names = ", ".join(map(_table, tables))
    await tx.write(Command("lock_tables", f"LOCK TABLE {names} IN SHARE ROW EXCLUSIVE MODE"))


def _table(name: str) -> str:
    return ".".join(map(quoted, name.split(".", 1)))


def decoded(row: Raw) -> Any:
    return msgspec.json.decode(row)
