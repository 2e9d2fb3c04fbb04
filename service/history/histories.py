"""Read the history of a metric, with the differences between its results."""

import asyncio
from collections import OrderedDict
from collections.abc import Collection, Iterable, Sequence
from itertools import islice
from typing import Any, Final
from uuid import UUID

import msgspec
from msgspec import Raw

from service.database.gateway import Database
from service.database.stored_sql.describing import ResultColumn
from service.history import store
from service.history.difference import (
    Changed,
    Difference,
    Row,
    Table,
    cell,
    difference,
    shown,
)
from service.history.models import (
    Cause,
    ChangedColumns,
    ChangedRow,
    ChangedValue,
    CommitCause,
    DefinitionCause,
    History,
    HistoryItem,
    ImportCause,
    Retyped,
    RowDifference,
    RowTotals,
)
from service.history.store import Stored, series_key, unpacked
from service.http import bodies
from service.metrics.catalog import Catalog
from service.metrics.execute import Executor

SHOWN_ROWS: Final = 100
IMPORTS: Final = "imports:write"
MEMORY_BYTES: Final = 4 << 20
OFF: Final = "No history is kept: HISTORY_RESULTS is 0."
PER_CALLER: Final = (
    "No history is kept: the rows depend on the caller, and a stored result might be read by others."
)
NONE_YET: Final = "No result is kept yet: the next run of the metric begins its history."
TOO_LARGE: Final = "too large to be kept whole, so their rows cannot be compared"
TOO_LONG: Final = "A number has too many digits to be compared."

_COLUMNS: Final = msgspec.json.Decoder(list[ResultColumn])
_CAUSES: Final = msgspec.json.Decoder(tuple[Cause, ...])
_RECORDS: Final = msgspec.json.Decoder(list[dict[str, Any]], float_hook=bodies.exact)


class Histories:
    """Reads histories. A difference is computed when somebody asks, in a thread, one at a time."""

    def __init__(self, database: Database, catalog: Catalog, executor: Executor, *, most: int) -> None:
        self._database = database
        self._catalog = catalog
        self._executor = executor
        self._most = most
        self._one = asyncio.Semaphore()
        self._computed: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self._computed_bytes = 0

    async def page(
        self,
        metric_id: UUID,
        given: Sequence[tuple[str, str]],
        *,
        before: int,
        limit: int,
        scopes: Collection[str],
    ) -> tuple[History, int | None]:
        """Up to `limit` results with ids below `before`, and where the next page begins.

        Causes are shown as far as the scopes allow: people as in the audit log, files as in the list
        of imports.

        Raises the problems of the metric and its parameters, as its result would.
        """
        metric = self._catalog.get(metric_id)
        plan = await self._executor.prepare(metric)
        key = series_key(plan, plan.template.bind(given).key)
        found: list[Stored] = []
        note = OFF if not self._most else None
        if plan.description.per_caller:  # also those that were kept before that
            note = PER_CALLER
        elif self._most:
            found = await store.page(self._database, metric_id, key, before, limit + 1)
            note = None if found else NONE_YET
        items = [
            await self._item(each, earlier, scopes)
            for each, earlier in zip(found[:limit], [*found[1:], None], strict=False)
        ]
        following = found[limit - 1].id if len(found) > limit else None
        title = metric.shown_title
        return History(id=metric_id, title=title, items=items, next_cursor=None, note=note), following

    async def _item(self, result: Stored, before: Stored | None, scopes: Collection[str]) -> HistoryItem:
        causes: Any = Raw(_allowed(result.causes, scopes))  # encoded already
        compared: Any = None
        note = None
        if before is not None:
            compared, note = await self._compared(before, result)
        return HistoryItem(
            id=result.id,
            as_of=result.as_of,
            since=result.since,
            version=result.version,
            row_count=result.row_count,
            truncated=result.truncated,
            left_out=result.left_out,
            causes=causes,
            difference=compared,
            difference_note=note,
        )

    async def _compared(self, before: Stored, after: Stored) -> tuple[Raw | None, str | None]:
        if before.body is None or after.body is None:
            large = f"{before.row_count} rows before and {after.row_count} after are {TOO_LARGE}."
            return None, large
        pair = (before.id, after.id)
        known = self._computed.get(pair)
        if known is None:
            bodies = (before.body, before.size), (after.body, after.size)
            async with self._one:
                known = await asyncio.to_thread(compared, *bodies)
            self._remember(pair, known)
        return (Raw(known), None) if known else (None, TOO_LONG)

    def _remember(self, pair: tuple[int, int], computed: bytes) -> None:
        if pair not in self._computed:
            self._computed[pair] = computed
            self._computed_bytes += len(computed)
        while self._computed_bytes > MEMORY_BYTES:
            _, oldest = self._computed.popitem(last=False)
            self._computed_bytes -= len(oldest)


