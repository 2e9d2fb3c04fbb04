"""Create, rename, arrange and delete dashboards, and find a place for a metric on one.

Each change and its audit row are one transaction. The catalogue is reloaded afterwards.
"""

import re
import unicodedata
from collections.abc import Sequence
from typing import Final
from uuid import UUID

import msgspec

from service import audit
from service.audit import Actor
from service.database.gateway import Database, Transaction, violation
from service.errors import Conflict, FieldError, InvalidInput, NotFound
from service.metrics.catalog import (
    DEFAULT_DASHBOARD,
    SQL,
    Catalog,
    Dashboard,
    DashboardRow,
    LayoutItem,
    TileRow,
)
from service.metrics.models import (
    DashboardItem,
    DashboardPlace,
    DashboardView,
    Layout,
    NewDashboard,
    Place,
    Places,
    TileChange,
)

COLUMNS: Final = 12
"""Columns of the grid in which places are found; `lg` has as many in react-grid-layout."""

_CREATE: Final = SQL.rows("insert_dashboard", DashboardRow)
_RENAME: Final = SQL.rows("rename_dashboard", DashboardRow)
_DELETE: Final = SQL.rows("delete_dashboard", DashboardRow)
_LOCK: Final = SQL.rows("lock_dashboard", DashboardRow)
_LIST_LAYOUTS: Final = SQL.rows("list_layout_items_on", LayoutItem)
_READ_TILE: Final = SQL.rows("read_tile", TileRow)
_PUT_TILE: Final = SQL.command("put_tile")
_DELETE_TILE: Final = SQL.command("delete_tile")
_DELETE_LAYOUTS: Final = SQL.command("delete_layout_items")
_LAYOUT_COLUMNS: Final = ("dashboard_id", "metric_id", "breakpoint", "x", "y", "w", "h", "static")
_NO_SLUG: Final = re.compile(r"[^a-z0-9]+")
_LONGEST_ID: Final = 64
_TRIES: Final = 100  # numbers that are tried after the id that a title makes


def view(dashboard: Dashboard) -> DashboardView:
    """The dashboard as callers see it."""
    layouts: dict[str, list[Place]] = {}
    for place in dashboard.places:
        at = Place(place.metric_id, place.x, place.y, place.w, place.h, place.static)
        layouts.setdefault(place.breakpoint, []).append(at)
    items = [
        DashboardItem(
            each.id, each.shown_title, each.query_id, each.is_editable, dashboard.charts.get(each.id)
        )
        for each in dashboard.metrics
    ]
    return DashboardView(dashboard.id, dashboard.title, items, layouts)


async def create_dashboard(
    database: Database, catalog: Catalog, new: NewDashboard, actor: Actor
) -> Dashboard:
    """Create an empty dashboard. Without an id it gets one from its title, with a number if that is taken.

    Raises `Conflict` for an id that exists.
    """
    wanted = [new.id] if new.id is not None else _ids_from(new.title)
    async with database.transaction() as tx:
        for dashboard_id in wanted:
            created = await tx.read_one(_CREATE, dashboard_id, new.title)
            if created is not None:
                digest = audit.digest(created)
                await audit.record(tx, actor, "dashboards.create", created.id, after=digest)
                break
        else:
            raise Conflict(f"There is a dashboard {wanted[0]!r} already: give another `id`.")
    await catalog.load()
    return catalog.dashboard(created.id)


async def rename_dashboard(
    database: Database, catalog: Catalog, dashboard_id: str, title: str, actor: Actor
) -> Dashboard:
    """Raises `NotFound`."""
    async with database.transaction() as tx:
        before = await _lock(tx, catalog, dashboard_id)
        renamed = await tx.read_one(_RENAME, dashboard_id, title)
        states = {"before": audit.digest(before), "after": audit.digest(renamed)}
        await audit.record(tx, actor, "dashboards.change", before.id, **states)
    await catalog.load()
    return catalog.dashboard(dashboard_id)


async def delete_dashboard(database: Database, catalog: Catalog, dashboard_id: str, actor: Actor) -> None:
    """Delete a dashboard and its layouts; its metrics stay. Raises `NotFound`, `Conflict` for `default`."""
    if dashboard_id == DEFAULT_DASHBOARD:
        raise Conflict("Imported layouts belong to the dashboard `default`: rename it instead.")
    async with database.transaction() as tx:
        before = await _lock(tx, catalog, dashboard_id)
        await tx.read_one(_DELETE, dashboard_id)
        await audit.record(tx, actor, "dashboards.delete", before.id, before=audit.digest(before))
    await catalog.load()


async def put_layouts(
    database: Database, catalog: Catalog, dashboard_id: str, layouts: Places, actor: Actor
) -> Dashboard:
    """Replace all layouts of a dashboard. Raises `InvalidInput` that names an unknown metric."""
    rows = [
        LayoutItem(dashboard_id, place.i, size, place.x, place.y, place.w, place.h, place.static or False)
        for size, places in layouts.items()
        for place in places
    ]
    if len({(row.metric_id, row.breakpoint) for row in rows}) != len(rows):
        raise InvalidInput(errors=(FieldError("i", "a metric stands twice at one breakpoint"),))
    async with database.transaction() as tx:
        await _lock(tx, catalog, dashboard_id)
        await tx.write(_DELETE_LAYOUTS, dashboard_id)
        unknown = InvalidInput(errors=(FieldError("i", "no metric has this id"),))
        with violation("layout_item_metric_id_fkey", unknown):
            await _insert(tx, rows)
        await audit.record(tx, actor, "dashboards.layout", dashboard_id)
    await catalog.load()
    return catalog.dashboard(dashboard_id)


