"""Check landed rows, load or quarantine them, then release the orphans that waited for them."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from msgspec import Struct

from service.database.gateway import Transaction
from service.database.queries import Command, SqlFile, Statement
from service.errors import SqlRefused
from service.imports.datasets import Dataset, DatasetColumn
from service.imports.loading import checks, loads
from service.imports.loading.turns import locked_with
from service.imports.readers.tables import Record, Table

ValidateSql = Callable[[str], object]
"""Validates SQL. Raises `SqlRefused` if the SQL may not be stored."""


class Run(Struct, frozen=True):
    """An import in the history of its dataset. The id is derived from dataset, number and file."""

    id: UUID
    number: int
    source: str
    file_hash: str


class Outcome(Struct, frozen=True):
    rows_read: int
    inserted: int
    updated: int
    quarantined: int
    reasons: dict[str, int]
    gone: int

    @property
    def unchanged(self) -> int:
        return self.rows_read - self.inserted - self.updated - self.quarantined


class _Turn(Struct, frozen=True):
    turn: str


class _Prepared(Struct, frozen=True):
    datestyle: str
    nested_loops: str
    work_mem: str
    jit: str


class _Sql(Struct, frozen=True):
    nth: int
    sql: str


class _Count(Struct, frozen=True):
    reason: str | None
    rows: int


FIXED: Final = ("line", "quarantine_id", "raw", "reason", "message")
SQL_PAGE: Final = 500
SQL: Final = SqlFile(Path(__file__).parents[1] / "queries.sql")
TAKE_TURN: Final = SQL.rows("take_turn", _Turn)
PREPARE: Final = SQL.rows("prepare", _Prepared)


async def lock(tx: Transaction, dataset: Dataset) -> None:
    """Lock this dataset and the datasets whose orphans an import may release."""
    for name in locked_with(dataset):
        await tx.read_one(TAKE_TURN, name)


async def begin(tx: Transaction, dataset: Dataset) -> None:
    """Create the landing table of a dataset. `load` drops it."""
    await tx.read_one(PREPARE)
    await _run(tx, *loads.drop(dataset), checks.create_landing(dataset))


async def load(
    tx: Transaction,
    dataset: Dataset,
    validate_sql: ValidateSql,
    *,
    run: Run | None = None,
    table: Table | None = None,
    mirror: bool = False,
) -> Outcome:
    """Check the landed rows, quarantine invalid rows, load valid rows.

    Without `run` and `table` the rows came from quarantine. Rows that are still invalid stay there.
    """
    returns = table is None or table.returns
    await _run(tx, checks.check(dataset))
    if returns and run:
        await _run(tx, loads.refuse_closed(dataset), loads.refuse_unmended(dataset))
    await _run(tx, *loads.doubt_points(dataset), *loads.unify_spelling(dataset))
    if dataset.key and dataset.values:
        await _run(tx, loads.repeats(dataset), *([loads.refuse_conflicts(dataset)] if returns else []))
    for column in dataset.columns:
        if column.kind == "sql":
            await _validate(tx, dataset, column, validate_sql)
        if column.refers_to:
            await _run(tx, loads.orphans(dataset, column))
    await _run(tx, checks.explain(dataset))
    if run and table:
        await _touch(tx, loads.close_valid(dataset), run.source)
        columns = table.columns if table.headings else ()
        headings = list(table.headings) or None
        await _touch(tx, loads.quarantine(dataset, columns), run.source, run.id, run.number, headings)
    if returns:
        await _run(tx, loads.update_reasons(dataset), loads.close(dataset))
    inserted, updated = await _store(tx, dataset, table.present if table else set(loads.all_columns(dataset)))
    gone = await _touch(tx, loads.mark_gone(dataset)) if mirror else 0
    outcome = await _outcome(tx, dataset, inserted, updated, gone)
    await _run(tx, *loads.drop(dataset))
    return outcome


async def release(tx: Transaction, dataset: Dataset, validate_sql: ValidateSql) -> dict[str, int]:
    """Load orphans of other datasets whose references now exist. Return how many, by dataset."""
    released: dict[str, int] = {}
    for child in loads.children(dataset):
        await begin(tx, child)
        if await _touch(tx, loads.land_waiting(child, loads.reference_exists(child))):
            outcome = await load(tx, child, validate_sql)
            released[child.name] = outcome.rows_read - outcome.quarantined
        else:
            await _run(tx, *loads.drop(child))
    return released


async def _store(tx: Transaction, dataset: Dataset, present: set[str]) -> tuple[int, int]:
    """Insert and update rows. Return how many of each."""
    if not dataset.key:
        await _run(tx, loads.number_facts(dataset))
        return await _touch(tx, loads.add_facts(dataset)), await _touch(tx, loads.return_facts(dataset))
    updated = 0
    if dataset.mirrored or present & set(dataset.values):
        updated = await _touch(tx, loads.change(dataset, present))
    return await _touch(tx, loads.add(dataset)), updated


async def land(tx: Transaction, dataset: Dataset, columns: tuple[str, ...], records: list[Record]) -> None:
    await tx.copy("pg_temp", f"landing_{dataset.name}", columns=(*FIXED, *columns), records=records)


async def _validate(
    tx: Transaction, dataset: Dataset, column: DatasetColumn, validate_sql: ValidateSql
) -> None:
    statement = Statement("sql_to_validate", loads.sql_to_validate(dataset, column), _Sql)
    last = 0
    while page := await tx.read(statement, last, SQL_PAGE):
        refused = await asyncio.to_thread(_refused, page, validate_sql)
        await _touch(tx, loads.refuse(dataset), list(refused), list(refused.values()))
        last = page[-1].nth


def _refused(page: list[_Sql], validate_sql: ValidateSql) -> dict[int, str]:
    found: dict[int, str] = {}
    for row in page:
        try:
            validate_sql(row.sql)
        except SqlRefused as refusal:
            found[row.nth] = refusal.detail
    return found


async def _outcome(tx: Transaction, dataset: Dataset, inserted: int, updated: int, gone: int) -> Outcome:
    counts = await tx.read(Statement("count_checked", loads.count_checked(dataset), _Count))
    reasons = {row.reason: row.rows for row in counts if row.reason}
    return Outcome(
        rows_read=sum(row.rows for row in counts),
        inserted=inserted,
        updated=updated,
        quarantined=sum(reasons.values()),
        reasons=dict(sorted(reasons.items())),
        gone=gone,
    )


async def _run(tx: Transaction, *texts: str) -> None:
    for text in texts:
        await _touch(tx, text)


async def _touch(tx: Transaction, text: str, *args: Any) -> int:
    return await tx.write(Command("import", text), *args)
