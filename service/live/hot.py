"""Refresh what pollers asked for a moment ago as soon as its tables change, before anybody asks again."""

import asyncio
from collections.abc import Hashable
from contextlib import suppress
from math import inf
from typing import Final

from service.errors import Problem
from service.http.current_caller import current_caller
from service.results.cache import Results
from service.results.feed import Change, Subscription
from service.results.table import Entry

SIDE_BY_SIDE: Final = 2
MOST: Final = 4096
"""Results that are looked after. When they are twice as many, the least asked are left out, all at once."""


class HotResults:
    """Runs hot results again, the most asked first, `SIDE_BY_SIDE` at a time.

    A change that comes meanwhile begins the choice anew: when there are more than can be run between two
    changes, the least asked are left out, and their next caller runs them.
    """

    def __init__(self, results: Results, hot_for_s: float) -> None:
        self._results = results
        self._hot_for_s = hot_for_s
        self._by_table: dict[str, dict[Hashable, None]] = {}
        self._known: dict[Hashable, tuple[str, ...]] = {}
        self._wanted: dict[Hashable, None] = {}
        self._wake = asyncio.Event()

    def stored(self, entry: Entry) -> None:
        """Look after an entry that was stored, if a change can end its freshness."""
        if entry.request is None or not entry.request.tables or entry.key in self._known:
            return
        self._known[entry.key] = entry.request.tables
        for table in entry.request.tables:
            self._by_table.setdefault(table, {})[entry.key] = None
        if len(self._known) > 2 * MOST:
            self._leave_out(entry.key)

    async def keep(self, changes: Subscription) -> None:
        """Run until cancelled."""
        if not self._hot_for_s:
            return
        self._results.on_stored.append(self.stored)
        current_caller.set(None)
        async with asyncio.TaskGroup() as group:
            for _ in range(SIDE_BY_SIDE):
                group.create_task(self._run())
            async for change in changes:
                self._choose(change)

    def _choose(self, change: Change) -> None:
        """Want all hot results of the changed tables, the most asked first."""
        keys = {key for table in change.tables for key in self._by_table.get(table, ())}
        wanted = [entry for key in keys.union(self._wanted) if (entry := self._hot(key)) is not None]
        wanted.sort(key=_asked, reverse=True)
        self._wanted = {entry.key: None for entry in wanted}
        if wanted:
            self._wake.set()

    def _hot(self, key: Hashable) -> Entry | None:
        """The entry if it was asked for a moment ago and has to be run again. A cold one is forgotten."""
        entry = self._hot_entry(key)
        if entry is None:
            self._drop(key)
            return None
        policy, generations = entry.policy, self._results.generations
        suspect = policy.basis.epoch != generations.epoch or policy.fresh_until <= policy.made_at
        return None if suspect or generations.stands(policy.basis) else entry

    def _leave_out(self, newest: Hashable) -> None:
        """Forget the least asked."""
        others = [key for key in self._known if key != newest]
        others.sort(key=self._times_asked)
        for key in others[: len(self._known) - MOST]:
            self._drop(key)

    def _times_asked(self, key: Hashable) -> int:
        entry = self._hot_entry(key)
        return -1 if entry is None else entry.requests

    def _hot_entry(self, key: Hashable) -> Entry | None:
        """The entry if it was asked for a moment ago."""
        entry = self._results.table.peek(key)
        if entry is None or entry.request is None:
            return None
        return entry if self._results.clock() - entry.asked_at <= self._hot_for_s else None

    def _drop(self, key: Hashable) -> None:
        for table in self._known.pop(key, ()):
            keys = self._by_table.get(table, {})
            keys.pop(key, None)
            if not keys:
                self._by_table.pop(table, None)

    async def _run(self) -> None:
        while True:
            now = self._results.clock()
            key, due = self._next(now)
            if due > now:
                self._wake.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(None if due == inf else due - now):
                        await self._wake.wait()
                continue
            self._wanted.pop(key, None)
            entry = self._hot(key)
            if entry is not None and entry.request is not None:
                with suppress(Problem):  # its next caller gets the problem
                    await self._results.refreshed(entry.request)

    def _next(self, now: float) -> tuple[Hashable, float]:
        """The most asked result that may run now, or else the first that may, and when."""
        soonest: tuple[Hashable, float] = (None, inf)
        for key in tuple(self._wanted):
            entry = self._results.table.peek(key)
            if entry is None or entry.request is None:
                return key, now
            due = entry.policy.made_at + entry.request.refresh_every_s
            if due <= now:
                return key, now
            if due < soonest[1]:
                soonest = key, due
        return soonest


def _asked(entry: Entry) -> int:
    return entry.requests
