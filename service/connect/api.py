"""What other tools read, over HTTP."""

from typing import Any, Final

from litestar import Controller, Response, get, post
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath

from service.auth.guards import caller
from service.connect.openmetrics import Exporter
from service.errors import (
    DatabaseUnavailable,
    LiveUnavailable,
    MethodNotAllowed,
    NotAcceptable,
    NotFound,
    TooLarge,
    TooManyStreams,
    UnsupportedMediaType,
)
from service.http.asgi import header_of
from service.http.openapi import FREE, WINDOW, Object, scrape_operation
from service.http.representation import strong_tag
from service.http.requests import Call, given_once
from service.http.scrapes import prefers_openmetrics, scraped
from service.metrics.catalog import Catalog

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
        openmetrics = prefers_openmetrics(header_of(request.scope, b"accept"))
        text = await exporter.text(
            catalog.dashboard(dashboard_id),
            given_once(request),
            caller(request.scope).claims,
            openmetrics=openmetrics,
        )
        headers = {
            "Content-Type": scraped(text, openmetrics=openmetrics).media_type,
            "ETag": strong_tag(text.encode()),
            "Cache-Control": "private, no-cache",
            "Vary": "Accept",
        }
        return Response(text, headers=headers)


_ASKED: Final = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "tools/call",
    "params": {
        "name": "get_metric",
        "arguments": {"id": "5f3c9c1e-8a55-4a86-9f0e-3b0a4a4d8a11", "parameters": {"day_range": 30}},
    },
}
_ANSWERED: Final = {
    "jsonrpc": "2.0",
    "id": 1,
    "result": {
        "content": [{"type": "text", "text": '{"records":[{"total_alerts":3}],"row_count":1}'}],
        "structuredContent": {"records": [{"total_alerts": 3}], "row_count": 1},
        "isError": False,
        "ttlMs": 0,
        "cacheScope": "private",
    },
}
_REFUSED: Final = {"jsonrpc": "2.0", "id": 1, "error": {"code": -32602, "message": "There is no tool 'x'."}}
_STREAMED: Final = """\
event: message
data: {"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"tally://metrics/..."}}

"""
_MESSAGE: Final[Object] = {
    "type": "object",
    "required": ["jsonrpc", "method"],
    "properties": {
        "jsonrpc": {"const": "2.0"},
        "id": {"type": ["string", "integer"], "maxLength": 256},
        "method": {"type": "string"},
        "params": {"type": "object"},
    },
}
_TEXT: Final = (
    "One JSON-RPC message per request, of revision 2026-07-28 or, after `initialize`, of an earlier one. "
    "Tools: `list_metrics`, `get_metric`, `explain_metric`, and `draft_metric`, which needs the scope "
    "`metrics:write`. `subscriptions/listen` is answered by a stream that tells which results have changed."
)


def _example(example: Object) -> Object:
    return {"content": {"application/json": {"schema": {"type": "object"}, "example": example}}}


_OPERATION: Final[Object] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": _MESSAGE, "example": _ASKED}},
    },
    "responses": {
        "200": {
            "content": _example(_ANSWERED)["content"]
            | {"text/event-stream": {"schema": {"type": "string"}, "example": _STREAMED}}
        },
        "202": {"description": "A notification was taken"},
        "400": _example(_REFUSED),
        "404": _example(_REFUSED),
    },
}


@post(
    "/mcp",
    operation_id="callMcp",
    tags=["assistants"],
    summary="Metrics for assistants, by the Model Context Protocol",
    description=_TEXT,
    status_code=200,
    responses={200: ResponseSpec(dict[str, Any], generate_examples=False, description="The answer")},
    sync_to_thread=False,
    opt={
        "scope": "metrics:read",
        "operation": _OPERATION,
        "problems": (
            NotAcceptable,
            NotFound,
            TooLarge,
            UnsupportedMediaType,
            TooManyStreams,
            LiveUnavailable,
        ),
    },
)
def mcp() -> None:
    # `McpEndpoint` answers before the router.
    raise MethodNotAllowed(headers={"Allow": "POST"})
