"""What Prometheus cannot count from events: the state of pools, caches and streams, read once a second."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from math import inf
from typing import Final

from service.database.gateway import Database
from service.database.stored_sql.reader import Reader
from service.errors import Problem
from service.http.scrapes import Scraped, prefers_openmetrics, scraped
from service.imports.quarantine import COUNT_OPEN, OpenRows
from service.live.hub import Hub
from service.observe import families
from service.observe.counters import OTHER
from service.observe.prometheus import Gauge, Prometheus
from service.results.cache import Results

PUBLISH_EVERY_S: Final = 1.0
COUNT_EVERY_S: Final = 15.0
"""The least pause between two counts of the open rows, however often somebody scrapes."""
COUNT_WAIT_S: Final = 2.0


class Monitor:
    """Publishes the gauges of this worker, and writes the text of all."""

    def __init__(
        self, prometheus: Prometheus, results: Results, hub: Hub, database: Database, reader: Reader
    ) -> None:
        self._prometheus = prometheus
        self._results = results
        self._hub = hub
        self._database = database
        self._reader = reader
        self._began = results.clock()
        self._open: list[Gauge] = []
        self._counted_at = -inf
        self._counting = asyncio.Lock()

    async def keep(self) -> None:
        """Publish once a second until cancelled."""
        try:
            while True:
                self._publish()
                await asyncio.sleep(PUBLISH_EVERY_S)
        finally:
            self._prometheus.end()

    async def scrape(self, accept: str) -> Scraped:
        """The metrics of all workers."""
        openmetrics = prefers_openmetrics(accept)
        open_rows = await self._open_rows()
        self._publish()
        text = self._prometheus.text(open_rows, openmetrics=openmetrics)
        return scraped(text, openmetrics=openmetrics)

    def _publish(self) -> None:
        self._prometheus.publish(self._gauges())

    def _gauges(self) -> Iterator[Gauge]:
        for role, usage in (("owner", self._database.usage), ("reader", self._reader.usage)):
            yield families.POOL_CONNECTIONS, (role, "used"), usage.used
            yield families.POOL_CONNECTIONS, (role, "idle"), usage.idle
        yield families.POOL_WAITING, (), self._reader.usage.waiting
        yield families.WATCHERS, (), len(self._hub.connections)
        yield families.RESULT_BYTES, (), self._results.table.weight
        since, now = self._results.generations.silent_since, self._results.clock()
        yield families.CHANGE_LAG, (), 0.0 if since is None else now - max(since, self._began)

    async def _open_rows(self) -> list[Gauge]:
        """Open quarantined rows; nothing while the database does not answer in time."""
        async with self._counting:
            if self._results.clock() >= self._counted_at + COUNT_EVERY_S:
                self._open = []
                with suppress(Problem, TimeoutError):
                    async with asyncio.timeout(COUNT_WAIT_S):
                        rows = await self._database.read(COUNT_OPEN)
                    self._open = _bounded(rows)
                self._counted_at = self._results.clock()
            return self._open


def _bounded(rows: list[OpenRows]) -> list[Gauge]:
    """The gauges of the largest datasets, and the sum of all others."""
    largest = sorted(rows, key=lambda each: each.number, reverse=True)
    first, rest = largest[: families.QUARANTINE_OPEN.most], largest[families.QUARANTINE_OPEN.most :]
    gauges: list[Gauge] = [(families.QUARANTINE_OPEN, (each.dataset,), each.number) for each in first]
    if rest:
        gauges.append((families.QUARANTINE_OPEN, (OTHER,), sum(each.number for each in rest)))
    return gauges
