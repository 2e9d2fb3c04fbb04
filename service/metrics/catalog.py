"""All metrics and dashboards in memory: read once, and again whenever the catalogue announces a change."""

import asyncio
from collections.abc import Callable, Hashable, Iterable
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
RETRY_S: Final = 0.2

SQL: Final = SqlFile(Path(__file__).with_name("queries.sql"))


class LayoutItem(Struct, frozen=True):
    dashboard_id: str
    metric_id: UUID
    breakpoint: str
    x: int
    y: int
    w: int
    h: int
    static: bool

    def layout(self) -> Layout:
        return Layout(self.breakpoint, self.x, self.y, self.w, self.h, self.static)


class DashboardRow(Struct, frozen=True):
    id: str
    title: str | None


class Named(Struct, frozen=True):
    name: str


class Suspended(Struct, frozen=True):
    """A statement that is set aside: the SHA-256 of its text, and whether it may not even be planned."""

    sql_hash: bytes
    planning: bool


class Dashboard(Struct, frozen=True):
    """A dashboard, where its metrics sit in reading order of each breakpoint, and each of them once."""

    id: str
    title: str | None
    places: tuple[LayoutItem, ...]
    metrics: tuple[Metric, ...]


class _Held(Struct, frozen=True):
    """One reading of the catalogue."""

    metrics: dict[UUID, Metric]
    dashboards: dict[str, Dashboard]
    functions: frozenset[str]
    suspended: frozenset[Suspended]
    database: str


_LIST_METRICS: Final = SQL.rows("list_metrics", Metric)
_LIST_LAYOUT_ITEMS: Final = SQL.rows("list_layout_items", LayoutItem)
_LIST_DASHBOARDS: Final = SQL.rows("list_dashboards", DashboardRow)
_LIST_FUNCTIONS: Final = SQL.rows("list_functions", Named)
_NAME_DATABASE: Final = SQL.rows("name_database", Named)
_LIST_SUSPENDED: Final = SQL.rows("list_suspended", Suspended)


class Catalog:
    """Metrics by id; until the first `load` succeeds every look-up raises `DatabaseUnavailable`.

    `version` rises with every reading that differs; `on_change` then hears it, and what is not what it was:
    metrics by id, dashboards as `("dashboard", id)`.
    """

    def __init__(
        self,
        database: Database,
        schemas: tuple[str, ...],
        on_change: Callable[[int, list[Hashable]], None] | None = None,
    ) -> None:
        self._database = database
        self._on_change = on_change
        self.version = 0
        self._schemas = schemas
        self._held: _Held | None = None
        self._changed = asyncio.Event()
        self._loading = asyncio.Lock()

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
            except DatabaseUnavailable:
                self._changed.set()
                await asyncio.sleep(RETRY_S)

    async def load(self) -> None:
        """Read everything; what is held then is no older than the call.

        One reading at a time: a slow one that began before a change must not end after one that saw it.
        """
        async with self._loading:
            await self._load()

    async def _load(self) -> None:
        """A metric that stands as it stood keeps its object."""
        before = self._held.metrics if self._held else {}
        places = await self._database.read(_LIST_LAYOUT_ITEMS)
        layouts = _layouts(places)
        metrics: dict[UUID, Metric] = {}
        for row in await self._database.read(_LIST_METRICS):
            metric = msgspec.structs.replace(row, layouts=layouts.get(row.id, ()))
            metrics[row.id] = before[row.id] if before.get(row.id) == metric else metric
        dashboards: dict[str, Dashboard] = {}
        for row in await self._database.read(_LIST_DASHBOARDS):
            own = tuple(place for place in places if place.dashboard_id == row.id)
            shown = dict.fromkeys(place.metric_id for place in own if place.metric_id in metrics)
            dashboards[row.id] = Dashboard(row.id, row.title, own, tuple(metrics[each] for each in shown))
        functions = await self._database.read(_LIST_FUNCTIONS, list(self._schemas))
        suspended = frozenset(await self._database.read(_LIST_SUSPENDED))
        (database,) = await self._database.read(_NAME_DATABASE)
        names = frozenset(function.name for function in functions)
        self._hold(_Held(metrics, dashboards, names, suspended, database.name))

    def _hold(self, now: _Held) -> None:
        before, self._held = self._held, now
        if before is None or before == now:
            return
        self.version += 1
        metrics = [each for each, metric in before.metrics.items() if now.metrics.get(each) is not metric]
        if self._on_change:
            self._on_change(self.version, [*metrics, *(("dashboard", each) for each in before.dashboards)])

    @property
    def functions(self) -> frozenset[str]:
        """Functions of the data schemas that `pg_catalog` has no namesake of."""
        return self._now().functions

    @property
    def suspended(self) -> frozenset[Suspended]:
        """Statements that are set aside, whatever metrics show them."""
        return self._now().suspended

    @property
    def database(self) -> str:
        """The connected database's name, which may stand before a schema."""
        return self._now().database

    def get(self, metric_id: UUID) -> Metric:
        """Raises `NotFound`, with the metric whose id looks most alike."""
        metrics = self._now().metrics
        if metric := metrics.get(metric_id):
            return metric
        alike = get_close_matches(str(metric_id), map(str, metrics), n=1, cutoff=0.0)
        hint = ""
        if alike:
            title = metrics[UUID(alike[0])].shown_title
            hint = f" The nearest is {alike[0] if title is None else f'{title!r} ({alike[0]})'}."
        raise NotFound(f"There is no metric {metric_id}.{hint}")

    def page(self, after: UUID | None, limit: int) -> list[Metric]:
        """Up to `limit` + 1 metrics in the order of their ids; the extra one says that more follow."""
        metrics = self._now().metrics.values()
        return [metric for metric in metrics if after is None or metric.id > after][: limit + 1]

    def dashboards(self) -> list[Dashboard]:
        return list(self._now().dashboards.values())

    def dashboard(self, dashboard_id: str) -> Dashboard:
        """Raises `NotFound`, naming the dashboards there are."""
        dashboards = self._now().dashboards
        if found := dashboards.get(dashboard_id):
            return found
        raise NotFound(f"There is no dashboard {dashboard_id[:60]!r}; there are: {', '.join(dashboards)}.")

    def _now(self) -> _Held:
        if self._held is None:
            raise DatabaseUnavailable(headers={"Retry-After": "2"})
        return self._held


def _layouts(places: Iterable[LayoutItem]) -> dict[UUID, tuple[Layout, ...]]:
    """Where each metric sits on the default dashboard."""
    found: dict[UUID, list[Layout]] = {}
    for place in places:
        if place.dashboard_id == DEFAULT_DASHBOARD:
            found.setdefault(place.metric_id, []).append(place.layout())
    return {metric_id: tuple(layouts) for metric_id, layouts in found.items()}
