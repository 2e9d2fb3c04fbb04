"""All metrics and dashboards in memory. They are read at start and again after each announced change."""

import asyncio
from collections.abc import AsyncIterable, Callable, Hashable, Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Final
from uuid import UUID

import msgspec
from msgspec import Struct

from service.database.gateway import Database
from service.database.queries import SqlFile
from service.errors import DatabaseUnavailable, NotFound
from service.metrics.models import Chart, Layout, Metric
from service.results.feed import Change

DEFAULT_DASHBOARD: Final = "default"
LIST: Final = ("metrics",)
"""The owner that a change of any metric concerns."""
CHANNEL: Final = "tally_catalog"
TABLES: Final = (
    "catalog.dashboard", "catalog.layout_item", "catalog.lingering", "catalog.metric", "catalog.query",
    "catalog.tile",
)  # fmt: skip
RETRY_S: Final = 0.2
MOST_DELETED: Final = 4096
MOST_NAMED: Final = 20  # dashboards that an error lists

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
    """A suspended statement: the SHA-256 of its text. With `planning`, planning it is suspended too."""

    sql_hash: bytes
    planning: bool


class TileRow(Struct, frozen=True):
    dashboard_id: str
    metric_id: UUID
    chart: Chart


class Dashboard(Struct, frozen=True):
    """A dashboard. `places` are in reading order per breakpoint. `metrics` holds each metric once.

    `charts` has how metrics are drawn, where somebody chose it.
    """

    id: str
    title: str | None
    places: tuple[LayoutItem, ...]
    metrics: tuple[Metric, ...]
    charts: dict[UUID, Chart] = {}


class _Snapshot(Struct, frozen=True):
    """A snapshot of the catalogue."""

    metrics: dict[UUID, Metric]
    dashboards: dict[str, Dashboard]
    functions: frozenset[str]
    suspended: frozenset[Suspended]
    database: str


_LIST_METRICS: Final = SQL.rows("list_metrics", Metric)
_LIST_LAYOUT_ITEMS: Final = SQL.rows("list_layout_items", LayoutItem)
_LIST_DASHBOARDS: Final = SQL.rows("list_dashboards", DashboardRow)
_LIST_TILES: Final = SQL.rows("list_tiles", TileRow)
_LIST_FUNCTIONS: Final = SQL.rows("list_functions", Named)
_NAME_DATABASE: Final = SQL.rows("name_database", Named)
_LIST_SUSPENDED: Final = SQL.rows("list_suspended", Suspended)


