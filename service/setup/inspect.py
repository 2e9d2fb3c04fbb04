"""Ask a database what is in it: its schemas and tables, and what `watch` would cost."""

from pathlib import Path
from typing import Final

import psycopg
from msgspec import Struct

from service.database.plain import select
from service.database.queries import SqlFile

OWN_SCHEMAS: Final = ("app", "catalog", "data", "imports", "quarantine")
BUSY_WRITES_PER_S: Final = 200
"""Rows a second from which a table is better left unwatched."""
SQL: Final = SqlFile(Path(__file__).with_name("queries.sql"))
_KINDS: Final = {
    "r": "table",
    "p": "partitioned table",
    "v": "view",
    "m": "materialized view",
    "f": "foreign table",
}


class Table(Struct, frozen=True):
    """A table or view. `closed` are its members on which the owner may not create triggers."""

    schema: str
    name: str
    kind: str
    estimate: int
    bytes: int
    writes: int
    """Rows written since Postgres began to count."""
    watched: bool
    closed: list[str]
    usable: bool

    @property
    def shown(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def kind_name(self) -> str:
        return _KINDS[self.kind]

    @property
    def can_announce(self) -> bool:
        return self.kind in {"r", "p"}


class DayColumn(Struct, frozen=True):
    name: str


class Schema(Struct, frozen=True):
    name: str


_LIST_SCHEMAS: Final = SQL.rows("list_schemas", Schema)
_LIST_TABLES: Final = SQL.rows("list_tables", Table)
_LIST_DAY_COLUMNS: Final = SQL.rows("list_day_columns", DayColumn)


def existing_schemas(session: psycopg.Connection, names: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the names that are schemas of the database."""
    return tuple(each.name for each in select(session, _LIST_SCHEMAS, list(names)))


def tables_of(session: psycopg.Connection, data_schemas: tuple[str, ...] = ()) -> list[Table]:
    """All tables and views but Postgres's and Tally's; of Tally's schemas those that `data_schemas` names."""
    hidden = [name for name in OWN_SCHEMAS if name not in data_schemas]
    return select(session, _LIST_TABLES, hidden)


def day_column(session: psycopg.Connection, table: Table) -> str | None:
    """The column that tells best on which day a row came about."""
    found = select(session, _LIST_DAY_COLUMNS, table.schema, table.name)
    return found[0].name if found else None


def proposed_schemas(tables: list[Table]) -> tuple[str, ...]:
    """The schemas that have tables or views, the largest first. DATA_SCHEMAS cannot name a comma."""
    sizes: dict[str, int] = {}
    for table in tables:
        sizes[table.schema] = sizes.get(table.schema, 0) + table.bytes
    names = sorted(sizes, key=lambda name: (-sizes[name], name))
    return tuple(name for name in names if "," not in name and name == name.strip())


def shown_bytes(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1024:  # noqa: PLR2004 (bytes in a kilobyte)
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} TB"
