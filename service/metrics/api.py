"""Metrics and dashboards over HTTP."""

from typing import Annotated, Any, Final, TypeVar, cast
from uuid import UUID

import msgspec
from litestar import Controller, Request, Response, delete, get, patch, post, put
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, JSONBody, QueryParameter
from litestar.response.base import ASGIResponse
from litestar.serialization import default_serializer
from litestar.types import Serializer

from service.auth.guards import actor, caller
from service.database.gateway import Database
from service.errors import (
    Busy,
    Conflict,
    DatabaseUnavailable,
    FieldError,
    InvalidInput,
    MetricSuspended,
    NotAcceptable,
    NotFound,
    PreconditionFailed,
    QueryTimeout,
    ResultTooLarge,
    TooLarge,
    UnsupportedMediaType,
    UpstreamFailed,
    UpstreamTimeout,
)
from service.http.asgi import Scope
from service.http.cursors import Cursor, read_cursor, write_cursor
from service.http.ids import not_a_uuid, parse_uuid
from service.http.openapi import FREE, WINDOW, result_operation
from service.metrics import dashboards
from service.metrics.batch import Batcher, Caller, Tiles
from service.metrics.catalog import Catalog, Dashboard
from service.metrics.execute import Executor, QueryPlan
from service.metrics.models import (
    Batch,
    DashboardChange,
    DashboardItem,
    DashboardPage,
    DashboardSummary,
    DashboardView,
    Definition,
    Metric,
    MetricChange,
    MetricMade,
    MetricPage,
    MetricSummary,
    NewDashboard,
    NewMetric,
    Place,
    Places,
    Result,
    VersionList,
)
from service.metrics.result_endpoint import ResultService, caller_of
from service.metrics.store import Editor, tag
from service.results.table import Reply

MAX_PAGE: Final = 500
RUN_PROBLEMS: Final = (NotFound, NotAcceptable, ResultTooLarge, QueryTimeout, MetricSuspended, Busy)
WRITE_PROBLEMS: Final = (TooLarge, UnsupportedMediaType, DatabaseUnavailable)
PROMPT_PROBLEMS: Final = (QueryTimeout, UpstreamFailed, UpstreamTimeout)
CHANGE_PROBLEMS: Final = (NotFound, Conflict, PreconditionFailed, *WRITE_PROBLEMS)

RESULT_EXAMPLE: Final[dict[str, Any]] = {
    "id": "5f3c9c1e-8a55-4a86-9f0e-3b0a4a4d8a11",
    "title": "Alerts by type",
    "query_id": "alerts-by-type",
    "is_editable": True,
    "layouts": [{"breakpoint": "lg", "x": 0, "y": 0, "w": 6, "h": 8, "static": False}],
    "parameters": {"start_date": "2025-06-01", "end_date": "2025-06-30"},
    "columns": [{"name": "alert_type", "type": "text"}, {"name": "total_alerts", "type": "bigint"}],
    "records": [{"alert_type": "Critical", "total_alerts": 3}],
    "row_count": 1,
    "truncated": False,
    "as_of": "2025-08-02T09:00:00Z",
}

_RESULT: Final = result_operation(*WINDOW, FREE, formats=True)
_DATA: Final = result_operation(*WINDOW, FREE, formats=False)

Call = Request[Any, Any, Any]
T = TypeVar("T")


Catalogue = NamedDependency[Catalog]
Db = NamedDependency[Database]
Runner = NamedDependency[Executor]
Changes = NamedDependency[Editor]
Service = NamedDependency[ResultService]


class Exact(Response[T]):
    """A response that writes decimal defaults of parameters as JSON numbers with all digits."""

    def render(self, content: Any, media_type: str, enc_hook: Serializer = default_serializer) -> bytes:
        del media_type, enc_hook
        return _EXACT.encode(content)


_EXACT: Final = msgspec.json.Encoder(decimal_format="number")


