"""Suspend a statement after Postgres twice failed to stop it on cancellation.

A statement is identified by its text, so another metric or other parameters do not resume it. The catalogue
stores the count, so the suspension holds on every worker and node and after a restart.
"""

import asyncio
from collections import Counter
from functools import partial
from hashlib import sha256
from typing import Final
from uuid import UUID

from msgspec import Struct

from service import audit
from service.audit import CLI, Actor
from service.database.gateway import Database
from service.database.stored_sql.limiter import Watch
from service.errors import MetricSuspended, NotFound, Problem
from service.metrics.catalog import SQL, Catalog, Suspended
from service.metrics.models import Metric
from service.observe.events import MetricLingered, Observe, StatementSuspended, ignore

TIMES: Final = 2
RECORD_S: Final = 2.0
"""Seconds that a reader slot waits until its lingering statement is recorded."""
UNWRITTEN_S: Final = 60.0
"""Seconds that this worker keeps its own count if it cannot record the statement."""
DRAFT: Final = UUID(int=0)
"""The id of a metric that is not stored."""

_RETRY: Final = {"Retry-After": "60"}


class _Times(Struct, frozen=True):
    times: int


_RECORD: Final = SQL.rows("record_lingering", _Times)
_FORGET: Final = SQL.command("forget_lingering")
_RESUME: Final = SQL.command("resume_metric")


class _Found(Struct, frozen=True):
    id: UUID


_HOLD: Final = SQL.rows("hold_metric", _Found)


class Suspensions:
    """The suspended statements. The reader checks and reports statements through `watch`."""

    def __init__(self, database: Database, catalog: Catalog, observe: Observe = ignore) -> None:
        self._database = database
        self._catalog = catalog
        self._unwritten: Counter[Suspended] = Counter()
        self._observe = observe

    def watch(self, metric: Metric, *, planning: bool = False) -> Watch:
        """Watch a metric's statement while it is planned or run. The metric need not be stored."""
        key = Suspended(sha256(metric.sql.encode()).digest(), planning)
        return Watch(partial(self._check, key, metric.id), partial(self._lingered, key, metric.id), metric.id)

    def __len__(self) -> int:
        """How many statements are suspended."""
        return len({each.sql_hash for each in self._catalog.suspended})

    def _check(self, key: Suspended, metric_id: UUID) -> None:
        if key in self._catalog.suspended or (self._unwritten and self._unwritten[key] >= TIMES):
            released = "change its SQL"
            if metric_id != DRAFT:
                released += f", or let an operator run `tally metric resume {metric_id}`"
            message = f"Postgres could not stop this SQL in time, twice, so it is set aside: {released}."
            raise MetricSuspended(message, headers=_RETRY)

    async def _lingered(self, key: Suspended, metric_id: UUID) -> None:
        """Count a lingering statement here and in the catalogue, and tell the operator."""
        self._unwritten[key] += 1
        times = self._unwritten[key]
        try:
            async with asyncio.timeout(RECORD_S):
                times = await self._record(key, metric_id)
                await self._catalog.load()
        except (TimeoutError, Problem):
            loop = asyncio.get_running_loop()
            loop.call_later(UNWRITTEN_S, self._written, key)
        else:
            self._written(key)
        name = None if metric_id == DRAFT else str(metric_id)
        doing = "planned" if key.planning else "run"
        if times < TIMES:
            self._observe(MetricLingered(name, doing, times))
        else:
            self._observe(StatementSuspended(name, doing, times, _RELEASE))

    def _written(self, key: Suspended) -> None:
        self._unwritten[key] -= 1
        if not self._unwritten[key]:
            del self._unwritten[key]

    async def _record(self, key: Suspended, metric_id: UUID) -> int:
        async with self._database.transaction() as tx:
            await tx.write(_FORGET)
            found = await tx.read_one(_RECORD, key.sql_hash, key.planning, metric_id)
            assert found is not None, "RETURNING gives the row"
            if found.times == TIMES:
                target = key.sql_hash.hex() if metric_id == DRAFT else str(metric_id)
                await audit.record(tx, Actor("tally"), "metrics.suspend", target)
        return found.times


_RELEASE: Final = "change its SQL, or run `tally metric resume ID`"


async def resume(database: Database, metric_id: UUID) -> bool:
    """Let a metric's SQL run again, in all metrics with this SQL. False if it was not suspended.

    Raises `NotFound`.
    """
    async with database.transaction() as tx:
        if await tx.read_one(_HOLD, metric_id) is None:
            raise NotFound(f"There is no metric {metric_id}.")
        if not await tx.write(_RESUME, metric_id):
            return False
        await audit.record(tx, CLI, "metrics.resume", str(metric_id))
    return True
