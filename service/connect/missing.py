"""Run the results that scrapes have missed, so that the next ones find them.

A scrape runs nothing and waits for nothing. After a start or a redefinition no result is held, though, and
one that only time bounds ends without a change. What was missed is run behind the scrape, one at a time.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, NamedTuple
from uuid import UUID

from service.errors import Problem
from service.http.current_caller import current_caller
from service.metrics.catalog import Catalog
from service.metrics.execute import Executor
from service.results.cache import Results

MOST: Final = 4096
"""Results that are wanted or were tried a moment ago. Past them the oldest are forgotten."""
LONGEST: Final = 1000
"""Characters of the parameters of one."""
PAUSE_S: Final = 10.0
PAUSE_AFTER_FAILURE_S: Final = 60.0


class Missed(NamedTuple):
    """A result: the parameters of the scrape that its metric may take, and the caller's claims."""

    metric_id: UUID
    given: tuple[tuple[str, str], ...]
    claims: str


class MissingResults:
    """Runs what scrapes have missed. `active`: not if HOT_FOR_S is 0, for then no result is refreshed."""

    def __init__(
        self,
        catalog: Catalog,
        executor: Executor,
        results: Results,
        clock: Callable[[], float],
        *,
        active: bool,
    ) -> None:
        self._catalog = catalog
        self._executor = executor
        self._results = results
        self._clock = clock
        self._active = active
        self._wanted: OrderedDict[Missed, None] = OrderedDict()
        self._not_before: OrderedDict[Missed, float] = OrderedDict()
        self._wake = asyncio.Event()

    def want(self, missed: Missed) -> None:
        """Run it soon, unless that was tried a moment ago, or its parameters are too long to be kept."""
        if sum(len(name) + len(value) for name, value in missed.given) > LONGEST:
            return
        if not self._active or self._not_before.get(missed, 0.0) > self._clock():
            return
        self._wanted[missed] = None
        if len(self._wanted) > MOST:
            self._wanted.popitem(last=False)
        self._wake.set()

    async def keep(self) -> None:
        """Run until cancelled."""
        current_caller.set(None)
        while True:
            await self._wake.wait()
            while self._wanted:
                missed, _ = self._wanted.popitem(last=False)
                pause_s = PAUSE_S
                try:
                    await self._run(missed)
                except Problem:  # its next reader gets the problem
                    pause_s = PAUSE_AFTER_FAILURE_S
                self._not_before.pop(missed, None)
                self._not_before[missed] = self._clock() + pause_s
                if len(self._not_before) > MOST:
                    self._not_before.popitem(last=False)
            self._wake.clear()

    async def _run(self, missed: Missed) -> None:
        metric = self._catalog.get(missed.metric_id)
        accepted = (await self._executor.prepare(metric)).template.accepted
        taken = [(name, value) for name, value in missed.given if name in accepted]
        request = await self._executor.cache_request(metric, taken, claims=missed.claims)
        await self._results.refreshed(request)