class MetricsController(Controller):
    path = "/metrics"
    tags = ("metrics",)
    opt = {"scope": "metrics:read"}  # noqa: RUF012 (Litestar's way)

    @get(
        "/",
        operation_id="listMetrics",
        summary="Metrics, paged",
        sync_to_thread=False,
        opt={"problems": (DatabaseUnavailable,)},
    )
    def list_metrics(
        self,
        catalog: Catalogue,
        limit: Annotated[int, QueryParameter(ge=1, le=MAX_PAGE, description="items in a page")] = 50,
        cursor: Cursor = None,
    ) -> MetricPage:
        found = catalog.page(None if cursor is None else read_cursor(cursor, UUID), limit)
        following = write_cursor(found[limit - 1].id) if len(found) > limit else None
        return MetricPage([_summary(metric) for metric in found[:limit]], following)

    @get(
        "/{metric_id:str}",
        operation_id="getMetricResult",
        summary="A metric's result",
        description="The first run computes it; later callers get it from memory until its tables change.",
        responses={200: ResponseSpec(Result, generate_examples=False, description="The result")},
        sync_to_thread=False,
        opt={"problems": RUN_PROBLEMS, "free_query": True, "operation": _RESULT, "example": RESULT_EXAMPLE},
    )
    def result(self, metric_id: FromPath[str]) -> None:
        # `ResultEndpoint` answers all others before the router.
        raise not_a_uuid(metric_id)

    @get(
        "/{metric_id:str}/definition",
        operation_id="getMetricDefinition",
        summary="A metric's SQL, parameters, columns and tables",
        opt={"problems": (NotFound, QueryTimeout, Busy)},
    )
    async def definition(
        self, metric_id: FromPath[str], catalog: Catalogue, executor: Runner
    ) -> Response[Definition]:
        return _defined(await executor.prepare(catalog.get(parse_uuid(metric_id))))

    @post(
        "/",
        operation_id="createMetric",
        summary="Create a metric from SQL or from a prompt",
        opt={"scope": "metrics:write", "problems": (*WRITE_PROBLEMS, *PROMPT_PROBLEMS)},
    )
    async def create(self, data: JSONBody[NewMetric], request: Call, editor: Changes) -> Response[MetricMade]:
        metric, plan, generator = await editor.create(data, actor(request.scope))
        created = MetricMade(
            id=metric.id,
            title=metric.shown_title,
            query_id=metric.query_id,
            sql=metric.sql,
            parameters=plan.template.parameters,
            columns=plan.description.columns,
            generator=generator,
        )
        return Exact(created, status_code=201, headers={"Location": f"/api/v1/metrics/{metric.id}"})

    @patch(
        "/{metric_id:str}",
        operation_id="changeMetric",
        summary="Change a metric",
        opt={"scope": "metrics:write", "problems": (*CHANGE_PROBLEMS, *PROMPT_PROBLEMS)},
    )
    async def change(
        self, metric_id: FromPath[str], data: JSONBody[MetricChange], request: Call, editor: Changes
    ) -> Response[Definition]:
        condition = request.headers.get("if-match")
        changed = await editor.change(
            parse_uuid(metric_id), data, if_match=condition, actor=actor(request.scope)
        )
        return _defined(changed)

    @get(
        "/{metric_id:str}/versions",
        operation_id="listMetricVersions",
        summary="All versions of a metric",
        opt={"problems": (NotFound, DatabaseUnavailable)},
    )
    async def versions(self, metric_id: FromPath[str], editor: Changes) -> VersionList:
        return VersionList(await editor.versions(parse_uuid(metric_id)))

    @post(
        "/{metric_id:str}/versions/{version:int}/restore",
        operation_id="restoreMetricVersion",
        summary="Restore an old version as a new version",
        status_code=200,
        opt={"scope": "metrics:write", "problems": CHANGE_PROBLEMS},
    )
    async def restore(
        self, metric_id: FromPath[str], version: FromPath[int], request: Call, editor: Changes
    ) -> Response[Definition]:
        condition = request.headers.get("if-match")
        changed = await editor.restore(
            parse_uuid(metric_id), version, if_match=condition, actor=actor(request.scope)
        )
        return _defined(changed)

    @delete(
        "/{metric_id:str}",
        operation_id="deleteMetric",
        summary="Delete a metric",
        opt={"scope": "metrics:write", "problems": CHANGE_PROBLEMS},
    )
    async def delete(self, metric_id: FromPath[str], request: Call, editor: Changes) -> None:
        condition = request.headers.get("if-match")
        await editor.delete(parse_uuid(metric_id), if_match=condition, actor=actor(request.scope))

    @post(
        "/batch",
        operation_id="getMetricResults",
        summary="Several metrics in one answer",
        status_code=200,
        opt={"problems": WRITE_PROBLEMS},
    )
    async def batch(self, data: JSONBody[Batch], request: Call, batcher: NamedDependency[Batcher]) -> Tiles:
        return Tiles(await batcher.batch(data.metrics, _caller_of(request)))


