"""Put the rows of a file into a database: all of them or, if anything is wrong, none.

The triggers of the tables announce the rows, so that running services show them.
"""

from collections.abc import Iterator, Sequence
from typing import BinaryIO, Final

from msgspec import Raw, Struct

from service import audit
from service.audit import Actor
from service.backup.export import SQL, refuse_unmigrated
from service.backup.format import Reader
from service.backup.tables import EXPORTED, MERGED, SECRET
from service.database.gateway import Database, Transaction
from service.database.rows import (
    TIMEOUT_S,
    StoredColumn,
    count_rows,
    decoded,
    delete_rows,
    load_rows,
    lock_tables,
    raise_identities,
    stored_columns,
)
from service.errors import Conflict, Stop
from service.imports.registering import add_quarantine

LOCK_WAIT: Final = "5s"
BATCH_ROWS: Final = 1_000
BATCH_BYTES: Final = 1 << 20
DASHBOARDS: Final = "catalog.dashboard"
DATASETS: Final = "imports.dataset"

Columns = dict[str, list[StoredColumn]]


class Restored(Struct, frozen=True):
    """How many rows of a table were removed from the database, and how many came from the file."""

    table: str
    removed: int
    restored: int


class Outcome(Struct, frozen=True):
    """`notes` tell what the database lacks for what was restored."""

    tables: list[Restored]
    notes: list[str]


class _DatasetHere(Struct, frozen=True):
    name: str
    table_schema: str
    table_name: str
    undo: list[str]
    has_table: bool
    has_mirror: bool

    @property
    def table(self) -> str:
        return f"{self.table_schema}.{self.table_name}"


class _Dashboards(Struct, frozen=True):
    dashboards: int


_COUNT_DASHBOARDS: Final = SQL.rows("count_dashboards", _Dashboards)
_LIST_DATASETS: Final = SQL.rows("list_datasets_here", _DatasetHere)
_SET_UNDO: Final = SQL.command("set_undo")


async def restore(
    database: Database, file: BinaryIO, name: str, *, actor: Actor, replace: bool = False
) -> Outcome:
    """Restore a file that can be read twice. With `replace` it takes the place of what the database has.

    Raises `Stop` (exit status 2) for a file that is not whole or too new, and for a database that is not
    empty; then, and if the transaction fails, nothing has changed.
    """
    reader = Reader(file, name)
    sha256 = reader.check()
    await refuse_unmigrated(database)
    async with database.transaction(timeout_s=TIMEOUT_S) as tx:
        columns = await _columns(tx, reader, name)
        await lock_tables(tx, columns, wait=LOCK_WAIT)
        before = {each.name: each for each in await tx.read(_LIST_DATASETS)}
        if before:
            _refuse_other_datasets(reader, before, name)
        removed = await _make_room(tx, columns, replace=replace)
        restored = await _load(tx, reader, columns, name, datasets=set(before))
        for table, found in columns.items():
            await raise_identities(tx, table, found)
        notes = await _fit_datasets(tx, before)
        await audit.record(tx, actor, "tally.restore", f"export of {reader.header.at}", after=sha256)
    return Outcome([Restored(each, removed[each], restored[each]) for each in columns], notes)


async def _columns(tx: Transaction, reader: Reader, name: str) -> Columns:
    """The columns that the file has of each table, in the order in which tables are filled.

    A table that came later than the file has none: the file says that it is empty. Raises `Stop` if the file
    has a table or column that this Tally does not know.
    """
    known = (*EXPORTED, *SECRET)
    stored = await stored_columns(tx, known)
    given = reader.header.columns
    for table, names in given.items():
        there = {each.name for each in stored.get(table, ())}
        if unknown := [table] if not there else [f"{table}.{each}" for each in names if each not in there]:
            raise Stop(
                f"{name} comes from Tally {reader.header.tally} and holds {', '.join(unknown)}, which this "
                "database does not have: upgrade Tally and run `tally migrate` first",
                exit_code=2,
            )
    return {
        table: [each for each in stored[table] if each.name in given.get(table, ())]
        for table in known
        if table in given or table in EXPORTED
    }


