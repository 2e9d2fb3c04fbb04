"""Metrics over HTTP."""

from typing import Any, Final, cast
from uuid import UUID

from litestar import Controller, MediaType, Response, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, JSONBody

from service.auth.guards import actor, caller
from service.errors import (
    Busy,
    Conflict,
    DatabaseUnavailable,
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
from service.http.cursors import Cursor, Limit, page_of, read_cursor
from service.http.ids import not_a_uuid, parse_uuid
from service.http.openapi import FREE, WINDOW, result_operation
from service.http.preconditions import IfMatch, read_if_match
from service.http.requests import Call, Exact
from service.metrics.batch import Batcher, Caller, Tiles
from service.metrics.catalog import Catalog
from service.metrics.execute import Executor, QueryPlan
from service.metrics.models import (
    Batch,
    Definition,
    Metric,
    MetricChange,
    MetricDraft,
    MetricMade,
    MetricPage,
    MetricSummary,
    NewMetric,
    Result,
    VersionList,
)
from service.metrics.result_endpoint import caller_of
from service.metrics.store import Editor, preview, tag

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


Catalogue = NamedDependency[Catalog]
Runner = NamedDependency[Executor]
Changes = NamedDependency[Editor]


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
        limit: Limit = 50,
        cursor: Cursor = None,
    ) -> MetricPage:
        found, following = page_of(catalog.page(read_cursor(cursor, UUID), limit), limit)
        return MetricPage([_summary(metric) for metric in found], following)

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

    @post(
        "/preview",
        operation_id="previewMetric",
        summary="First rows of SQL that is not stored",
        description="Validates, plans and runs the SQL with its defaults; stores nothing.",
        responses={200: ResponseSpec(Result, generate_examples=False, description="The first rows")},
        status_code=200,
        opt={"scope": "metrics:write", "problems": (*RUN_PROBLEMS, *WRITE_PROBLEMS)},
    )
    async def preview(self, data: JSONBody[MetricDraft], executor: Runner) -> Response[bytes]:
        return Response(await preview(executor, data), media_type=MediaType.JSON)

    @patch(
        "/{metric_id:str}",
        operation_id="changeMetric",
        summary="Change a metric",
        opt={
            "scope": "metrics:write",
            "problems": (*CHANGE_PROBLEMS, *PROMPT_PROBLEMS),
        },
    )
    async def change(
        self,
        metric_id: FromPath[str],
        data: JSONBody[MetricChange],
        request: Call,
        editor: Changes,
        if_match: IfMatch = None,
    ) -> Response[Definition]:
        changed = await editor.change(
            parse_uuid(metric_id), data, if_match=read_if_match(if_match), actor=actor(request.scope)
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
        self,
        metric_id: FromPath[str],
        version: FromPath[int],
        request: Call,
        editor: Changes,
        if_match: IfMatch = None,
    ) -> Response[Definition]:
        changed = await editor.restore(
            parse_uuid(metric_id), version, if_match=read_if_match(if_match), actor=actor(request.scope)
        )
        return _defined(changed)

    @delete(
        "/{metric_id:str}",
        operation_id="deleteMetric",
        summary="Delete a metric",
        opt={"scope": "metrics:write", "problems": CHANGE_PROBLEMS},
    )
    async def delete(
        self, metric_id: FromPath[str], request: Call, editor: Changes, if_match: IfMatch = None
    ) -> None:
        await editor.delete(
            parse_uuid(metric_id), if_match=read_if_match(if_match), actor=actor(request.scope)
        )

    @post(
        "/batch",
        operation_id="getMetricResults",
        summary="Several metrics in one answer",
        status_code=200,
        opt={"problems": WRITE_PROBLEMS},
    )
    async def batch(self, data: JSONBody[Batch], request: Call, batcher: NamedDependency[Batcher]) -> Tiles:
        return Tiles(await batcher.batch(data.metrics, _caller_of(request)))


def _summary(metric: Metric) -> MetricSummary:
    return MetricSummary(
        id=metric.id,
        title=metric.shown_title,
        query_id=metric.query_id,
        is_editable=metric.is_editable,
        layouts=metric.layouts,
    )


def _defined(plan: QueryPlan) -> Response[Definition]:
    return Exact(plan.definition(), headers={"ETag": tag(plan.metric)})


def _caller_of(request: Call) -> Caller:
    return caller_of(cast("Scope", request.scope), caller(request.scope))