async def change_tile(
    database: Database, catalog: Catalog, tile: tuple[str, UUID], change: TileChange, actor: Actor
) -> Dashboard:
    """Choose how a dashboard draws a metric. Raises `NotFound` for one that is not on it."""
    dashboard_id, metric_id = tile
    async with database.transaction() as tx:
        await _lock(tx, catalog, dashboard_id)
        if not any(place.metric_id == metric_id for place in await tx.read(_LIST_LAYOUTS, dashboard_id)):
            raise NotFound(f"There is no metric {metric_id} on the dashboard {dashboard_id!r}.")
        before = await tx.read_one(_READ_TILE, dashboard_id, metric_id)
        if change.chart is None:
            await tx.write(_DELETE_TILE, dashboard_id, metric_id)
        else:
            await tx.write(_PUT_TILE, dashboard_id, metric_id, change.chart)
        states = {"before": audit.digest(before and before.chart), "after": audit.digest(change.chart)}
        await audit.record(tx, actor, "dashboards.tile", f"{dashboard_id}/{metric_id}", **states)
    await catalog.load()
    return catalog.dashboard(dashboard_id)


async def place_on_default(tx: Transaction, metric_id: UUID, layouts: Sequence[Layout]) -> None:
    """Insert a metric's layouts on the default dashboard."""
    if len({each.breakpoint for each in layouts}) != len(layouts):
        raise InvalidInput(errors=(FieldError("layouts", "a breakpoint is given twice"),))
    with violation("layout_item_dashboard_id_fkey", NotFound("There is no dashboard `default`.")):
        await _insert(tx, [_item(DEFAULT_DASHBOARD, metric_id, each) for each in layouts])


async def place_on(tx: Transaction, metric_id: UUID, wanted: Sequence[DashboardPlace]) -> None:
    """Put a metric on several dashboards. Raises `InvalidInput` that names an unknown dashboard."""
    if len({(each.id, each.breakpoint) for each in wanted}) != len(wanted):
        raise InvalidInput(errors=(FieldError("dashboards", "a dashboard is given twice"),))
    for each in sorted(wanted, key=lambda each: each.id):  # one order for all, so that locks cannot deadlock
        if await tx.read_one(_LOCK, each.id) is None:
            raise InvalidInput(errors=(FieldError("dashboards", f"there is no dashboard {each.id!r}"),))
        taken = [item for item in await tx.read(_LIST_LAYOUTS, each.id) if item.breakpoint == each.breakpoint]
        if any(item.metric_id == metric_id for item in taken):
            raise InvalidInput(
                errors=(FieldError("dashboards", f"`layouts` places it on {each.id!r} already"),)
            )
        place = find_place(each, [item.layout() for item in taken])
        await _insert(tx, [_item(each.id, metric_id, place)])


def find_place(wanted: DashboardPlace, taken: Sequence[Layout]) -> Layout:
    """The place itself, or, without `x` and `y`, the first free one in reading order."""
    size, w, h = wanted.breakpoint, wanted.w, wanted.h
    if wanted.x is not None and wanted.y is not None:
        return Layout(size, wanted.x, wanted.y, w, h)
    rows = sorted({0, *(place.y + place.h for place in taken)})
    columns = range(max(1, COLUMNS - w + 1))
    places = (Layout(size, x, y, w, h) for y in rows for x in columns)
    return next(place for place in places if not any(_overlap(place, other) for other in taken))


def _overlap(one: Layout, other: Layout) -> bool:
    return (
        one.x < other.x + other.w
        and other.x < one.x + one.w
        and one.y < other.y + other.h
        and other.y < one.y + one.h
    )


def _ids_from(title: str) -> list[str]:
    """The ids to try for a title. Raises `InvalidInput` if it has no letter or digit that an id may have."""
    ascii_only = unicodedata.normalize("NFKD", title.casefold()).encode("ascii", "ignore").decode()
    slug = _NO_SLUG.sub("-", ascii_only)[:_LONGEST_ID].strip("-")
    if not slug:
        raise InvalidInput(errors=(FieldError("id", "give one: the title makes none (a-z, 0-9 and -)"),))
    return [slug, *(f"{slug[: _LONGEST_ID - 4].rstrip('-')}-{number}" for number in range(2, _TRIES))]


async def _lock(tx: Transaction, catalog: Catalog, dashboard_id: str) -> DashboardRow:
    row = await tx.read_one(_LOCK, dashboard_id)
    if row is None:
        raise catalog.no_dashboard(dashboard_id)
    return row


async def _insert(tx: Transaction, items: Sequence[LayoutItem]) -> None:
    rows = [msgspec.structs.astuple(item) for item in items]
    await tx.copy("catalog", "layout_item", columns=_LAYOUT_COLUMNS, records=rows)


def _item(dashboard_id: str, metric_id: UUID, place: Layout) -> LayoutItem:
    return LayoutItem(
        dashboard_id, metric_id, place.breakpoint, place.x, place.y, place.w, place.h, place.static
    )
