"""Alerts over HTTP: rules, what they found, and what was sent of it."""

from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from litestar import Controller, Response, delete, get, patch, post
from litestar.datastructures import ResponseHeader
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody, QueryParameter

from service.alerts import store
from service.alerts.models import (
    Alert,
    AlertPage,
    Bands,
    Delivery,
    DeliveryPage,
    NewRule,
    Rule,
    RuleChange,
    RuleMade,
    RulePage,
    RulePreview,
    State,
    Trial,
)
from service.alerts.rules import Rules
from service.auth.guards import actor
from service.database.gateway import Database
from service.errors import (
    Busy,
    Conflict,
    DatabaseUnavailable,
    MetricSuspended,
    NotFound,
    QueryTimeout,
    ResultTooLarge,
    TooLarge,
    UnsupportedMediaType,
)
from service.http.cursors import Cursor, Limit, page_of, read_cursor
from service.http.ids import parse_uuid
from service.http.requests import Call, Exact

_METRIC: Final = "c797b618-df12-45f7-bbb2-cc6695a48e46"
_RULE_ID: Final = "0b7d4f43-6f19-4ef3-8d0e-0a3bd5a6b8f1"
_BODY: Final = {
    "name": "Interactions per channel",
    "metric_id": _METRIC,
    "column": "interactions",
    "by": ["channel"],
    "kind": "anomaly",
    "sensitivity": 4,
    "webhook_url": "https://hooks.example.org/alerts",
}
_RULE: Final[dict[str, Any]] = {
    "id": _RULE_ID,
    "parameters": {},
    "at": None,
    "above": None,
    "below": None,
    "change": None,
    "min_volume": None,
    "for_s": 0,
    "resolve": None,
    "settle_s": 0,
    "missing": "unknown",
    "holidays": [],
    "email": [],
    "problem": None,
    "created_at": "2025-08-02T09:00:00Z",
    "updated_at": "2025-08-02T09:00:00Z",
    **_BODY,
}
_ALERT: Final[dict[str, Any]] = {
    "id": "7a0c2a52-6d0f-4a79-8a3f-8d9c1e0b9b11",
    "rule_id": _RULE_ID,
    "rule_name": "Interactions per channel",
    "metric_id": _METRIC,
    "series": {"channel": "Email"},
    "point": "2025-08-01",
    "last_point": "2025-08-01",
    "value": 42.0,
    "expected": 12.1,
    "cause": "value",
    "state": "firing",
    "opened_at": "2025-08-02T00:10:00Z",
    "fired_at": "2025-08-02T00:10:00Z",
    "resolved_at": None,
    "acknowledged_at": None,
    "acknowledged_by": None,
    "updated_at": "2025-08-02T00:10:00Z",
}
_DELIVERY: Final[dict[str, Any]] = {
    "id": "msg_9b2f4c0d6a8e4f3f9d2d6f7d0f1a2b3c",
    "alert_id": _ALERT["id"],
    "rule_id": _RULE_ID,
    "kind": "webhook",
    "target": "https://hooks.example.org/alerts",
    "event": "alert.firing",
    "status": "dead",
    "tries": 5,
    "next_try_at": "2025-08-02T00:13:00Z",
    "last_error": "answered 500",
    "created_at": "2025-08-02T00:10:00Z",
    "delivered_at": None,
}
_FOUND: Final = {"series": {"channel": "Email"}, "point": "2025-08-01", "value": 42.0, "expected": 12.1}
_BAND: Final = {
    "point": "2025-08-01",
    "value": 42.0,
    "expected": 12.1,
    "low": 1.0,
    "high": 27.0,
    "unusual": True,
}

_RUN: Final = (NotFound, ResultTooLarge, QueryTimeout, MetricSuspended, Busy, DatabaseUnavailable)
_WRITE: Final = (NotFound, QueryTimeout, TooLarge, UnsupportedMediaType, Busy, DatabaseUnavailable)
_READ: Final = (NotFound, DatabaseUnavailable)
LOCATION: Final = ResponseHeader(name="Location", description="the rule's address", documentation_only=True)

Db = NamedDependency[Database]
Checked = NamedDependency[Rules]
MetricId = Annotated[str | None, QueryParameter(description="only those of this metric")]


def _uuid(text: str | None) -> UUID | None:
    return None if text is None else parse_uuid(text)


