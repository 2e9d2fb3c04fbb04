"""The way of a file: read, land, check, load or quarantine, in one transaction; readers see before or after.

Imports into one dataset take turns under an advisory lock; those whose waiting rows an import may free are
locked with it, always in the order of `DATASETS`, so that no two imports can wait for each other.
"""

import asyncio
import hashlib
from collections.abc import Callable
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, Final, Literal
from uuid import UUID

import msgspec
from msgspec import Struct

from service.database.gateway import Database, Transaction
from service.database.queries import Command, SqlFile, Statement
from service.errors import SqlRefused
from service.imports.datasets import DATASETS, Column, Dataset
from service.imports.readers import Facts, Upload, inspect, read
from service.imports.readers.tables import Record, Table
from service.imports.statements import checks, loads

Judge = Callable[[str], object]
"""Raises `SqlRefused` for SQL that may not be stored."""
Progress = Callable[[int], None]
"""Is told the rows read so far."""

BATCH: Final = 5_000
SQL_PAGE: Final = 500
TIMEOUT_S: Final = 3_600
KNOWN: Final = "the same file as before: not read again"
FIXED: Final = ("line", "quarantine_id", "raw", "reason", "message")


class Report(Struct, frozen=True):
    """What became of a file: `rows_read = inserted + updated + unchanged + quarantined`.

    `released` counts rows of other datasets that had waited for this import; `id` is null for a dry run.
    """

    id: UUID | None
    dataset: str
    source: str
    status: Literal["done", "dry-run"]
    rows_read: int
    inserted: int
    updated: int
    unchanged: int
    quarantined: int
    reasons: dict[str, int]
    gone: int
    released: dict[str, int]
    format: str
    encoding: str
    notes: list[str]
    finished_at: datetime | None


class Options(Struct, frozen=True, kw_only=True):
    """`mirror` marks rows gone that the file lacks; `keep_edits` takes a known file of the catalogue as
    imported even if rows were added or removed since.
    """

    judge: Judge
    bytes_limit: int
    actor: str
    dry_run: bool = False
    mirror: bool = False
    keep_edits: bool = False
    progress: Progress | None = None


class _Number(Struct, frozen=True):
    number: int


class Run(Struct, frozen=True):
    """An import's entry in the history of its dataset; the id is made from that history."""

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


class _Count(Struct, frozen=True):
    reason: str | None
    rows: int


class _Turn(Struct, frozen=True):
    turn: str


class _Prepared(Struct, frozen=True):
    datestyle: str
    nested_loops: str
    work_mem: str


class _Recorded(Struct, frozen=True):
    finished_at: datetime


class _Sql(Struct, frozen=True):
    nth: int
    sql: str


SQL: Final = SqlFile(Path(__file__).with_name("queries.sql"))
TAKE_TURN: Final = SQL.rows("take_turn", _Turn)
NEXT_NUMBER: Final = SQL.rows("next_number", _Number)
REMEMBERED: Final = SQL.rows("remembered", Report)
RECORD_RUN: Final = SQL.rows("record_run", _Recorded)
PREPARE: Final = SQL.rows("prepare", _Prepared)


class _Undone(Exception):  # noqa: N818 (it says what happens to a dry run)
    def __init__(self, report: Report) -> None:
        super().__init__()
        self.report = report


async def import_file(
    database: Database | Transaction, upload: Upload, dataset: Dataset, options: Options
) -> Report:
    """Import a file; all of it or nothing.

    Raises `InvalidInput` or `TooLarge` for a file that is refused: nothing changed then.
    """
    facts = await asyncio.to_thread(inspect, upload, bytes_limit=options.bytes_limit)
    try:
        async with database.transaction(timeout_s=TIMEOUT_S) as tx:
            await lock(tx, dataset)
            report = await _remembered(tx, upload, facts, dataset, options)
            report = report or await _imported(tx, upload, facts, dataset, options)
            if options.dry_run:
                raise _Undone(report)  # noqa: TRY301 (raising is what rolls back)
    except _Undone as undone:
        return undone.report
    return report


