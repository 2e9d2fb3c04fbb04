"""What other tools read, over HTTP."""

from hashlib import blake2b
from typing import Any, Final

from litestar import Controller, Request, Response, get
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath

from service.auth.guards import caller
from service.connect.openmetrics import Exporter
from service.errors import DatabaseUnavailable, NotFound
from service.http.openapi import FREE, WINDOW, scrape_operation
from service.http.requests import given_once
from service.http.scrapes import prefers_openmetrics, scraped
from service.metrics.catalog import Catalog

Call = Request[Any, Any, Any]

_EXAMPLE: Final = """\
# HELP tally_metric_5f3c9c1e_8a55_4a86_9f0e_3b0a4a4d8a11 Alerts by type
# TYPE tally_metric_5f3c9c1e_8a55_4a86_9f0e_3b0a4a4d8a11 gauge
tally_metric_5f3c9c1e_8a55_4a86_9f0e_3b0a4a4d8a11{column="total_alerts",alert_type="Critical"} 3
# HELP tally_result_stale Whether the data may have changed since the run of the result.
# TYPE tally_result_stale gauge
tally_result_stale{metric="5f3c9c1e-8a55-4a86-9f0e-3b0a4a4d8a11"} 0
"""


class OpenMetricsController(Controller):
    path = "/dashboards"
    tags = ("dashboards",)
    opt = {"scope": "metrics:read"}  # noqa: RUF012 (Litestar's way)

    @get(
        "/{dashboard_id:str}/openmetrics",
        operation_id="getDashboardOpenmetrics",
        summary="Values of a dashboard for Prometheus, from held results",
        description="A scrape runs no SQL. `tally_result_held` tells which results are held.",
        responses={200: ResponseSpec(str, generate_examples=False, media_type="text/plain")},
        opt={
            "problems": (NotFound, DatabaseUnavailable),
            "free_query": True,
            "operation": scrape_operation(*WINDOW, FREE, example=_EXAMPLE),
        },
    )
    async def openmetrics(
        self,
        dashboard_id: FromPath[str],
        request: Call,
        catalog: NamedDependency[Catalog],
        exporter: NamedDependency[Exporter],
    ) -> Response[str]:
        openmetrics = prefers_openmetrics(request.headers.get("accept", ""))
        text = await exporter.text(
            catalog.dashboard(dashboard_id),
            given_once(request),
            caller(request.scope).claims,
            openmetrics=openmetrics,
        )
        headers = {
            "Content-Type": scraped(text, openmetrics=openmetrics).media_type,
            "ETag": f'"{blake2b(text.encode(), digest_size=16).hexdigest()}"',
            "Cache-Control": "private, no-cache",
            "Vary": "Accept",
        }
        return Response(text, headers=headers)
