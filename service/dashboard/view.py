"""What the page of a dashboard shows: its tiles, their places, and the data that its scripts begin with."""

from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

from msgspec import Struct

from service.auth.tokens import Principal
from service.dashboard.assets import LIVE_CLIENT
from service.dashboard.grid import Grid, css, grids
from service.dashboard.pages import Pages
from service.metrics import dashboards
from service.metrics.catalog import DEFAULT_DASHBOARD, Catalog, Dashboard
from service.metrics.models import DashboardItem, Place

API: Final = "/api/v1"
KIOSK: Final = "kiosk"
ROTATE: Final = "rotate"
COMPARE: Final = "compare"
OWN: Final = frozenset({KIOSK, ROTATE, COMPARE})
"""Parameters of the page. All others are those of the metrics."""
MOST_DASHBOARDS: Final = 200
"""Dashboards that the page names."""
_ROTATE_S: Final = (5, 86_400)
_OTHER_PAGES: Final = ("ask", "data", "alerts")


class Listed(Struct, frozen=True):
    """A dashboard that the page links to."""

    id: str
    title: str
    address: str
    metrics: int


class PageData(Struct, frozen=True):
    """What scripts read from `#page-data`; `page.js` has it as a type.

    `api` is the base address of the live client. `data` has all results in one answer. `layouts` are the
    stored places of every size, `grid` those that the page shows. `now` is the service's local time.
    """

    dashboard: dict[str, str]
    dashboards: list[Listed]
    items: list[DashboardItem]
    layouts: dict[str, list[Place]]
    grid: dict[str, Grid]
    api: str
    data: str
    scopes: list[str]
    parameters: dict[str, str]
    kiosk: bool
    rotate: int
    user: str
    link: bool = False
    now: str = ""


class FormData(Struct, frozen=True):
    """What scripts of the pages Ask and Data read from `#page-data`."""

    api: str
    scopes: list[str]
    dashboards: list[Listed]


def form_page(catalog: Catalog, principal: Principal) -> FormData:
    listed, _ = list_dashboards(catalog)
    return FormData(API, sorted(principal.scopes), listed)


def dashboard_page(
    pages: Pages, catalog: Catalog, dashboard_id: str, query: str, principal: Principal
) -> dict[str, Any]:
    """The template's context. Raises `NotFound`."""
    dashboard = catalog.dashboard(dashboard_id)
    listed, _ = list_dashboards(catalog)
    given = dict(parse_qsl(query, keep_blank_values=True))
    parameters = {name: value for name, value in given.items() if name not in OWN}
    base = f"{API}/dashboards/{dashboard.id}/data"
    data = page_data(
        dashboard,
        dashboards=listed,
        api=API,
        data=f"{base}?{urlencode(parameters)}" if parameters else base,
        scopes=sorted(principal.scopes),
        user=principal.subject,
        now=pages.now(),
        parameters=parameters,
        given=given,
    )
    return context(pages, data)


def list_dashboards(catalog: Catalog) -> tuple[list[Listed], bool]:
    """The first `MOST_DASHBOARDS` dashboards, and whether there are more."""
    found = catalog.dashboards(None, MOST_DASHBOARDS)
    listed = [
        Listed(each.id, title_of(each), address(each.id), len(each.metrics))
        for each in found[:MOST_DASHBOARDS]
    ]
    return listed, len(found) > MOST_DASHBOARDS


def link_page(pages: Pages, dashboard: Dashboard, base: str, query: str) -> dict[str, Any]:
    """The template's context for a signed link: results below its address, and nothing to change."""
    data = page_data(
        dashboard,
        dashboards=[],
        api=base,
        data=f"{base}/data",
        scopes=[],
        user=base,
        now=pages.now(),
        parameters={},
        given=dict(parse_qsl(query, keep_blank_values=True)),
        link=True,
    )
    return context(pages, data)


def page_data(dashboard: Dashboard, *, given: dict[str, str], **more: Any) -> PageData:
    view = dashboards.view(dashboard)
    return PageData(
        dashboard={"id": dashboard.id, "title": title_of(dashboard)},
        items=view.items,
        layouts=view.layouts,
        grid=grids([each.id for each in dashboard.metrics], dashboard.places),
        kiosk=KIOSK in given,
        rotate=_rotation(given.get(ROTATE, "")),
        **more,
    )


def context(pages: Pages, data: PageData) -> dict[str, Any]:
    """What the template needs."""
    return {
        "dashboard": data.dashboard,
        "dashboards": data.dashboards,
        "items": data.items,
        "page": data,
        "rules": css(data.grid),
        "modules": [
            name
            for name in pages.assets.modules
            if not name.startswith(_OTHER_PAGES) and name not in {"early.js", "history.js", LIVE_CLIENT}
        ]
        + [LIVE_CLIENT],
    }


def title_of(dashboard: Dashboard) -> str:
    return dashboard.title or ("Dashboard" if dashboard.id == DEFAULT_DASHBOARD else dashboard.id)


def address(dashboard_id: str) -> str:
    return "/" if dashboard_id == DEFAULT_DASHBOARD else f"/d/{dashboard_id}"


def _rotation(text: str) -> int:
    """Seconds that a kiosk shows a dashboard; 0: always this one."""
    if not (text.isascii() and text.isdigit()):
        return 0
    least, most = _ROTATE_S
    return min(max(int(text[:6]), least), most)