class AlertsController(Controller):
    path = "/alerts"
    tags = ("alerts",)
    opt = {"scope": "alerts:read"}  # noqa: RUF012 (Litestar's way)

    @post(
        "/rules",
        operation_id="createAlertRule",
        summary="Create a rule that evaluates a metric's results",
        description="The secret that signs its webhooks is in this answer and nowhere after.",
        response_headers=[LOCATION],
        opt={
            "scope": "alerts:write",
            "problems": (*_WRITE, Conflict),
            "example": {**_RULE, "webhook_secret": "whsec_c2VjcmV0"},
        },
    )
    async def create_rule(
        self, data: JSONBody[NewRule], request: Call, alert_rules: Checked
    ) -> Response[RuleMade]:
        made = await alert_rules.create(data, actor(request.scope))
        headers = {"Location": f"/api/v1/alerts/rules/{made.id}", "Cache-Control": "no-store"}
        return Exact(made, status_code=201, headers=headers)

    @get(
        "/rules",
        operation_id="listAlertRules",
        summary="Rules, oldest first, paged",
        opt={"problems": (DatabaseUnavailable,), "example": {"items": [_RULE], "next_cursor": None}},
    )
    async def list_rules(
        self, database: Db, metric_id: MetricId = None, limit: Limit = 50, cursor: Cursor = None
    ) -> RulePage:
        after = read_cursor(cursor, UUID)
        found = await store.page_rules(database, after, _uuid(metric_id), limit)
        return RulePage(*page_of(found, limit))

    @post(
        "/rules/preview",
        operation_id="previewAlertRule",
        summary="What a rule would have found in the present result",
        status_code=200,
        opt={
            "problems": (*_RUN, TooLarge, UnsupportedMediaType),
            "example": {"points": 365, "alerts": [_FOUND]},
        },
    )
    async def preview(self, data: JSONBody[Trial], alert_rules: Checked) -> RulePreview:
        return await alert_rules.preview(data)

    @get(
        "/rules/{rule_id:str}",
        operation_id="getAlertRule",
        summary="A rule",
        opt={"problems": _READ, "example": _RULE},
    )
    async def read_rule(self, rule_id: FromPath[str], database: Db) -> Rule:
        return (await store.get_rule(database, parse_uuid(rule_id))).rule()

    @get(
        "/rules/{rule_id:str}/bands",
        operation_id="getAlertBands",
        summary="The points of a rule with what is usual, for charts",
        opt={
            "problems": _RUN,
            "example": {
                "rule_id": _RULE_ID,
                "metric_id": _METRIC,
                "column": "interactions",
                "series": [{"series": {"channel": "Email"}, "points": [_BAND]}],
            },
        },
    )
    async def bands(self, rule_id: FromPath[str], alert_rules: Checked) -> Bands:
        return await alert_rules.bands(parse_uuid(rule_id))

    @patch(
        "/rules/{rule_id:str}",
        operation_id="changeAlertRule",
        summary="Change a rule",
        description="A rule that evaluates something else starts again: earlier points are history.",
        opt={"scope": "alerts:write", "problems": _WRITE, "example": {**_RULE, "webhook_secret": None}},
    )
    async def change_rule(
        self, rule_id: FromPath[str], data: JSONBody[RuleChange], request: Call, alert_rules: Checked
    ) -> RuleMade:
        return await alert_rules.change(parse_uuid(rule_id), data, actor(request.scope))

    @delete(
        "/rules/{rule_id:str}",
        operation_id="deleteAlertRule",
        summary="Delete a rule with its alerts",
        opt={"scope": "alerts:write", "problems": _READ},
    )
    async def delete_rule(self, rule_id: FromPath[str], request: Call, database: Db) -> None:
        await store.delete_rule(database, parse_uuid(rule_id), actor(request.scope))

    @get(
        "/",
        operation_id="listAlerts",
        summary="Alerts, newest first, paged",
        opt={"problems": (DatabaseUnavailable,), "example": {"items": [_ALERT], "next_cursor": None}},
    )
    async def list_alerts(
        self,
        database: Db,
        *,
        states: Annotated[
            list[State] | None, QueryParameter(name="state", description="only in these states")
        ] = None,
        rule_id: Annotated[str | None, QueryParameter(description="only those of this rule")] = None,
        metric_id: MetricId = None,
        limit: Limit = 50,
        cursor: Cursor = None,
    ) -> AlertPage:
        before = read_cursor(cursor, UUID)
        found = await store.page_alerts(
            database, limit, before=before, states=states, rule_id=_uuid(rule_id), metric_id=_uuid(metric_id)
        )
        return AlertPage(*page_of(found, limit))

    @get(
        "/{alert_id:str}",
        operation_id="getAlert",
        summary="An alert",
        opt={"problems": _READ, "example": _ALERT},
    )
    async def read_alert(self, alert_id: FromPath[str], database: Db) -> Alert:
        return await store.get_alert(database, parse_uuid(alert_id))

    @post(
        "/{alert_id:str}/acknowledge",
        operation_id="acknowledgeAlert",
        summary="Say that somebody looks after an alert",
        status_code=200,
        opt={
            "scope": "alerts:write",
            "problems": (*_READ, Conflict),
            "example": {**_ALERT, "state": "acknowledged", "acknowledged_by": "ana"},
        },
    )
    async def acknowledge(self, alert_id: FromPath[str], request: Call, database: Db) -> Alert:
        who = actor(request.scope)
        return await store.acknowledge(database, parse_uuid(alert_id), who, datetime.now(UTC))

    @get(
        "/deliveries",
        operation_id="listAlertDeliveries",
        summary="Messages about alerts, newest first, paged",
        opt={"problems": (DatabaseUnavailable,), "example": {"items": [_DELIVERY], "next_cursor": None}},
    )
    async def list_deliveries(
        self,
        database: Db,
        status: Annotated[
            Literal["waiting", "delivered", "dead"] | None, QueryParameter(description="only in this state")
        ] = None,
        alert_id: Annotated[str | None, QueryParameter(description="only those of this alert")] = None,
        limit: Limit = 50,
        cursor: Cursor = None,
    ) -> DeliveryPage:
        before = read_cursor(cursor, str)
        found = await store.page_deliveries(
            database, limit, before=before, status=status, alert_id=_uuid(alert_id)
        )
        return DeliveryPage(*page_of(found, limit))

    @post(
        "/deliveries/{delivery_id:str}/replay",
        operation_id="replayAlertDelivery",
        summary="Try a dead message again, with the same body and id",
        status_code=200,
        opt={
            "scope": "alerts:write",
            "problems": (*_READ, Conflict),
            "example": {**_DELIVERY, "status": "waiting", "tries": 0},
        },
    )
    async def replay(self, delivery_id: FromPath[str], request: Call, database: Db) -> Delivery:
        return await store.replay(database, delivery_id, actor(request.scope))