async def lock(tx: Transaction, dataset: Dataset) -> None:
    """Wait for imports into this dataset and into those whose waiting rows it may free."""
    concerned = {dataset.name, *(child.name for child in loads.children(dataset))}
    for other in DATASETS:
        if other.name in concerned:
            await tx.read_one(TAKE_TURN, other.name)


async def _remembered(
    tx: Transaction, upload: Upload, facts: Facts, dataset: Dataset, options: Options
) -> Report | None:
    """The report of a file that is known and still stands, without reading it again."""
    if options.mirror:
        return None
    edited = options.keep_edits and not dataset.mirrored
    rows = None if edited else await _count_rows(tx, dataset)
    known = await tx.read_one(REMEMBERED, dataset.name, facts.sha256, upload.source, rows)
    if known is None:
        return None
    run = await _next_run(tx, dataset, upload, facts)
    report = msgspec.structs.replace(
        known,
        id=run.id,
        inserted=0,
        updated=0,
        unchanged=known.inserted + known.updated + known.unchanged,
        reasons=dict(sorted(known.reasons.items())),
        gone=0,
        released={},
        status="dry-run" if options.dry_run else "done",
        notes=[*(note for note in known.notes if note != KNOWN), KNOWN],
    )
    return await _recorded(tx, dataset, report, run, options.actor)


async def _imported(
    tx: Transaction, upload: Upload, facts: Facts, dataset: Dataset, options: Options
) -> Report:
    table = await asyncio.to_thread(read, upload, facts, dataset, bytes_limit=options.bytes_limit)
    await begin(tx, dataset)
    await _land(tx, dataset, table, options.progress)
    run = await _next_run(tx, dataset, upload, facts)
    outcome = await load(tx, dataset, options.judge, run=run, table=table, mirror=options.mirror)
    report = Report(
        id=run.id,
        dataset=dataset.name,
        source=upload.source,
        status="dry-run" if options.dry_run else "done",
        rows_read=outcome.rows_read,
        inserted=outcome.inserted,
        updated=outcome.updated,
        unchanged=outcome.unchanged,
        quarantined=outcome.quarantined,
        reasons=outcome.reasons,
        gone=outcome.gone,
        released=await release(tx, dataset, options.judge),
        format=facts.format,
        encoding=facts.encoding,
        notes=list(table.notes),
        finished_at=None,
    )
    return await _recorded(tx, dataset, report, run, options.actor)


async def begin(tx: Transaction, dataset: Dataset) -> None:
    """Make the landing table of a dataset; `load` drops it."""
    await tx.read_one(PREPARE)
    await _run(tx, *loads.drop(dataset), checks.create_landing(dataset))


async def load(
    tx: Transaction,
    dataset: Dataset,
    judge: Judge,
    *,
    run: Run | None = None,
    table: Table | None = None,
    mirror: bool = False,
) -> Outcome:
    """Check what has landed, quarantine what is unsound, load the rest.

    Without `run` and `table` the rows came from the quarantine: they stay there if they are unsound still.
    """
    returns = table is None or table.returns
    await _run(tx, checks.check(dataset))
    if returns and run:
        await _run(tx, loads.refuse_closed(dataset))
    for column in dataset.columns:
        if column.vocabulary:
            await _run(tx, loads.learn(dataset, column), loads.respell(dataset, column))
    if dataset.key and dataset.values:
        await _run(tx, loads.repeats(dataset), *([loads.taken(dataset)] if returns else []))
    for column in dataset.columns:
        if column.kind == "sql":
            await _judge(tx, dataset, column, judge)
        if column.refers_to:
            await _run(tx, loads.orphans(dataset, column))
    await _run(tx, checks.tell(dataset))
    if run and table:
        await _touch(tx, loads.settle(dataset), run.source)
        columns = table.columns if table.headings else ()
        headings = list(table.headings) or None
        await _touch(tx, loads.keep(dataset, columns), run.source, run.id, run.number, headings)
    if returns:
        await _run(tx, loads.retell(dataset), loads.close(dataset))
    inserted, updated = await _store(tx, dataset, table.present if table else set(loads.all_columns(dataset)))
    gone = await _touch(tx, loads.mark_gone(dataset)) if mirror else 0
    outcome = await _outcome(tx, dataset, inserted, updated, gone)
    await _run(tx, *loads.drop(dataset))
    return outcome