def _allowed(causes: str, scopes: Collection[str]) -> bytes:
    """Causes as somebody with these scopes may read them."""
    if "admin" in scopes and IMPORTS in scopes:
        return causes.encode()
    found: list[Cause] = []
    for cause in _CAUSES.decode(causes):
        shown_cause = cause
        if isinstance(shown_cause, ImportCause) and IMPORTS not in scopes:
            shown_cause = msgspec.structs.replace(shown_cause, id=None, source=None)
        if isinstance(shown_cause, ImportCause | DefinitionCause) and "admin" not in scopes:
            shown_cause = msgspec.structs.replace(shown_cause, actor=None)
        if isinstance(shown_cause, CommitCause) and "admin" not in scopes:
            shown_cause = msgspec.structs.replace(shown_cause, actor=None, action=None, target=None)
        found.append(shown_cause)
    return msgspec.json.encode(found)


def compared(before: tuple[bytes, int], after: tuple[bytes, int]) -> bytes:
    """The difference of two stored bodies, each with its size, as JSON; empty if they cannot be read."""
    try:
        old, new = _table(*before), _table(*after)
    except msgspec.ValidationError:  # an integer of thousands of digits
        return b""
    return bodies.encode(_shown(difference(old, new)))


def _table(body: bytes, size: int) -> Table:
    columns, records = unpacked(body, size)
    names = tuple(_COLUMNS.decode(columns))
    found = _RECORDS.decode(records)
    return Table(names, [tuple([cell(record.get(each.name)) for each in names]) for record in found])


def _shown(found: Difference) -> RowDifference:
    """The difference as it is shown: some rows of each kind, and the totals."""
    names = [column.name for column in found.compared]
    return RowDifference(
        compared=found.compared,
        keys=None if found.keys is None else tuple(names[at] for at in found.keys),
        columns=ChangedColumns(
            found.added_columns, found.removed_columns, tuple(Retyped(*each) for each in found.retyped)
        ),
        totals=RowTotals(len(found.added), len(found.removed), len(found.changed), found.unchanged),
        added=_records(names, found.added),
        removed=_records(names, found.removed),
        changed=tuple(_changed(names, found.keys or (), each) for each in found.changed[:SHOWN_ROWS]),
        reordered=found.reordered,
    )


def _records(names: Sequence[str], rows: Iterable[Row]) -> tuple[dict[str, Any], ...]:
    return tuple(
        {name: shown(value) for name, value in zip(names, row, strict=True)}
        for row in islice(rows, SHOWN_ROWS)
    )


def _changed(names: Sequence[str], keys: Sequence[int], row: Changed) -> ChangedRow:
    return ChangedRow(
        {names[at]: shown(value) for at, value in zip(keys, row.key, strict=True)},
        tuple(
            ChangedValue(names[at], shown(before), shown(after), row.delta(nth))
            for nth, (at, before, after) in enumerate(row.values)
        ),
    )
