"""Keep each distinct result, behind the callers: a run only leaves a note here.

Equal results cost a comparison of ETags and no statement. A result that changes again and again is kept
`BURST` times at once and then every `PAUSE_S` seconds: what lies between is counted and left out.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import structlog
from msgspec import Struct

from service.database.gateway import Database
from service.errors import DatabaseUnavailable, Problem
from service.history import store
from service.history.causes import TableOf
from service.history.store import Confirmed, Fresh, read_result, series_key
from service.metrics.catalog import Catalog
from service.metrics.execute import Executor
from service.metrics.plans import ResultKey
from service.results.cache import Results
from service.results.changes import Changes
from service.results.table import Entry

BURST: Final = 10
PAUSE_S: Final = 30.0
RETRY_S: Final = 2.0
END_S: Final = 0.5
NEW_AT_ONCE: Final = 200
NEW_PAUSE_S: Final = 0.2
"""So many series that this process does not know begin at once, then one in this time, for callers may send
ever new parameters. Another one begins with a later run."""
TIDY_S: Final = 600.0
MOST_KNOWN: Final = 4096
PENDING_BYTES: Final = 32 << 20
AT_ONCE: Final = 1 << 16
"""Bytes of a result that is read on the event loop. A larger one is read in a thread."""

Series = tuple[UUID, bytes]
"""A metric and the key of its bound statement."""
_log: Final = structlog.get_logger("history")


class Allowance(Struct):
    """So many at once, and then one in every `pause_s` seconds."""

    left: float
    pause_s: float
    most: float
    at: float = 0.0

    def at_time(self, now: float) -> float:
        return min(self.most, self.left + (now - self.at) / self.pause_s)

    def take(self, now: float) -> None:
        self.left, self.at = self.at_time(now) - 1, now


class Known(Struct):
    """What this process knows of a series: the result that is kept, and how many more may be kept."""

    key: bytes
    etag: str
    confirmed: Confirmed
    cached: ResultKey
    allowance: Allowance


class Pending(Struct):
    """A result that is to be kept. `until` is when its run had ended (epoch seconds)."""

    key: ResultKey
    entry: Entry
    until: float
    left_out: int = 0


class Recorder:
    """Keeps results of this process's runs. `most` is how many of a series; 0 keeps none.

    Results that depend on the caller's claims are never kept. `now` is the wall clock.
    """

    def __init__(
        self,
        database: Database,
        catalog: Catalog,
        executor: Executor,
        results: Results,
        *,
        changes: Changes,
        table_of: TableOf,
        most: int,
        older_s: int,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._catalog = catalog
        self._executor = executor
        self._results = results
        self._changes = changes
        self._table_of = table_of
        self._most = most
        self._older_s = older_s
        self._now = now
        self._known: OrderedDict[Series, Known] = OrderedDict()
        self._new = Allowance(NEW_AT_ONCE, NEW_PAUSE_S, NEW_AT_ONCE)
        self._pending: dict[Series, Pending] = {}
        self._pending_bytes = 0
        self._wake = asyncio.Event()

    # Notes, while callers wait

    def stored(self, entry: Entry) -> None:
        """Take note of a result."""
        key = entry.key
        if not isinstance(key, ResultKey) or key.form != "json" or not entry.shared or entry.request is None:
            return
        series: Series = (entry.request.owner, key.bound)
        known, etag = self._known.get(series), entry.etag
        if known is not None and known.etag == etag:
            known.confirmed = Confirmed(known.confirmed.digest, self._made_at(entry), known.confirmed.version)
            known.cached = key
            self._drop(series)
            return
        if known is None and series not in self._pending:
            if self._new.at_time(now := self._results.clock()) < 1:
                return
            self._new.take(now)
        left_out = 0
        if (before := self._drop(series)) is not None:
            is_same = before.entry.etag == etag
            left_out = before.left_out + (not is_same)
        if self._pending_bytes + entry.weight > PENDING_BYTES and self._pending:
            return
        self._pending[series] = Pending(key, entry, self._now(), left_out)
        self._pending_bytes += entry.weight
        if before is None:  # else its turn is known
            self._wake.set()

    def _drop(self, series: Series) -> Pending | None:
        pending = self._pending.pop(series, None)
        if pending is not None:
            self._pending_bytes -= pending.entry.weight
        return pending

    def _made_at(self, entry: Entry) -> datetime:
        age_s = self._results.clock() - entry.policy.made_at
        return datetime.fromtimestamp(self._now() - age_s, UTC)

    # What happens behind them

    async def keep(self) -> None:
        """Run until cancelled."""
        if not self._most:
            return
        self._results.on_stored.append(self.stored)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tidy())
            while True:
                series, due = self._next()
                wait_s = due - self._results.clock()
                if series is None or wait_s > 0:
                    await self._sleep(None if series is None else wait_s)
                elif not await self._apart(series):
                    await asyncio.sleep(RETRY_S)

    async def _sleep(self, wait_s: float | None) -> None:
        self._wake.clear()
        try:
            async with asyncio.timeout(wait_s):
                await self._wake.wait()
        except TimeoutError:
            pass

    def _next(self) -> tuple[Series | None, float]:
        """The series whose turn comes first, and when."""
        found: tuple[Series | None, float] = (None, 0.0)
        now = self._results.clock()
        for series in self._pending:
            due = self._due(series, now)
            if due <= now:
                return series, due
            if found[0] is None or due < found[1]:
                found = series, due
        return found

    def _due(self, series: Series, now: float) -> float:
        known = self._known.get(series)
        if known is None:
            return now
        missing = 1 - known.allowance.at_time(now)
        return now if missing <= 0 else now + missing * known.allowance.pause_s

    async def _apart(self, series: Series) -> bool:
        """Keep what waits for a series. At the end of the service it is left soon: where the database hangs,
        the transaction's rollback lasts until the pool drops its connection.
        """
        task = asyncio.get_running_loop().create_task(self._kept(series))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.cancel()
            task.add_done_callback(_retrieve)
            await asyncio.wait([task], timeout=END_S)
            raise

    async def _kept(self, series: Series) -> bool:
        """Keep what waits for a series. False if it is to be tried again."""
        pending = self._drop(series)
        assert pending is not None, "chosen without a pause since"
        try:
            await self._record(series, pending)
        except DatabaseUnavailable:
            if series not in self._pending:
                self._pending[series] = pending
                self._pending_bytes += pending.entry.weight
            return False
        except Problem:  # the metric is gone or broken
            return True
        except Exception as error:  # noqa: BLE001 (logged with its traceback)
            _log.exception("a result could not be kept", metric=str(series[0]), error=repr(error))
        return True

    async def _record(self, series: Series, pending: Pending) -> None:
        entry = pending.entry
        plan = await self._executor.prepare(self._catalog.get(series[0]))
        if plan.fingerprint != pending.key.fingerprint or plan.description.per_caller:
            return  # redefined since: its new result comes
        is_large = len(entry.body) > AT_ONCE
        kept = await asyncio.to_thread(read_result, entry.body) if is_large else read_result(entry.body)
        known = self._known.get(series)
        confirmed = Confirmed(kept.digest, self._made_at(entry), plan.metric.version)
        if known is not None and known.confirmed.digest == kept.digest:
            known.etag, known.confirmed, known.cached = entry.etag, confirmed, pending.key
            return
        key = series_key(plan, series[1])
        fresh = Fresh(
            plan=plan,
            kept=kept,
            until=datetime.fromtimestamp(pending.until, UTC),
            unwatched=self._changes.unwatched(plan.dependencies.followed),
            left_out=pending.left_out,
        )
        is_newest = await store.keep(
            self._database,
            key,
            fresh,
            None if known is None else known.confirmed,
            most=self._most,
            log=self._results.generations.commits,
            table_of=self._table_of,
        )
        if is_newest:
            allowance = Allowance(BURST, PAUSE_S, BURST) if known is None else known.allowance
            allowance.take(self._results.clock())
            self._remember(series, Known(key, entry.etag, confirmed, pending.key, allowance))

    def _remember(self, series: Series, known: Known) -> None:
        self._known.pop(series, None)
        self._known[series] = known
        if len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)

    async def _tidy(self) -> None:
        """Note what was asked for, and forget what is old, every `TIDY_S` seconds."""
        while True:
            await asyncio.sleep(TIDY_S)
            since = self._results.clock() - TIDY_S
            asked = {
                series: held
                for series, known in self._known.items()
                if (held := self._results.table.peek(known.cached)) is not None and held.asked_at > since
            }
            try:
                if asked:
                    await store.touch(self._database, [(each[0], self._known[each].key) for each in asked])
                    self._begin_again(asked, await store.lost(self._database, {each[0] for each in asked}))
                await store.tidy(self._database, self._older_s)
            except Problem:
                continue

    def _begin_again(self, asked: Mapping[Series, Entry], lost: Collection[UUID]) -> None:
        """Keep the present results of metrics whose histories were emptied, such as by a restore."""
        for series, held in asked.items():
            if series[0] in lost:
                self._known.pop(series, None)
                self.stored(held)


def _retrieve(task: asyncio.Task[bool]) -> None:
    """Take the outcome of a task that nobody waits for any more."""
    if not task.cancelled():
        task.exception()