async def release(tx: Transaction, dataset: Dataset, judge: Judge) -> dict[str, int]:
    """Load the rows of other datasets whose references have arrived; how many, by dataset."""
    released: dict[str, int] = {}
    for child in loads.children(dataset):
        await begin(tx, child)
        if await _touch(tx, loads.land_waiting(child, loads.now_there(child))):
            outcome = await load(tx, child, judge)
            released[child.name] = outcome.rows_read - outcome.quarantined
        else:
            await _run(tx, *loads.drop(child))
    return released


async def _store(tx: Transaction, dataset: Dataset, present: set[str]) -> tuple[int, int]:
    """Insert and update; how many of each."""
    if not dataset.key:
        await _run(tx, loads.number_facts(dataset))
        return await _touch(tx, loads.add_facts(dataset)), await _touch(tx, loads.return_facts(dataset))
    updated = 0
    if dataset.mirrored or present & set(dataset.values):
        updated = await _touch(tx, loads.change(dataset, present))
    return await _touch(tx, loads.add(dataset)), updated


async def _land(tx: Transaction, dataset: Dataset, table: Table, progress: Progress | None) -> None:
    """COPY the records; the next batch is read in a thread while Postgres takes one."""
    columns, loop, landed = (*FIXED, *table.columns), asyncio.get_running_loop(), 0

    def take() -> list[Record]:
        return list(islice(table.records, BATCH))

    batch = await asyncio.to_thread(take)
    while batch:
        following = loop.run_in_executor(None, take)
        try:
            await tx.copy("pg_temp", f"landing_{dataset.name}", columns=columns, records=batch)
        finally:
            await asyncio.wait([following])
        landed += len(batch)
        if progress:
            progress(landed)
        batch = following.result()


async def _judge(tx: Transaction, dataset: Dataset, column: Column, judge: Judge) -> None:
    statement = Statement("unjudged", loads.unjudged(dataset, column), _Sql)
    last = 0
    while page := await tx.read(statement, last, SQL_PAGE):
        refused = await asyncio.to_thread(_refused, page, judge)
        await _touch(tx, loads.refuse(dataset), list(refused), list(refused.values()))
        last = page[-1].nth


def _refused(page: list[_Sql], judge: Judge) -> dict[int, str]:
    found: dict[int, str] = {}
    for row in page:
        try:
            judge(row.sql)
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


async def _count_rows(tx: Transaction, dataset: Dataset) -> int:
    counted = await tx.read_one(Statement("count_rows", loads.count_rows(dataset), _Number))
    return counted.number if counted else 0


async def _next_run(tx: Transaction, dataset: Dataset, upload: Upload, facts: Facts) -> Run:
    counted = await tx.read_one(NEXT_NUMBER, dataset.name)
    number = counted.number if counted else 1
    digest = hashlib.sha256(f"{dataset.name} {number} {facts.sha256}".encode()).digest()
    return Run(UUID(bytes=digest[:16]), number, upload.source, facts.sha256)


async def _recorded(tx: Transaction, dataset: Dataset, report: Report, run: Run, actor: str) -> Report:
    recorded = await tx.read_one(
        RECORD_RUN,
        run.id,
        report.dataset,
        run.number,
        run.source,
        run.file_hash,
        report.format,
        report.encoding,
        report.rows_read,
        report.inserted,
        report.updated,
        report.unchanged,
        report.quarantined,
        report.gone,
        report.reasons,
        report.released,
        report.notes,
        await _count_rows(tx, dataset),
        actor,
    )
    assert recorded, "an insert gives its row"
    return msgspec.structs.replace(
        report,
        id=None if report.status == "dry-run" else run.id,
        finished_at=recorded.finished_at,
    )


async def _run(tx: Transaction, *texts: str) -> None:
    for text in texts:
        await _touch(tx, text)


async def _touch(tx: Transaction, text: str, *args: Any) -> int:
    return await tx.write(Command("import", text), *args)
