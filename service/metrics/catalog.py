"""All metrics in memory: read once, and again whenever the catalogue announces a change."""

import asyncio
from difflib import get_close_matches
from pathlib import Path
from typing import Final
from uuid import UUID

import msgspec
from msgspec import Struct

from service.database.gateway import Database
from service.database.queries import SqlFile
from service.errors import DatabaseUnavailable, NotFound
from service.metrics.models import Layout, Metric

DEFAULT_DASHBOARD: Final = "default"
CHANNEL: Final = "tally_catalog"


class LayoutItem(Struct, frozen=True):
    dashboard_id: str
    metric_id: UUID
    breakpoint: str
    x: int
    y: int
    w: int
    h: int
    static: bool


_SQL: Final = SqlFile(Path(__file__).with_name("queries.sql"))
_LIST_METRICS: Final = _SQL.rows("list_metrics", Metric)
_LIST_LAYOUT_ITEMS: Final = _SQL.rows("list_layout_items", LayoutItem)


class Catalog:
    """Metrics by id; until the first `load` succeeds every look-up raises `DatabaseUnavailable`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._metrics: dict[UUID, Metric] | None = None
        self._changed = asyncio.Event()

    def changed(self, _payload: str = "") -> None:
        """Note that the catalogue differs from what is held; `keep` reads it again."""
        self._changed.set()

    async def keep(self) -> None:
        """Read the catalogue whenever it changed, until cancelled; a burst of changes is one reading."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self.load()
            except DatabaseUnavailable:  # the listener announces a gap once the database is back
                await asyncio.sleep(0.1)

    async def load(self) -> None:
        layouts: dict[UUID, list[Layout]] = {}
        for item in await self._database.read(_LIST_LAYOUT_ITEMS):
            if item.dashboard_id == DEFAULT_DASHBOARD:
                place = Layout(item.breakpoint, item.x, item.y, item.w, item.h, item.static)
                layouts.setdefault(item.metric_id, []).append(place)
        self._metrics = {
            metric.id: msgspec.structs.replace(metric, layouts=tuple(layouts.get(metric.id, ())))
            for metric in await self._database.read(_LIST_METRICS)
        }

    def get(self, metric_id: UUID) -> Metric:
        """Raises `NotFound`, with the metric whose id looks most alike."""
        metrics = self._held()
        if metric := metrics.get(metric_id):
            return metric
        alike = get_close_matches(str(metric_id), map(str, metrics), n=1, cutoff=0.0)
        hint = ""
        if alike:
            nearest = metrics[UUID(alike[0])]
            hint = f" The nearest is {nearest.shown_title!r} ({nearest.id})."
        raise NotFound(f"There is no metric {metric_id}.{hint}")

    def page(self, after: UUID | None, limit: int) -> list[Metric]:
        """Up to `limit` + 1 metrics in the order of their ids; the extra one says that more follow."""
        metrics = self._held().values()
        return [metric for metric in metrics if after is None or metric.id > after][: limit + 1]

    def _held(self) -> dict[UUID, Metric]:
        if self._metrics is None:
            raise DatabaseUnavailable(headers={"Retry-After": "2"})
        return self._metrics
