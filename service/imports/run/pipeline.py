"""Run a plan over the landed rows, then plans for the orphans that waited for these rows."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from msgspec import Struct

from service.database.gateway import Transaction
from service.database.queries import Command, Statement
from service.errors import SqlRefused
from service.imports.contracts import Dataset, children
from service.imports.datasets import DATASETS
from service.imports.plan import SQL, ImportPlan, SqlText, plan_return
from service.imports.plan.cells import create_landed
from service.imports.plan.keeping import reference_exists, return_rows
from service.imports.readers.tables import Record
from service.imports.run.turns import locked_with

ValidateSql = Callable[[str], object]
"""Validates SQL. Raises `SqlRefused` if the SQL may not be stored."""


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


class _Count(Struct, frozen=True):
    reason: str | None
    rows: int


LANDED_COLUMNS: Final = ("line", "quarantine_id", "raw", "reason", "message")
SQL_PAGE: Final = 500
TAKE_TURN: Final = SQL.rows("take_turn", _Turn)
PREPARE: Final = SQL.rows("prepare", _Prepared)
DROP_TABLES: Final = SQL.command("drop_tables")
REFUSE_SQL: Final = SQL.command("refuse_sql")
COUNT_CHECKED: Final = SQL.rows("count_checked", _Count)


async def lock(tx: Transaction, dataset: Dataset) -> None:
    """Lock this dataset and the datasets whose orphans an import may release."""
    for name in locked_with(dataset):
        await tx.read_one(TAKE_TURN, name)


async def begin(tx: Transaction, dataset: Dataset) -> None:
    """Create the table of landed rows. `run_plan` drops it."""
    await tx.read_one(PREPARE)
    await tx.write(DROP_TABLES)
    await tx.write(Command("create_landed", create_landed(dataset)))


async def copy_records(
    tx: Transaction, dataset: Dataset, columns: Sequence[str], records: list[Record]
) -> None:
    cells = dataset.cells
    await tx.copy(
        "pg_temp", "landed", columns=(*LANDED_COLUMNS, *(cells[name] for name in columns)), records=records
    )


async def run_plan(tx: Transaction, plan: ImportPlan, validate_sql: ValidateSql) -> Outcome:
    """Run all steps in order, count, and drop the temporary tables: the transaction may continue."""
    figures = Counter[str]()
    for step in plan.steps:
        if isinstance(step, Statement):
            await _validate(tx, step, validate_sql)
            continue
        rows = await tx.write(step.command, *step.args)
        if step.adds_to:
            figures[step.adds_to] += rows
    counts = await tx.read(COUNT_CHECKED)
    reasons = {row.reason: row.rows for row in counts if row.reason}
    await tx.write(DROP_TABLES)
    return Outcome(
        rows_read=sum(row.rows for row in counts),
        inserted=figures["inserted"],
        updated=figures["updated"],
        quarantined=sum(reasons.values()),
        reasons=dict(sorted(reasons.items())),
        gone=figures["gone"],
    )


async def retry_rows(
    tx: Transaction, dataset: Dataset, where: str, validate_sql: ValidateSql
) -> Outcome | None:
    """Try open quarantined rows again. `where` filters them. None if there are none."""
    await begin(tx, dataset)
    if await tx.write(Command("return_rows", return_rows(dataset, where))):
        return await run_plan(tx, plan_return(dataset), validate_sql)
    await tx.write(DROP_TABLES)
    return None


async def release(tx: Transaction, dataset: Dataset, validate_sql: ValidateSql) -> dict[str, int]:
    """Load orphans of other datasets whose references now exist. Return how many, by dataset."""
    released: dict[str, int] = {}
    for child in children(dataset, DATASETS):
        if outcome := await retry_rows(tx, child, reference_exists(child), validate_sql):
            released[child.name] = outcome.rows_read - outcome.quarantined
    return released


async def _validate(tx: Transaction, statement: Statement[SqlText], validate_sql: ValidateSql) -> None:
    last = 0
    while page := await tx.read(statement, last, SQL_PAGE):
        refused = await asyncio.to_thread(_refused, page, validate_sql)
        await tx.write(REFUSE_SQL, list(refused), list(refused.values()))
        last = page[-1].nth


def _refused(page: list[SqlText], validate_sql: ValidateSql) -> dict[int, str]:
    found: dict[int, str] = {}
    for row in page:
        try:
            validate_sql(row.sql)
        except SqlRefused as refusal:
            found[row.nth] = refusal.detail
    return found
