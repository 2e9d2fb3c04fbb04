"""All routes."""

from collections.abc import Callable
from typing import Any, Final

from litestar import Litestar, Router
from litestar.di import Provide
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import License, Tag

from service import __version__
from service.alerts.api import AlertsController
from service.api import HealthController, own_routes
from service.app.lifespan import opened
from service.app.services import Services
from service.ask.api import AskController
from service.auth.api import AuditController, TokenController
from service.auth.guards import allow
from service.connect.api import OpenMetricsController, mcp
from service.dashboard import api as dashboard
from service.dashboard.links import api as links
from service.dashboard.sign_in import api as sign_in
from service.history.api import HistoryController
from service.http.problems import answer_problem
from service.http.requests import Exact, ReadRequest, refuse_bad_input
from service.imports.api import DatasetsController, ImportsController, QuarantineController
from service.interactions.api import InteractionsController, StatsController
from service.items.api import ExternalController, ItemsController
from service.live.api import LiveController
from service.metrics.api import MetricsController
from service.metrics.dashboards.api import DashboardsController

JSON_BYTES_LIMIT: Final = 8_388_608


def routed() -> Litestar:
    """Build the routes, which takes most of the time. `configured` adds the settings."""

    def getter(name: str) -> Callable[[], Any]:
        def get() -> Any:  # without parameters, because each of them costs Litestar 10 us a request
            return getattr(app.state.services, name)

        return get

    features = [
        HealthController,
        MetricsController,
        HistoryController,
        DashboardsController,
        OpenMetricsController,
        links.LinksController,
        AskController,
        DatasetsController,
        ImportsController,
        QuarantineController,
        LiveController,
    ]
    app = Litestar(
        route_handlers=[
            Router(
                "/api/v1",
                route_handlers=[
                    *features,
                    AlertsController,
                    InteractionsController,
                    StatsController,
                    ItemsController,
                    ExternalController,
                    AuditController,
                ],
            ),
            Router("/", route_handlers=features, include_in_schema=False),
            TokenController,
            mcp,
            *own_routes(),
            *dashboard.routes(),
            *sign_in.routes(),
            *links.routes(),
        ],
        guards=[allow],
        dependencies={
            name: Provide(getter(name), sync_to_thread=False) for name in Services.__struct_fields__
        },
        lifespan=[opened],
        before_request=refuse_bad_input,
        request_class=ReadRequest,
        response_class=Exact,
        request_max_body_size=JSON_BYTES_LIMIT,
        exception_handlers={Exception: answer_problem},
        openapi_config=_openapi(),
        debug=False,
        logging_config=None,
    )
    return app


def _openapi() -> OpenAPIConfig:
    return OpenAPIConfig(
        title="Tally",
        version=__version__,
        description="Stored SQL as live, cached, safe JSON metrics over Postgres.",
        openapi_router=Router(
            "/internal/openapi", route_handlers=[], include_in_schema=False, opt={"scope": "admin"}
        ),
        license=License("Apache-2.0", identifier="Apache-2.0"),
        render_plugins=[JsonRenderPlugin()],
        tags=[
            Tag("metrics", "Results and definitions"),
            Tag("live", "Results that are pushed when they change"),
            Tag("alerts", "Rules on results, what they find, and who is told"),
            Tag("dashboards", "Metrics side by side, and where each of them sits"),
            Tag("links", "Signed addresses that show a dashboard without a token"),
            Tag("assistants", "Metrics for assistants, by the Model Context Protocol"),
            Tag("items", "A task list enriched from an external API"),
            Tag("imports", "Imported files, dataset contracts, quarantined rows"),
            Tag("tokens", "Tokens and the keys that verify them"),
            Tag("interactions", "Customer interactions, and statistics of the datasets"),
            Tag("audit", "All changes, and who made them"),
            Tag("service", "Health"),
        ],
    )