def _refuse_other_datasets(reader: Reader, before: dict[str, _DatasetHere], name: str) -> None:
    """Raise `Stop` if a dataset of the database would go: what it added to its table would be left there."""
    given: dict[str, str] = {}
    for _, line in reader.lines():
        if line.table == DATASETS:
            row = decoded(line.row)
            given[row["name"]] = f"{row['table_schema']}.{row['table_name']}"
    for here in before.values():
        if given.get(here.name) != here.table:
            raise Stop(
                f"the database has the dataset {here.name} of {here.table}, which {name} lacks: "
                f"`tally dataset remove {here.name}` first, which undoes what it added to that table",
                exit_code=2,
            )


async def _make_room(tx: Transaction, columns: Columns, *, replace: bool) -> dict[str, int]:
    """Remove what is there. Raises `Stop` if there is something and not `replace`."""
    removed = {table: 0 if table in MERGED else await count_rows(tx, table) for table in columns}
    found = dict(removed)
    if DASHBOARDS in found and (own := await tx.read_one(_COUNT_DASHBOARDS)):
        found[DASHBOARDS] = own.dashboards
    if not replace and any(found.values()):
        listed = ", ".join(f"{rows} in {table}" for table, rows in found.items() if rows)
        raise Stop(
            f"the database is not empty (rows: {listed}): restore into a new one, or use --replace, "
            "which removes them first",
            exit_code=2,
        )
    for table in reversed(columns):
        if removed[table]:
            await delete_rows(tx, table)
    return removed


async def _load(
    tx: Transaction, reader: Reader, columns: Columns, name: str, *, datasets: set[str]
) -> dict[str, int]:
    """Load all rows. `datasets` have a place for quarantined rows already."""
    restored = dict.fromkeys(columns, 0)
    for table, first, rows in _batches(reader, columns, name):
        try:
            async with tx.transaction() as part:
                await load_rows(part, table, columns[table], rows, replace=table in MERGED)
        except Conflict as refused:
            last = first + len(rows) - 1
            raise Stop(
                f"{name}, lines {first} to {last}: {table} refuses a row: {refused}", exit_code=2
            ) from None
        if table == DATASETS:
            for dataset in {str(decoded(row)["name"]) for row in rows} - datasets:
                await add_quarantine(tx, dataset)
        restored[table] += len(rows)
    return restored


def _batches(reader: Reader, columns: Columns, name: str) -> Iterator[tuple[str, int, Sequence[Raw]]]:
    """Rows of one table that follow each other, with the number of their first line."""
    table, first, rows, size = "", 0, list[Raw](), 0
    for number, line in reader.lines():
        if not columns.get(line.table):
            raise Stop(f"{name}, line {number}: {line.table} is not in the first line", exit_code=2)
        if rows and (line.table != table or len(rows) == BATCH_ROWS or size > BATCH_BYTES):
            yield table, first, rows
            rows, size = [], 0
        if not rows:
            table, first = line.table, number
        rows.append(line.row.copy())
        size += memoryview(line.row).nbytes
    if rows:
        yield table, first, rows


async def _fit_datasets(tx: Transaction, before: dict[str, _DatasetHere]) -> list[str]:
    """Let each dataset know what it added to the table of this database. Returns notes."""
    notes = list[str]()
    for dataset in await tx.read(_LIST_DATASETS):
        known = before.get(dataset.name)
        if known is not None and known.undo != dataset.undo:
            await tx.write(_SET_UNDO, dataset.name, known.undo)
        elif not dataset.has_table:
            notes.append(f"dataset {dataset.name}: the database has no table {dataset.table} yet")
        elif known is None and dataset.undo and not dataset.has_mirror:
            await tx.write(_SET_UNDO, dataset.name, [])
            notes.append(
                f"dataset {dataset.name}: {dataset.table} has no column gone_at here, so it is not mirrored"
            )
    return notes
