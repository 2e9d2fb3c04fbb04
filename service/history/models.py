"""The Structs of the history of results, in the database and in the API."""

from datetime import datetime
from typing import Any
from uuid import UUID

from msgspec import Struct

from service.database.stored_sql.describing import ResultColumn


class ImportCause(Struct, frozen=True, tag_field="kind", tag="import"):
    """An import wrote to tables that the metric reads; `id` is that of its run."""

    id: UUID | None
    dataset: str
    source: str | None
    rows_read: int
    inserted: int
    updated: int
    gone: int
    actor: str | None
    at: datetime


class CommitCause(Struct, frozen=True, tag_field="kind", tag="commit"):
    """A transaction changed tables that the metric reads.

    `actor`, `action` and `target` are from the audit log. Without `transaction` nobody announced it:
    Postgres's counters showed it some seconds later.
    """

    tables: tuple[str, ...]
    at: datetime
    transaction: int | None = None
    actor: str | None = None
    action: str | None = None
    target: str | None = None


class DefinitionCause(Struct, frozen=True, tag_field="kind", tag="definition"):
    """The metric was changed, from version `before` to `version`."""

    version: int
    before: int
    at: datetime
    actor: str | None = None


class MigrationCause(Struct, frozen=True, tag_field="kind", tag="migration"):
    """A migration of Tally's own was applied."""

    id: str
    at: datetime


class RedefinitionCause(Struct, frozen=True, tag_field="kind", tag="redefinition"):
    """Tables or views changed in their definition or rights, or kinds of things such as `functions`."""

    names: tuple[str, ...]
    at: datetime


class TimeCause(Struct, frozen=True, tag_field="kind", tag="time"):
    """Nothing changed but the clock, on which the metric depends."""


class UnwatchedCause(Struct, frozen=True, tag_field="kind", tag="unwatched"):
    """These tables announce no commits, so it is unknown who changed them, and when."""

    tables: tuple[str, ...]


class UnknownCause(Struct, frozen=True, tag_field="kind", tag="unknown"):
    """Not all that happened is known; `why` says why."""

    why: str


Cause = (
    ImportCause
    | CommitCause
    | DefinitionCause
    | MigrationCause
    | RedefinitionCause
    | TimeCause
    | UnwatchedCause
    | UnknownCause
)


class Retyped(Struct, frozen=True):
    name: str
    before: str
    after: str


class ChangedColumns(Struct, frozen=True):
    added: tuple[ResultColumn, ...]
    removed: tuple[ResultColumn, ...]
    retyped: tuple[Retyped, ...]


class RowTotals(Struct, frozen=True):
    """How many rows."""

    added: int
    removed: int
    changed: int
    unchanged: int


class ChangedValue(Struct, frozen=True):
    """`delta` is `after - before`, exactly; null unless both are numbers."""

    column: str
    before: Any
    after: Any
    delta: Any


class ChangedRow(Struct, frozen=True):
    key: dict[str, Any]
    values: tuple[ChangedValue, ...]


class RowDifference(Struct, frozen=True):
    """What differs in the rows, and in the columns.

    `compared` are the columns of both results, and `keys` those of them that identify a row; null if none
    do, and then rows are compared whole. `totals` counts all rows; of each kind at most 100 are listed.
    `reordered`: the rows are the same, in another order or notation.
    """

    compared: tuple[ResultColumn, ...]
    keys: tuple[str, ...] | None
    columns: ChangedColumns
    totals: RowTotals
    added: tuple[dict[str, Any], ...]
    removed: tuple[dict[str, Any], ...]
    changed: tuple[ChangedRow, ...]
    reordered: bool


class HistoryItem(Struct, frozen=True, kw_only=True):
    """A result, with what made it differ from the one before. All `causes` happened after `since`.

    `since` is when the result before was last known to be the present one. `left_out` counts results
    between the two that were not kept. `difference` is null for the first result, and where
    `difference_note` says why.
    """

    id: int
    as_of: datetime
    since: datetime | None
    version: int
    row_count: int
    truncated: bool
    left_out: int
    causes: tuple[Cause, ...]
    difference: RowDifference | None
    difference_note: str | None


class History(Struct, frozen=True, kw_only=True):
    """The last distinct results of a metric, newest first. `note` says why there may be none."""

    id: UUID
    title: str | None
    items: list[HistoryItem]
    next_cursor: str | None
    note: str | None
