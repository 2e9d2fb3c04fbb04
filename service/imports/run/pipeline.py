"""Run a plan over the landed rows, then plans for the orphans that waited for these rows."""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Final

from msgspec import Struct

from service.database.gateway import Transaction
from service.database.queries import Command, Statement
from service.errors import SqlRefused
from service.imports.contracts import Dataset, children, concerned
from service.imports.plan import SQL, ImportPlan, SqlText, Step, plan_return
from service.imports.plan.cells import create_landed
from service.imports.plan.keeping import reference_exists, return_rows
from service.imports.readers.tables import Record

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
    path: str


class _Count(Struct, frozen=True):
    reason: str | None
    rows: int


LANDED_COLUMNS: Final = ("line", "quarantine_id", "raw", "reason", "message")
SQL_PAGE: Final = 500
ROUNDS: Final = 50
"""How often a step repeats at most. Longer chains of orphans are left to the table's own foreign key."""
TAKE_TURN: Final = SQL.rows("take_turn", _Turn)
PREPARE: Final = SQL.rows("prepare", _Prepared)
DROP_TABLES: Final = SQL.command("drop_tables")
REFUSE_SQL: Final = SQL.command("refuse_sql")
CHECK_CONSTRAINTS: Final = SQL.command("check_constraints")
ANNOUNCE: Final = SQL.command("announce")
COUNT_CHECKED: Final = SQL.rows("count_checked", _Count)


async def lock(tx: Transaction, dataset: Dataset, datasets: tuple[Dataset, ...]) -> None:
    """Lock this dataset and the datasets whose orphans an import may release."""
    for name in concerned(dataset, datasets):
        await tx.read_one(TAKE_TURN, name)


async def begin(tx: Transaction, dataset: Dataset) -> None:
    """Create the table of landed rows. `run_plan` drops it."""
    await tx.read_one(PREPARE, dataset.search_path)
    if dataset.derived:
        await tx.write(CHECK_CONSTRAINTS)
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
        elif rows := await _rows_of(tx, step):
            figures[step.adds_to or ""] += rows
    if plan.announces and figures["inserted"] + figures["updated"] + figures["gone"]:
        await tx.write(ANNOUNCE, *plan.announces)
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


async def _rows_of(tx: Transaction, step: Step) -> int:
    """Run a step. Return how many rows it affected."""
    if isinstance(step.command, Statement):
        stored = await tx.read_one(step.command)
        return stored.rows if stored else 0
    rows = await tx.write(step.command, *step.args)
    rounds = ROUNDS if step.repeats and rows else 0
    while rounds and await tx.write(step.command, *step.args):
        rounds -= 1
    return rows


async def retry_rows(
    tx: Transaction, dataset: Dataset, where: str, validate_sql: ValidateSql
) -> Outcome | None:
    """Try open quarantined rows again. `where` filters them. None if there are none."""
    await begin(tx, dataset)
    if await tx.write(Command("return_rows", return_rows(dataset, where))):
        return await run_plan(tx, plan_return(dataset), validate_sql)
    await tx.write(DROP_TABLES)
    return None


async def release(
    tx: Transaction, dataset: Dataset, datasets: tuple[Dataset, ...], validate_sql: ValidateSql
) -> dict[str, int]:
    """Load orphans whose references now exist, and the orphans of these. Return how many, by dataset."""
    released = Counter[str]()
    parents = deque([dataset])
    while parents:
        for child in children(parents.popleft(), datasets):
            if child.fault:
                continue
            outcome = await retry_rows(tx, child, reference_exists(child), validate_sql)
            if outcome and (rows := outcome.rows_read - outcome.quarantined):
                released[child.name] += rows
                parents.append(child)
    return dict(released)


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
