"""Dashboards over HTTP."""

from typing import Final, cast

from litestar import Controller, Response, delete, get, patch, post, put
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, JSONBody
from litestar.response.base import ASGIResponse

from service.auth.guards import actor, caller
from service.database.gateway import Database
from service.errors import (
    Conflict,
    DatabaseUnavailable,
    NotFound,
    TooLarge,
    UnsupportedMediaType,
)
from service.http.asgi import Scope
from service.http.cursors import Cursor, Limit, page_of, read_cursor
from service.http.ids import parse_uuid
from service.http.openapi import FREE, WINDOW, result_operation
from service.http.requests import Call, given_once
from service.metrics import dashboards
from service.metrics.batch import Batcher, DashboardData
from service.metrics.catalog import Catalog
from service.metrics.models import (
    DashboardChange,
    DashboardPage,
    DashboardSummary,
    DashboardView,
    NewDashboard,
    Places,
    TileChange,
)
from service.metrics.result_endpoint import ResultService, caller_of
from service.results.table import Reply

WRITE_PROBLEMS: Final = (TooLarge, UnsupportedMediaType, DatabaseUnavailable)

_DATA: Final = result_operation(*WINDOW, FREE, formats=False)

Catalogue = NamedDependency[Catalog]
Db = NamedDependency[Database]


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
        limit: Limit = 50,
        cursor: Cursor = None,
    ) -> DashboardPage:
        found, following = page_of(catalog.dashboards(read_cursor(cursor, str), limit), limit)
        shown = [DashboardSummary(each.id, each.title, len(each.metrics)) for each in found]
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
            dashboards.view(created),
            status_code=201,
            headers={"Location": f"/api/v1/dashboards/{created.id}"},
        )

    @get(
        "/{dashboard_id:str}",
        operation_id="getDashboard",
        summary="A dashboard's metrics and layouts",
        sync_to_thread=False,
        opt={"problems": (NotFound, DatabaseUnavailable)},
    )
    def dashboard(self, dashboard_id: FromPath[str], catalog: Catalogue) -> DashboardView:
        return dashboards.view(catalog.dashboard(dashboard_id))

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
        return dashboards.view(
            await dashboards.rename_dashboard(database, catalog, dashboard_id, data.title, who)
        )

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
        return dashboards.view(await dashboards.put_layouts(database, catalog, dashboard_id, data, who))

    @patch(
        "/{dashboard_id:str}/tiles/{metric_id:str}",
        operation_id="changeTile",
        summary="Choose how a dashboard draws a metric",
        description="Null lets the chart follow the shape of the result again.",
        opt={"scope": "metrics:write", "problems": (NotFound, *WRITE_PROBLEMS)},
    )
    async def change_tile(
        self,
        dashboard_id: FromPath[str],
        metric_id: FromPath[str],
        data: JSONBody[TileChange],
        request: Call,
        *,
        database: Db,
        catalog: Catalogue,
    ) -> DashboardView:
        tile, who = (dashboard_id, parse_uuid(metric_id)), actor(request.scope)
        return dashboards.view(await dashboards.change_tile(database, catalog, tile, data, who))

    @get(
        "/{dashboard_id:str}/data",
        operation_id="getDashboardData",
        summary="Results of all metrics of a dashboard",
        description="Each metric uses the query parameters that it knows. Its entry lists the others.",
        responses={200: ResponseSpec(DashboardData, generate_examples=False, description="The results")},
        opt={"problems": (NotFound, DatabaseUnavailable), "free_query": True, "operation": _DATA},
    )
    async def data(
        self,
        dashboard_id: FromPath[str],
        request: Call,
        catalog: Catalogue,
        batcher: NamedDependency[Batcher],
        result_service: NamedDependency[ResultService],
    ) -> ASGIResponse:
        version = catalog.version
        dashboard = catalog.dashboard(dashboard_id)
        outcome = await batcher.dashboard(
            dashboard,
            given_once(request),
            caller_of(cast("Scope", request.scope), caller(request.scope)),
        )
        return _send(await result_service.reply(cast("Scope", request.scope), outcome, version))


def _send(reply: Reply) -> ASGIResponse:
    return ASGIResponse(body=reply.body, media_type=reply.headers["content-type"], headers=reply.headers)
