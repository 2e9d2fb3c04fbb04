"""Quarantined rows broke their contract. List, export, fix, retry or discard them; they are never deleted."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID

from msgspec import Struct

from service import audit
from service.audit import Actor
from service.database.gateway import Database, Transaction
from service.errors import Conflict, FieldError, InvalidInput, NotFound
from service.http.bodies import encode
from service.http.csv_cells import quoted
from service.imports.contracts import Dataset, Reason, find_among
from service.imports.derived import read_datasets
from service.imports.plan import SQL, plan_return
from service.imports.readers.tables import Shaper, guarded, read_exact
from service.imports.run.imports import TIMEOUT_S, Position, hold_table
from service.imports.run.pipeline import (
    Outcome,
    ValidateSql,
    begin,
    copy_records,
    lock,
    release,
    retry_rows,
    run_plan,
)
from service.imports.run.turns import Turns

Status = Literal["open", "loaded", "discarded"]

EXPORT_PAGE: Final = 1_000
PAGE_BYTES: Final = 8 << 20
"""Bytes of JSON that a page may hold. A page always holds at least one row."""
WRITE_HERE: Final = 1 << 16
"""Characters of the longest line that is encoded on the event loop. A thread encodes longer lines."""
OF_THE_EXPORT: Final = ("quarantine_id", "reason", "message")


class QuarantinedRow(Struct, frozen=True):
    """A quarantined row. `original` is the value of `raw` before the first fix. An orphan needs the key
    `waits_key` in the dataset `waits_for`.
    """

    id: UUID
    dataset: str
    source: str
    line: int
    reason: Reason
    message: str
    status: Status
    raw: dict[str, Any]
    original: dict[str, Any] | None
    waits_for: str | None
    waits_key: str | None
    import_id: UUID
    created_at: datetime
    closed_at: datetime | None


class RetryReport(Struct, frozen=True):
    """The report of a retry. `released` counts orphans of other datasets that the retry released."""

    rows_read: int
    inserted: int
    updated: int
    unchanged: int
    quarantined: int
    reasons: dict[str, int]
    released: dict[str, int]


class OpenRows(Struct, frozen=True):
    """How many quarantined rows of a dataset are open."""

    dataset: str
    number: int


class _Exported(Struct, frozen=True):
    id: UUID
    cells: dict[str, str]
    reason: str
    message: str


class Page(Struct, frozen=True):
    """Rows, and the position of the last row if more follow."""

    rows: list[QuarantinedRow]
    last: Position | None


class _Place(Struct, frozen=True):
    at: datetime
    id: UUID
    fits: bool


PLACE_ROWS: Final = SQL.rows("place_kept", _Place)
LIST_ROWS: Final = SQL.rows("list_kept", QuarantinedRow)
GET_ROW: Final = SQL.rows("get_kept", QuarantinedRow)
EXPORT_ROWS: Final = SQL.rows("export_kept", _Exported)
DISCARD_ROW: Final = SQL.command("discard_kept")
COUNT_OPEN: Final = SQL.rows("count_open", OpenRows)


async def rows(
    database: Database | Transaction,
    *,
    dataset: str | None,
    reason: str | None,
    status: str | None,
    after: Position | None,
    limit: int,
) -> Page:
    """Return a page of up to `limit` rows. A page of large rows holds fewer."""
    ids, last = await _page(database, (dataset, reason, status), after, limit)
    return Page(await database.read(LIST_ROWS, ids), last)


async def one(database: Database | Transaction, row_id: UUID) -> QuarantinedRow:
    """Raises `NotFound`."""
    if row := await database.read_one(GET_ROW, row_id):
        return row
    raise NotFound(f"There is no quarantined row {row_id}.")


async def export(database: Database | Transaction, dataset: Dataset) -> AsyncIterator[bytes]:
    """Yield the open rows of a dataset as CSV, to be fixed in a spreadsheet and imported back."""
    columns = dataset.names
    yield await _csv_line((*columns, *OF_THE_EXPORT))
    after: Position | None = None
    while True:
        ids, after = await _page(database, (dataset.name, None, "open"), after, EXPORT_PAGE)
        for row in await database.read(EXPORT_ROWS, dataset.name, ids):
            cells = [row.cells.get(name, "") for name in columns]
            yield await _csv_line((*cells, str(row.id), row.reason, row.message))
        if after is None:
            return


async def fix(
    database: Database,
    row_id: UUID,
    raw: Mapping[str, Any],
    validate_sql: ValidateSql,
    actor: Actor,
    *,
    turns: Turns,
) -> QuarantinedRow:
    """Load the row with new values. Other columns keep their values. Cells without a column are dropped.

    Raises `NotFound`, `Conflict` if the row is not open, and `InvalidInput` if the row is still invalid. Then
    the row does not change.
    """
    datasets = await read_datasets(database)
    dataset = await _dataset(database, row_id, datasets)
    async with turns.take(dataset, datasets), database.transaction(timeout_s=TIMEOUT_S) as tx:
        await _lock(tx, dataset, datasets)
        before = await _open_row(tx, row_id)
        await begin(tx, dataset)
        columns = dataset.names
        mended = encode(_mended(dataset, before.raw, raw)).decode()
        shape = Shaper(dataset, columns)
        line, _, *rest = shape(before.line, read_exact(mended), None, mended)
        await copy_records(tx, dataset, columns, [(line, str(row_id), *rest)])
        outcome = await run_plan(tx, plan_return(dataset), validate_sql)
        after = await one(tx, row_id)
        if outcome.quarantined:
            raise _unsound(dataset, after)
        await release(tx, dataset, datasets, validate_sql)
        await _note(tx, "quarantine.fix", before, after, actor)
    return after


async def retry(
    database: Database, dataset: Dataset | None, validate_sql: ValidateSql, actor: Actor, *, turns: Turns
) -> RetryReport:
    """Retry all open rows of one dataset or of all. Rows of the wrong shape stay open."""
    total = RetryReport(0, 0, 0, 0, 0, {}, {})
    datasets = await read_datasets(database)
    for each in [dataset] if dataset else [each for each in datasets if not each.fault]:
        async with turns.take(each, datasets), database.transaction(timeout_s=TIMEOUT_S) as tx:
            await _lock(tx, each, datasets)
            total = _sum(total, await _retried(tx, each, datasets, validate_sql))
            await audit.record(tx, actor, "quarantine.retry", each.name)
    return total


async def discard(database: Database, row_id: UUID, actor: Actor, *, turns: Turns) -> None:
    """Mark a row as discarded; it stays listed. Raises `NotFound`, and `Conflict` if it is not open."""
    datasets = await read_datasets(database)
    dataset = await _dataset(database, row_id, datasets)
    async with turns.take(dataset, datasets), database.transaction() as tx:
        await lock(tx, dataset, datasets)
        before = await _open_row(tx, row_id)
        await tx.write(DISCARD_ROW, row_id)
        await _note(tx, "quarantine.discard", before, await one(tx, row_id), actor)


async def _page(
    database: Database | Transaction,
    filters: tuple[str | None, str | None, str | None],
    after: Position | None,
    limit: int,
) -> tuple[list[UUID], Position | None]:
    """Return the ids of a page, and the position of the last row if more follow. `filters` are dataset,
    reason and status.
    """
    at, last = (after.at, after.id) if after else (None, None)
    places = await database.read(PLACE_ROWS, *filters, at, last, limit, PAGE_BYTES)
    shown = [place for place in places if place.fits]
    more = len(shown) < len(places)
    return [place.id for place in shown], Position(shown[-1].at, shown[-1].id) if more else None


async def _retried(
    tx: Transaction, dataset: Dataset, datasets: tuple[Dataset, ...], validate_sql: ValidateSql
) -> RetryReport:
    outcome = await retry_rows(tx, dataset, "true", validate_sql) or Outcome(0, 0, 0, 0, {}, 0)
    return RetryReport(
        rows_read=outcome.rows_read,
        inserted=outcome.inserted,
        updated=outcome.updated,
        unchanged=outcome.unchanged,
        quarantined=outcome.quarantined,
        reasons=outcome.reasons,
        released=await release(tx, dataset, datasets, validate_sql),
    )


async def _dataset(database: Database, row_id: UUID, datasets: tuple[Dataset, ...]) -> Dataset:
    """Raises `NotFound`."""
    if dataset := find_among(datasets, (await one(database, row_id)).dataset):
        return dataset
    raise NotFound(f"The dataset of row {row_id} was removed.")


async def _lock(tx: Transaction, dataset: Dataset, datasets: tuple[Dataset, ...]) -> None:
    """Lock the dataset for storing rows. Raises `Conflict` if its table cannot be written or was altered."""
    if dataset.fault:
        raise Conflict(f"{dataset.name}: {dataset.fault}")
    await lock(tx, dataset, datasets)
    if dataset.derived:
        await hold_table(tx, dataset)


async def _open_row(tx: Transaction, row_id: UUID) -> QuarantinedRow:
    """Raises `Conflict` if the row is not open."""
    row = await one(tx, row_id)
    if row.status != "open":
        raise Conflict(f"The row is {row.status}, not open.")
    return row


def _mended(dataset: Dataset, before: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    column_of = dataset.column_of
    named = {column.name for column in map(column_of, given) if column}
    unchanged = {
        heading: value
        for heading, value in before.items()
        if (column := column_of(heading)) and column.name not in named
    }
    return {**unchanged, **given}


def _unsound(dataset: Dataset, row: QuarantinedRow) -> InvalidInput:
    name, _, says = row.message.partition(": ")
    if name not in dataset.names:
        name, says = "raw", row.message
    return InvalidInput(f"Still unsound ({row.reason}): {row.message}", errors=(FieldError(name, says),))


def _sum(left: RetryReport, right: RetryReport) -> RetryReport:
    added = {
        name: _merged(getattr(left, name), getattr(right, name)) for name in RetryReport.__struct_fields__
    }
    return RetryReport(**added)


def _merged(left: Any, right: Any) -> Any:
    if isinstance(left, int):
        return left + right
    return {name: left.get(name, 0) + right.get(name, 0) for name in sorted({*left, *right})}


async def _note(
    tx: Transaction, action: str, before: QuarantinedRow, after: QuarantinedRow, actor: Actor
) -> None:
    states = {"before": audit.digest(before), "after": audit.digest(after)}
    await audit.record(tx, actor, action, str(before.id), **states)


async def _csv_line(cells: Sequence[str]) -> bytes:
    """Encode a line with guarded cells. A thread encodes long lines to keep the event loop free."""
    if sum(map(len, cells)) < WRITE_HERE:
        return _guarded_line(cells)
    return await asyncio.to_thread(_guarded_line, cells)


def _guarded_line(cells: Sequence[str]) -> bytes:
    return (",".join(quoted(guarded(cell)) for cell in cells) + "\r\n").encode()