class DashboardsController(Controller):
    path = "/dashboards"
    tags = ("dashboards",)
    opt = {"scope": "metrics:read"}  # noqa: RUF012 (Litestar's way)

    @get(
        "/",
        operation_id="listDashboards",
        summary="Dashboards",
        sync_to_thread=False,
        opt={"problems": (DatabaseUnavailable,)},
    )
    def list_dashboards(
        self,
        catalog: Catalogue,
        limit: Annotated[int, QueryParameter(ge=1, le=MAX_PAGE, description="items in a page")] = 50,
        cursor: Cursor = None,
    ) -> DashboardPage:
        found = catalog.dashboards(None if cursor is None else read_cursor(cursor, str), limit)
        following = write_cursor(found[limit - 1].id) if len(found) > limit else None
        shown = [DashboardSummary(each.id, each.title, len(each.metrics)) for each in found[:limit]]
        return DashboardPage(shown, following)

    @post(
        "/",
        operation_id="createDashboard",
        summary="Create a dashboard",
        opt={"scope": "metrics:write", "problems": (Conflict, *WRITE_PROBLEMS)},
    )
    async def create(
        self, data: JSONBody[NewDashboard], request: Call, database: Db, catalog: Catalogue
    ) -> Response[DashboardView]:
        created = await dashboards.create_dashboard(database, catalog, data, actor(request.scope))
        return Response(
            _view(created), status_code=201, headers={"Location": f"/api/v1/dashboards/{created.id}"}
        )

    @get(
        "/{dashboard_id:str}",
        operation_id="getDashboard",
        summary="A dashboard's metrics and layouts",
        sync_to_thread=False,
        opt={"problems": (NotFound, DatabaseUnavailable)},
    )
    def dashboard(self, dashboard_id: FromPath[str], catalog: Catalogue) -> DashboardView:
        return _view(catalog.dashboard(dashboard_id))

    @patch(
        "/{dashboard_id:str}",
        operation_id="renameDashboard",
        summary="Rename a dashboard",
        opt={"scope": "metrics:write", "problems": (NotFound, *WRITE_PROBLEMS)},
    )
    async def rename(
        self,
        dashboard_id: FromPath[str],
        data: JSONBody[DashboardChange],
        request: Call,
        database: Db,
        catalog: Catalogue,
    ) -> DashboardView:
        who = actor(request.scope)
        return _view(await dashboards.rename_dashboard(database, catalog, dashboard_id, data.title, who))

    @delete(
        "/{dashboard_id:str}",
        operation_id="deleteDashboard",
        summary="Delete a dashboard; its metrics stay",
        opt={"scope": "metrics:write", "problems": (NotFound, Conflict, DatabaseUnavailable)},
    )
    async def delete(
        self, dashboard_id: FromPath[str], request: Call, database: Db, catalog: Catalogue
    ) -> None:
        await dashboards.delete_dashboard(database, catalog, dashboard_id, actor(request.scope))

    @put(
        "/{dashboard_id:str}/layouts",
        operation_id="putDashboardLayouts",
        summary="Replace a dashboard's layouts",
        opt={"scope": "metrics:write", "problems": (NotFound, *WRITE_PROBLEMS)},
    )
    async def put_layouts(
        self,
        dashboard_id: FromPath[str],
        data: JSONBody[Places],
        request: Call,
        database: Db,
        catalog: Catalogue,
    ) -> DashboardView:
        who = actor(request.scope)
        return _view(await dashboards.put_layouts(database, catalog, dashboard_id, data, who))

    @get(
        "/{dashboard_id:str}/data",
        operation_id="getDashboardData",
        summary="Results of all metrics of a dashboard",
        description="Each metric uses the query parameters that it knows. Its entry lists the others.",
        opt={"problems": (NotFound, DatabaseUnavailable), "free_query": True, "operation": _DATA},
    )
    async def data(
        self,
        dashboard_id: FromPath[str],
        request: Call,
        catalog: Catalogue,
        batcher: NamedDependency[Batcher],
        result_service: Service,
    ) -> ASGIResponse:
        version = catalog.version
        dashboard = catalog.dashboard(dashboard_id)
        pairs = list(request.query_params.multi_items())
        given = dict(pairs)
        if len(given) != len(pairs):
            raise InvalidInput(errors=(FieldError("query", "a parameter is given more than once"),))
        outcome = await batcher.dashboard(dashboard, given, _caller_of(request))
        return _send(await result_service.reply(cast("Scope", request.scope), outcome, version))


def _summary(metric: Metric) -> MetricSummary:
    return MetricSummary(
        id=metric.id,
        title=metric.shown_title,
        query_id=metric.query_id,
        is_editable=metric.is_editable,
        layouts=metric.layouts,
    )


def _view(dashboard: Dashboard) -> DashboardView:
    layouts: dict[str, list[Place]] = {}
    for place in dashboard.places:
        at = Place(place.metric_id, place.x, place.y, place.w, place.h, place.static)
        layouts.setdefault(place.breakpoint, []).append(at)
    items = [
        DashboardItem(each.id, each.shown_title, each.query_id, each.is_editable)
        for each in dashboard.metrics
    ]
    return DashboardView(dashboard.id, dashboard.title, items, layouts)


def _defined(plan: QueryPlan) -> Response[Definition]:
    return Exact(plan.definition(), headers={"ETag": tag(plan.metric)})


def _caller_of(request: Call) -> Caller:
    return caller_of(cast("Scope", request.scope), caller(request.scope).claims)


def _send(reply: Reply) -> ASGIResponse:
    return ASGIResponse(body=reply.body, media_type=reply.headers["content-type"], headers=reply.headers)
