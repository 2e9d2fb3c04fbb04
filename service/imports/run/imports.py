"""Import a file in one transaction: read, copy, then run the plan that stores or quarantines each row.

An advisory lock lets only one import into a dataset run at a time. An import also locks the datasets whose
orphans it may release. Locks are taken in the order of `DATASETS`, so imports cannot deadlock.
"""

import asyncio
import hashlib
from collections.abc import Callable
from datetime import datetime
from typing import Final, Literal
from uuid import UUID

import msgspec
from msgspec import Struct

from service import audit
from service.audit import Actor
from service.database.gateway import Database, Transaction
from service.database.queries import Command, Statement
from service.errors import Conflict, InvalidInput, NotFound
from service.imports.contracts import Dataset, find_among
from service.imports.datasets import DATASETS
from service.imports.derived import read_datasets
from service.imports.plan import SQL, Run, plan_import
from service.imports.plan.storing import count_rows, touch
from service.imports.readers import Facts, Upload, inspect, opened
from service.imports.readers.tables import Record, Table
from service.imports.run.pipeline import ValidateSql, begin, copy_records, lock, release, run_plan
from service.imports.run.turns import Turns

Progress = Callable[[int], None]
"""Called with the number of rows read so far."""

BATCH: Final = 5_000
BATCH_CHARACTERS: Final = 4 << 20
TIMEOUT_S: Final = 3_600
KNOWN: Final = "the same file as before: not read again"


class Report(Struct, frozen=True):
    """The report of an import: `rows_read = inserted + updated + unchanged + quarantined`.

    `released` counts orphans of other datasets that this import released. `id` is null for a dry run.
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


class Position(Struct, frozen=True):
    """The position of the last entry of a page, in a list ordered by time."""

    at: datetime
    id: UUID


class Options(Struct, frozen=True, kw_only=True):
    """`mirror` marks stored rows that the file lacks as gone. `keep_edits` skips a catalogue file that was
    imported before, even if rows were added or removed since. Imports of one process share `turns`.
    `datasets` are all that the database has; the import reads them itself.
    """

    validate_sql: ValidateSql
    bytes_limit: int
    actor: Actor
    dry_run: bool = False
    mirror: bool = False
    keep_edits: bool = False
    progress: Progress | None = None
    turns: Turns = msgspec.field(default_factory=Turns)
    datasets: tuple[Dataset, ...] = DATASETS


class _Number(Struct, frozen=True):
    number: int


class _Recorded(Struct, frozen=True):
    finished_at: datetime


NEXT_NUMBER: Final = SQL.rows("next_number", _Number)
REMEMBERED: Final = SQL.rows("remembered", Report)
RECORD_RUN: Final = SQL.rows("record_run", _Recorded)
LIST_RUNS: Final = SQL.rows("list_runs", Report)
GET_RUN: Final = SQL.rows("get_run", Report)


class _RolledBack(Exception):  # noqa: N818 (it rolls a dry run back)
    def __init__(self, report: Report) -> None:
        super().__init__()
        self.report = report


async def import_file(
    database: Database | Transaction, upload: Upload, dataset: Dataset, options: Options
) -> Report:
    """Import a whole file or nothing.

    Raises one of `REFUSALS` if the file is refused, and `Busy` if too many imports wait.
    """
    if dataset.fault:
        raise InvalidInput(f"{dataset.name}: {dataset.fault}")
    if options.mirror and not dataset.mirrored:
        raise InvalidInput(_why_not_mirrored(dataset))
    facts = await asyncio.to_thread(inspect, upload, bytes_limit=options.bytes_limit)
    options = msgspec.structs.replace(options, datasets=await read_datasets(database))
    try:
        report = await _imported_before(database, upload, facts, dataset, options)
        return report or await _read(database, upload, facts, dataset, options)
    except _RolledBack as rolled_back:
        return rolled_back.report


def _why_not_mirrored(dataset: Dataset) -> str:
    if not dataset.derived:
        return f"{dataset.name} cannot be mirrored: its rows are edited elsewhere too."
    return (
        f"{dataset.name} cannot be mirrored: its table has no column to mark rows as gone. Remove "
        "the dataset and add it again with `mirror`, which adds that column."
    )


async def list_runs(
    database: Database | Transaction, *, dataset: str | None, before: Position | None, limit: int
) -> list[Report]:
    """Return imports, newest first: up to `limit` + 1, so that the extra one shows that more follow."""
    at, last = (before.at, before.id) if before else (None, None)
    return await database.read(LIST_RUNS, dataset, at, last, limit + 1)


async def one_run(database: Database | Transaction, run_id: UUID) -> Report:
    """Raises `NotFound`."""
    if report := await database.read_one(GET_RUN, run_id):
        return report
    raise NotFound(f"There is no import {run_id}.")


async def _imported_before(
    database: Database | Transaction, upload: Upload, facts: Facts, dataset: Dataset, options: Options
) -> Report | None:
    """The report of a file that was imported before. The file is not opened."""
    known = await database.read_one(
        REMEMBERED, dataset.name, facts.sha256, upload.source, None, facts.encoding
    )
    if known is None or options.mirror or dataset.derived:
        return None
    async with (
        options.turns.take(dataset, options.datasets),
        database.transaction(timeout_s=TIMEOUT_S) as tx,
    ):
        await lock(tx, dataset, options.datasets)
        report = await _report_if_unchanged(tx, upload, facts, dataset, options)
        return _unless_dry_run(report, options) if report else None


async def _read(
    database: Database | Transaction, upload: Upload, facts: Facts, dataset: Dataset, options: Options
) -> Report:
    limit, readers = options.bytes_limit, options.turns.readers
    async with (
        opened(upload, facts, dataset, bytes_limit=limit, readers=readers) as table,
        options.turns.take(dataset, options.datasets),
        database.transaction(timeout_s=TIMEOUT_S) as tx,
    ):
        await lock(tx, dataset, options.datasets)
        if dataset.derived:
            await hold_table(tx, dataset)
        report = await _report_if_unchanged(tx, upload, facts, dataset, options)
        report = report or await _imported(tx, upload, facts, dataset, options, table=table)
        return _unless_dry_run(report, options)


async def hold_table(tx: Transaction, dataset: Dataset) -> None:
    """Keep a user's table as it is until the end of the transaction. Raises `Conflict` if it was altered."""
    now = find_among(await read_datasets(tx), dataset.name)
    if now == dataset:
        await tx.write(Command("touch_table", touch(dataset)))
        now = find_among(await read_datasets(tx), dataset.name)
    if now != dataset:
        raise Conflict(f"The dataset {dataset.name} was changed while this began. Try again.")


