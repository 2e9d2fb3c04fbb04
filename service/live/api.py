"""Live results over HTTP: tickets, and the description of the event streams that `streams.py` answers."""

from typing import Annotated, Any, Final

from litestar import Controller, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, QueryParameter
from msgspec import Struct

from service.auth.guards import caller
from service.auth.live import TICKET_S, LiveRights
from service.errors import (
    Busy,
    DatabaseUnavailable,
    LiveUnavailable,
    MethodNotAllowed,
    MetricSuspended,
    NotFound,
    QueryTimeout,
    ResultTooLarge,
    TooManyStreams,
)
from service.http.openapi import FREE, WINDOW, Object, query
from service.http.requests import Call

_EVENTS: Final = """event: result
id: "0f3c0f3c0f3c0f3c0f3c0f3c0f3c0f3c"
data: {"id":"5f3c9c1e-8a55-4a86-9f0e-3b0a4a4d8a11","records":[{"total_alerts":3}],"row_count":1}

"""
_TEXT: Final = (
    "Server-sent events. `result`: the result as JSON, at once and after each change; its `id` is the ETag "
    "(of several metrics the vector `metric:hash,metric:hash`), and a client that returns it as "
    "`Last-Event-ID` gets only what it lacks. `stale` (with `since`) and `fresh`: whether the shown result "
    "may be outdated. `alert` (with `open`): how many alerts of the metric are open, for callers with "
    "`alerts:read`. `problem`: why there is no result. `gone`: the metric was deleted; a new request gets "
    "204. `denied`: the token ended. `reconnect`: the server goes away; come back after `retry` milliseconds."
)
_RESUME: Final[list[Object]] = [
    {
        "name": "Last-Event-ID",
        "in": "header",
        "required": False,
        "description": "the `id` of the last event that the client holds",
        "schema": {"type": "string"},
    },
    query("last_event_id", "the same, where a client cannot send headers"),
    query("ticket", "a ticket of `/live/tickets`, where a client cannot send headers"),
]


def _operation(*parameters: Object) -> Object:
    content = {"text/event-stream": {"schema": {"type": "string"}, "example": _EVENTS}}
    return {
        "parameters": [*parameters, *WINDOW, FREE, *_RESUME],
        "responses": {
            "200": {"description": "The events", "content": content},
            "204": {"description": "The metric was deleted: do not come back"},
        },
    }


_OPT: Final[dict[str, Any]] = {
    "problems": (NotFound, ResultTooLarge, QueryTimeout, TooManyStreams, LiveUnavailable),
    "free_query": True,
    "operation": _operation(),
}


def _only_get() -> MethodNotAllowed:
    """`EventStreams` answers each GET before the router, which adds HEAD."""
    return MethodNotAllowed(headers={"Allow": "GET"})


class Ticket(Struct, frozen=True):
    """A ticket, and for how many seconds a stream can be opened with it."""

    ticket: str
    expires_in: int


class LiveController(Controller):
    tags = ("live",)
    opt = {"scope": "metrics:read"}  # noqa: RUF012 (Litestar's way)

    @get(
        "/metrics/{metric_id:str}/events",
        operation_id="watchMetric",
        summary="A metric's result, now and after each change",
        description=_TEXT,
        sync_to_thread=False,
        opt={**_OPT, "problems": (*_OPT["problems"], MetricSuspended, Busy, DatabaseUnavailable)},
    )
    def metric(self, metric_id: FromPath[str]) -> None:
        del metric_id
        raise _only_get()

    @get(
        "/events",
        operation_id="watchMetrics",
        summary="Several metrics in one stream",
        description=_TEXT,
        sync_to_thread=False,
        opt=_OPT,
    )
    def metrics(
        self,
        ids: Annotated[str, QueryParameter(description="UUIDs of metrics, separated by commas")],
    ) -> None:
        del ids
        raise _only_get()

    @get(
        "/dashboards/{dashboard_id:str}/events",
        operation_id="watchDashboard",
        summary="All metrics of a dashboard in one stream",
        description=_TEXT,
        sync_to_thread=False,
        opt=_OPT,
    )
    def dashboard(self, dashboard_id: FromPath[str]) -> None:
        del dashboard_id
        raise _only_get()

    @post(
        "/live/tickets",
        operation_id="createTicket",
        summary="A ticket that opens a stream where no header can be sent",
        description=f"It holds for {TICKET_S} s. What it opens lasts as long as the token of this request.",
        opt={"problems": ()},
    )
    async def ticket(self, request: Call, live_rights: NamedDependency[LiveRights]) -> Response[Ticket]:
        signed = live_rights.ticket(caller(request.scope), request.headers.get("authorization", ""))
        return Response(Ticket(signed, TICKET_S), status_code=201, headers={"Cache-Control": "no-store"})
