"""Distinct results in the database, a bounded number of them for each metric and its parameters."""

from collections.abc import Collection, Sequence
from datetime import datetime
from hashlib import blake2b
from typing import Final
from uuid import UUID

import msgspec
import zstandard
from msgspec import Raw, Struct

from service.database.gateway import Database, violation
from service.errors import NotFound
from service.history.causes import SQL, Between, TableOf, find_causes
from service.http.representation import compress
from service.metrics.plans import QueryPlan
from service.results.commits import CommitLog

SERIES: Final = 8
"""Sets of parameters of one metric beside its defaults."""
KEPT_BYTES: Final = 1 << 17
"""Compressed bytes of a result that is kept whole."""
COMPARED_BYTES: Final = 4 << 20
"""Bytes of a result that is kept whole, as JSON."""
SERIES_BYTES: Final = 1 << 20
ALL_BYTES: Final = 512 << 20
KEY_BYTES: Final = 16


class Document(Struct, frozen=True):
    """The parts of a result that its numbers are in."""

    columns: Raw
    records: list[Raw]
    row_count: int
    truncated: bool
    as_of: datetime


class Kept(Struct, frozen=True):
    """A result to keep. `body` is None if it is too large."""

    digest: bytes
    row_count: int
    truncated: bool
    as_of: datetime
    size: int
    body: bytes | None


class Stored(Struct, frozen=True):
    """A result of the history. `size` is that of columns and records as JSON."""

    id: int
    as_of: datetime
    since: datetime | None
    version: int
    row_count: int
    truncated: bool
    left_out: int
    size: int
    body: bytes | None
    causes: str


class Last(Struct, frozen=True):
    """The newest result of a series."""

    as_of: datetime
    digest: bytes
    version: int


class Confirmed(Struct, frozen=True):
    """When this process last knew a result to be the present one, and by which version of the metric."""

    digest: bytes
    at: datetime
    version: int


class Fresh(Struct, frozen=True, kw_only=True):
    """A result that was just made: by which plan, until when, and how many before it were not kept."""

    plan: QueryPlan
    kept: Kept
    until: datetime
    unwatched: tuple[str, ...]
    left_out: int


class _Id(Struct, frozen=True):
    id: int


class _Metric(Struct, frozen=True):
    id: UUID


_PUT_SERIES: Final = SQL.rows("put_series", _Id)
_LAST_RESULT: Final = SQL.rows("last_result", Last)
_INSERT_RESULT: Final = SQL.command("insert_result")
_PRUNE_RESULTS: Final = SQL.command("prune_results")
_PRUNE_SERIES: Final = SQL.command("prune_series")
_TOUCH_SERIES: Final = SQL.command("touch_series")
_FORGET_OLD: Final = SQL.command("forget_old")
_SHRINK: Final = SQL.command("shrink")
_FIND_LOST: Final = SQL.rows("find_lost", _Metric)
_FIND_SERIES: Final = SQL.rows("find_series", _Id)
_LIST_RESULTS: Final = SQL.rows("list_results", Stored)
_DOCUMENT: Final = msgspec.json.Decoder(Document)


def series_key(plan: QueryPlan, bound: bytes) -> bytes:
    """The key of a metric's series: empty for the defaults, so that they stay one through definitions."""
    template = plan.template
    has_defaults = all(name in template.defaults for name in template.kinds)
    if has_defaults and template.bind([]).key == bound:
        return b""
    return blake2b(bound, digest_size=KEY_BYTES).digest()


def read_result(body: bytes) -> Kept:
    """What is to be kept of a result's JSON. Results of the same rows in another order have one digest."""
    document = _DOCUMENT.decode(body)
    records = list(map(bytes, document.records))
    content = b"%s\n[%s]" % (bytes(document.columns), b",".join(records))
    truncated = b"1" if document.truncated else b"0"
    packed = compress(content, "zstd") if len(content) <= COMPARED_BYTES else None
    return Kept(
        digest=_digest(bytes(document.columns), truncated, *sorted(records)),
        row_count=document.row_count,
        truncated=document.truncated,
        as_of=document.as_of,
        size=len(content),
        body=packed if packed is not None and len(packed) <= KEPT_BYTES else None,
    )