def _unless_dry_run(report: Report, options: Options) -> Report:
    """Return the report. For a dry run, raise `_RolledBack`, which rolls the transaction back."""
    if options.dry_run:
        raise _RolledBack(report)
    return report


async def _report_if_unchanged(
    tx: Transaction, upload: Upload, facts: Facts, dataset: Dataset, options: Options
) -> Report | None:
    """The report of a file that was imported before, if no later import changed the dataset."""
    if options.mirror or dataset.derived:
        return None
    edited = options.keep_edits and not dataset.mirrored
    rows = None if edited else await _count_rows(tx, dataset)
    known = await tx.read_one(REMEMBERED, dataset.name, facts.sha256, upload.source, rows, facts.encoding)
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
    tx: Transaction, upload: Upload, facts: Facts, dataset: Dataset, options: Options, *, table: Table
) -> Report:
    await begin(tx, dataset)
    await _copy(tx, dataset, table, options.progress)
    run = await _next_run(tx, dataset, upload, facts)
    plan = plan_import(dataset, run, table, mirror=options.mirror)
    outcome = await run_plan(tx, plan, options.validate_sql)
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
        released=await release(tx, dataset, options.datasets, options.validate_sql),
        format=facts.format,
        encoding=facts.encoding,
        notes=list(table.notes),
        finished_at=None,
    )
    return await _recorded(tx, dataset, report, run, options.actor)


async def _copy(tx: Transaction, dataset: Dataset, table: Table, progress: Progress | None) -> None:
    """COPY the records. A thread reads the next batch while Postgres copies the current one."""
    loop, copied = asyncio.get_running_loop(), 0

    def take() -> list[Record]:
        batch, size = list[Record](), 0
        for record in table.records:
            batch.append(record)
            size += sum(len(text) for text in record[2:] if text)
            if len(batch) == BATCH or size > BATCH_CHARACTERS:
                break
        return batch

    batch = await asyncio.to_thread(take)
    while batch:
        following = loop.run_in_executor(None, take)
        try:
            await copy_records(tx, dataset, table.columns, batch)
        finally:
            await asyncio.wait([following])
        copied += len(batch)
        if progress:
            progress(copied)
        batch = following.result()


async def _count_rows(tx: Transaction, dataset: Dataset) -> int:
    counted = await tx.read_one(Statement("count_rows", count_rows(dataset), _Number))
    return counted.number if counted else 0


async def _next_run(tx: Transaction, dataset: Dataset, upload: Upload, facts: Facts) -> Run:
    counted = await tx.read_one(NEXT_NUMBER, dataset.name)
    number = counted.number if counted else 1
    digest = hashlib.sha256(f"{dataset.name} {number} {facts.sha256}".encode()).digest()
    return Run(UUID(bytes=digest[:16]), number, upload.source, facts.sha256)


async def _recorded(tx: Transaction, dataset: Dataset, report: Report, run: Run, actor: Actor) -> Report:
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
        None if dataset.derived else await _count_rows(tx, dataset),
        actor.name,
    )
    assert recorded, "RETURNING gives the row"
    await audit.record(tx, actor, "imports.run", f"{dataset.name} {run.id}")
    return msgspec.structs.replace(
        report,
        id=None if report.status == "dry-run" else run.id,
        finished_at=recorded.finished_at,
    )
