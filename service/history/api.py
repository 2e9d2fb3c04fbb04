"""The history of a metric's results over HTTP."""

from typing import Annotated, Any, Final

import msgspec
from litestar import Controller, MediaType, Response, get
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, QueryParameter

from service.auth.guards import caller
from service.errors import Busy, DatabaseUnavailable, FieldError, InvalidInput, NotFound, QueryTimeout
from service.history.histories import Histories
from service.history.models import History
from service.http.cursors import Cursor, read_id_cursor, write_cursor
from service.http.ids import MAX_ID, parse_uuid
from service.http.openapi import FREE, HEADERS, IF_NONE_MATCH, WINDOW
from service.http.representation import strong_tag
from service.http.requests import Call

MAX_PAGE: Final = 50
OWN: Final = frozenset({"limit", "cursor"})
OF_THE_METRIC: Final = {f"metric.{name}": name for name in OWN}
"""How a parameter of the metric is written whose name is one of the page's own."""
_EXAMPLE: Final[dict[str, Any]] = {
    "id": "5f3c9c1e-8a55-4a86-9f0e-3b0a4a4d8a11",
    "title": "Alerts by type",
    "items": [
        {
            "id": 12,
            "as_of": "2025-08-02T09:00:00Z",
            "since": "2025-08-01T16:20:00Z",
            "version": 3,
            "row_count": 2,
            "truncated": False,
            "left_out": 0,
            "causes": [
                {
                    "kind": "import",
                    "id": "0b7d4f43-6f19-4ef3-8d0e-0a3bd5a6b8f1",
                    "dataset": "metric_records",
                    "source": "august.csv",
                    "rows_read": 3,
                    "inserted": 3,
                    "updated": 0,
                    "gone": 0,
                    "actor": "loader",
                    "at": "2025-08-02T08:59:58Z",
                }
            ],
            "difference": {
                "compared": [
                    {"name": "alert_type", "type": "text"},
                    {"name": "total_alerts", "type": "bigint"},
                ],
                "keys": ["alert_type"],
                "columns": {"added": [], "removed": [], "retyped": []},
                "totals": {"added": 1, "removed": 0, "changed": 1, "unchanged": 0},
                "added": [{"alert_type": "Info", "total_alerts": 1}],
                "removed": [],
                "changed": [
                    {
                        "key": {"alert_type": "Critical"},
                        "values": [{"column": "total_alerts", "before": 3, "after": 5, "delta": 2}],
                    }
                ],
                "reordered": False,
            },
            "difference_note": None,
        }
    ],
    "next_cursor": None,
    "note": None,
}
_HEADERS: Final = {name: HEADERS[name] for name in ("ETag", "Vary", "X-Request-ID")}
_OPERATION: Final = {
    "parameters": [*WINDOW, FREE, IF_NONE_MATCH],
    "responses": {
        "200": {"headers": _HEADERS},
        "304": {"description": "Not modified: the client holds this history", "headers": _HEADERS},
    },
}


class HistoryController(Controller):
    path = "/metrics"
    tags = ("metrics",)
    opt = {"scope": "metrics:read"}  # noqa: RUF012 (Litestar's way)

    @get(
        "/{metric_id:str}/history",
        operation_id="getMetricHistory",
        summary="Why a metric's numbers changed",
        description="Its last distinct results, newest first, each with the rows that differ from the one "
        "before and with what happened between the two. It takes the parameters of the metric; those that "
        "are named `limit` or `cursor` are written `metric.limit` and `metric.cursor`. Callers with "
        "the scope `admin` are told who did it, and those with `imports:write` the files.",
        responses={200: ResponseSpec(History, generate_examples=False, description="The history")},
        opt={
            "problems": (NotFound, QueryTimeout, Busy, DatabaseUnavailable),
            "free_query": True,
            "operation": _OPERATION,
            "example": _EXAMPLE,
        },
    )
    async def history(
        self,
        metric_id: FromPath[str],
        request: Call,
        histories: NamedDependency[Histories],
        limit: Annotated[int, QueryParameter(ge=1, le=MAX_PAGE, description="items in a page")] = 10,
        cursor: Cursor = None,
    ) -> Response[bytes]:
        given = _given([(str(name), str(text)) for name, text in request.query_params.multi_items()])
        before = read_id_cursor(cursor, MAX_ID)
        scopes = caller(request.scope).scopes
        found, following = await histories.page(
            parse_uuid(metric_id), given, before=before, limit=limit, scopes=scopes
        )
        if following is not None:
            found = msgspec.structs.replace(found, next_cursor=write_cursor(following))
        body = msgspec.json.encode(found)
        headers = {"ETag": strong_tag(body), "Cache-Control": "no-cache"}
        return Response(body, media_type=MediaType.JSON, headers=headers)


def _given(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The parameters of the metric: all that are not the page's own."""
    names = [name for name, _ in pairs]
    if twice := sorted(name for name in OWN if names.count(name) > 1):
        raise InvalidInput(errors=tuple(FieldError(name, "given more than once") for name in twice))
    return [(OF_THE_METRIC.get(name, name), text) for name, text in pairs if name not in OWN]