def _digest(*parts: bytes) -> bytes:
    found = blake2b(digest_size=KEY_BYTES)
    for part in parts:
        found.update(part)
        found.update(b"\n")
    return found.digest()


def unpacked(body: bytes, size: int) -> tuple[bytes, bytes]:
    """Columns and records of a stored body, as JSON."""
    content = zstandard.ZstdDecompressor().decompress(body, max_output_size=size)
    columns, _, records = content.partition(b"\n")
    return columns, records


async def keep(
    database: Database,
    key: bytes,
    fresh: Fresh,
    confirmed: Confirmed | None,
    *,
    most: int,
    log: CommitLog,
    table_of: TableOf,
) -> bool:
    """Keep a result if it differs from the newest one of its series, and at most `most` of the series.

    Returns whether it is the newest one now; it is not if another process has kept a later one. Raises
    `NotFound` if the metric was deleted.
    """
    metric, kept = fresh.plan.metric, fresh.kept
    deleted = NotFound(f"There is no metric {metric.id}.")
    with violation("history_series_metric_id_fkey", deleted):
        async with database.transaction() as tx:
            (series,) = await tx.read(_PUT_SERIES, metric.id, key)
            last = await tx.read_one(_LAST_RESULT, series.id)
            if last is not None and last.digest == kept.digest:
                return True
            if last is not None and last.as_of >= kept.as_of:
                return False
            between = None if last is None else _between(fresh, last, confirmed)
            causes = [] if between is None else await find_causes(tx, between, log, table_of)
            await tx.write(
                _INSERT_RESULT,
                series.id,
                kept.as_of,
                None if between is None else between.since,
                kept.digest,
                metric.version,
                kept.row_count,
                kept.truncated,
                fresh.left_out,
                kept.size,
                kept.body,
                msgspec.json.encode(causes).decode(),
            )
            await tx.write(_PRUNE_RESULTS, series.id, most, SERIES_BYTES)
            await tx.write(_PRUNE_SERIES, metric.id, SERIES)
    return True


def _between(fresh: Fresh, last: Last, confirmed: Confirmed | None) -> Between:
    since, version = last.as_of, last.version
    if confirmed is not None and confirmed.digest == last.digest and confirmed.at > since:
        since, version = confirmed.at, confirmed.version
    plan = fresh.plan
    return Between(
        metric_id=plan.metric.id,
        since=since,
        until=fresh.until,
        versions=(version, plan.metric.version),
        updated_at=plan.metric.updated_at,
        tables=plan.dependencies.followed,
        watched=plan.dependencies.watched,
        unwatched=fresh.unwatched,
        timed=plan.dependencies.timed,
    )


async def touch(database: Database, asked: Sequence[tuple[UUID, bytes]]) -> None:
    """Note that these series were asked for; the database writes it at most once an hour for each."""
    await database.write(_TOUCH_SERIES, [metric for metric, _ in asked], [key for _, key in asked])


async def lost(database: Database, metrics: Collection[UUID]) -> set[UUID]:
    """Those of these metrics that have no history any more."""
    return {each.id for each in await database.read(_FIND_LOST, [*metrics])}


async def tidy(database: Database, older_s: int) -> None:
    """Drop results that were replaced more than `older_s` seconds ago, and what exceeds `ALL_BYTES`."""
    await database.write(_FORGET_OLD, older_s)
    await database.write(_SHRINK, ALL_BYTES)


async def page(database: Database, metric_id: UUID, key: bytes, before: int, limit: int) -> list[Stored]:
    """Up to `limit` results with ids below `before`, newest first."""
    series = await database.read_one(_FIND_SERIES, metric_id, key)
    if series is None:
        return []
    return await database.read(_LIST_RESULTS, series.id, before, limit)