class Catalog:
    """Metrics by id. Every look-up raises `DatabaseUnavailable` until the first `load` succeeds.

    `version` rises with each snapshot that differs from the last. `on_change` then gets the new version and
    the owners that changed: metrics by id, dashboards as `("dashboard", id)`.
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
        self._snapshot: _Snapshot | None = None
        self._loading = asyncio.Lock()
        self._deleted: dict[UUID, None] = {}

    async def keep(self, changes: AsyncIterable[Change]) -> None:
        """Reload the catalogue after each change of `TABLES`. A burst of changes causes one reload."""
        async for change in changes:
            outdated = bool(change.tables) or change.renewed
            while outdated:
                try:
                    await self.load()
                    outdated = False
                except DatabaseUnavailable:
                    await asyncio.sleep(RETRY_S)

    async def load(self) -> None:
        """Load a new snapshot. The snapshot is no older than the call.

        Loads run one at a time, so that a slow load cannot overwrite the snapshot of a later one.
        """
        async with self._loading:
            await self._load()

    async def _load(self) -> None:
        """Unchanged metrics keep their identity, so prepared plans stay valid."""
        before = self._snapshot.metrics if self._snapshot else {}
        places = await self._database.read(_LIST_LAYOUT_ITEMS)
        layouts = _layouts(places)
        metrics: dict[UUID, Metric] = {}
        for row in await self._database.read(_LIST_METRICS):
            metric = msgspec.structs.replace(row, layouts=layouts.get(row.id, ()))
            metrics[row.id] = before[row.id] if before.get(row.id) == metric else metric
        tiles = await self._database.read(_LIST_TILES)
        dashboards: dict[str, Dashboard] = {}
        for row in await self._database.read(_LIST_DASHBOARDS):
            own = tuple(place for place in places if place.dashboard_id == row.id)
            shown = dict.fromkeys(place.metric_id for place in own if place.metric_id in metrics)
            on_it = tuple(metrics[each] for each in shown)
            charts: dict[UUID, Chart] = {
                tile.metric_id: tile.chart for tile in tiles if tile.dashboard_id == row.id
            }
            dashboards[row.id] = Dashboard(row.id, row.title, own, on_it, charts)
        functions = await self._database.read(_LIST_FUNCTIONS, list(self._schemas))
        suspended = frozenset(await self._database.read(_LIST_SUSPENDED))
        (database,) = await self._database.read(_NAME_DATABASE)
        names = frozenset(function.name for function in functions)
        self._hold(_Snapshot(metrics, dashboards, names, suspended, database.name))

    def _hold(self, now: _Snapshot) -> None:
        before, self._snapshot = self._snapshot, now
        if before is None or before == now:
            return
        self.version += 1
        for metric_id in before.metrics.keys() - now.metrics.keys():
            self._deleted[metric_id] = None
            if len(self._deleted) > MOST_DELETED:
                del self._deleted[next(iter(self._deleted))]
        metrics = [each for each, metric in before.metrics.items() if now.metrics.get(each) is not metric]
        if self._on_change:
            listed = [LIST] if before.metrics != now.metrics else []
            self._on_change(
                self.version, [*metrics, *listed, *(("dashboard", each) for each in before.dashboards)]
            )

    @property
    def functions(self) -> frozenset[str]:
        """Functions of the data schemas whose name no function of `pg_catalog` has."""
        return self._now().functions

    @property
    def suspended(self) -> frozenset[Suspended]:
        """Suspended statements of all metrics."""
        return self._now().suspended

    @property
    def database(self) -> str:
        """The connected database's name. SQL may write it before a schema."""
        return self._now().database

    def get(self, metric_id: UUID) -> Metric:
        """Raises `NotFound`, which suggests the metric with the most similar id."""
        metrics = self._now().metrics
        if metric := metrics.get(metric_id):
            return metric
        near = get_close_matches(str(metric_id), map(str, metrics), n=1, cutoff=0.0)
        hint = ""
        if near:
            title = metrics[UUID(near[0])].shown_title
            hint = f" The nearest is {near[0] if title is None else f'{title!r} ({near[0]})'}."
        raise NotFound(f"There is no metric {metric_id}.{hint}")

    def was_deleted(self, metric_id: UUID) -> bool:
        """Whether a metric was deleted since the start. Old deletions are forgotten."""
        return metric_id in self._deleted and metric_id not in self._now().metrics

    def page(self, after: UUID | None, limit: int) -> list[Metric]:
        """Return up to `limit` + 1 metrics ordered by id. The extra metric shows that more follow."""
        metrics = self._now().metrics.values()
        return [metric for metric in metrics if after is None or metric.id > after][: limit + 1]

    def dashboards(self, after: str | None, limit: int) -> list[Dashboard]:
        """Return up to `limit` + 1 dashboards ordered by id. The extra one shows that more follow."""
        dashboards = self._now().dashboards.values()
        return [each for each in dashboards if after is None or each.id > after][: limit + 1]

    def dashboard(self, dashboard_id: str) -> Dashboard:
        """Raises `NotFound`, which lists the existing dashboards."""
        dashboards = self._now().dashboards
        if found := dashboards.get(dashboard_id):
            return found
        raise self.no_dashboard(dashboard_id)

    def no_dashboard(self, dashboard_id: str) -> NotFound:
        """The problem of an unknown id, which lists the existing dashboards."""
        known = ", ".join([*self._now().dashboards][:MOST_NAMED])
        return NotFound(f"There is no dashboard {dashboard_id[:60]!r}; there are: {known}.")

    def _now(self) -> _Snapshot:
        if self._snapshot is None:
            raise DatabaseUnavailable(headers={"Retry-After": "2"})
        return self._snapshot


def _layouts(places: Iterable[LayoutItem]) -> dict[UUID, tuple[Layout, ...]]:
    """The layouts of each metric on the default dashboard."""
    found: dict[UUID, list[Layout]] = {}
    for place in places:
        if place.dashboard_id == DEFAULT_DASHBOARD:
            found.setdefault(place.metric_id, []).append(place.layout())
    return {metric_id: tuple(layouts) for metric_id, layouts in found.items()}
