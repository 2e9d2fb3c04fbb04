"""What receivers of alerts get: one text that chats show, and the alert as JSON, in the same body."""

from base64 import b64decode, b64encode
from datetime import datetime
from hmac import digest
from typing import Any, Final
from uuid import uuid4

import msgspec
from msgspec import Struct

from service.alerts.models import Alert, Rule, State
from service.http import bodies

SECRET_PREFIX: Final = "whsec_"  # noqa: S105 (how a secret begins)
TEXT_LENGTH: Final = 1000
_WORDS: Final[dict[State, str]] = {
    "firing": "Alert",
    "resolved": "Resolved",
    "withdrawn": "Withdrawn",
    "nodata": "No data",
    "stale": "Data are old",
    "pending": "Pending",
    "acknowledged": "Acknowledged",
}


class Message(Struct, frozen=True):
    """A message to one receiver. The body is the same for each try."""

    id: str
    kind: str
    target: str
    event: str
    body: str


def messages(rule: Rule, alert: Alert, state: State, now: datetime, page: str) -> list[Message]:
    """The messages that an alert has a new state: to its webhook, and to its mailboxes."""
    alert = msgspec.structs.replace(alert, state=state)
    body: dict[str, Any] = {
        "text": text_of(rule, alert),
        "event": f"alert.{state}",
        "occurred_at": now,
        "alert": alert,
        "rule": {"id": rule.id, "name": rule.name, "kind": rule.kind, "column": rule.column},
        "url": page,
    }
    encoded = bodies.encode(body).decode()
    targets = [("webhook", rule.webhook_url)] if rule.webhook_url else []
    if rule.email:
        targets.append(("email", ",".join(rule.email)))
    return [
        Message(f"msg_{uuid4().hex}", kind, target, f"alert.{state}", encoded) for kind, target in targets
    ]


def text_of(rule: Rule, alert: Alert) -> str:
    """One line. Words of data cannot mention people or make links."""
    where = ", ".join(f"{name} {value}" for name, value in alert.series.items() if value is not None)
    parts = [f"{_WORDS[alert.state]}: {rule.name}"]
    if where:
        parts.append(where)
    span = alert.point if alert.point == alert.last_point else f"{alert.point} to {alert.last_point}"
    if span:
        parts.append(span)
    if alert.value is not None:
        value = f"{rule.column} {_number(alert.value)}"
        if alert.expected is not None:
            word = "bound" if rule.kind == "threshold" else "before" if rule.kind == "change" else "expected"
            value += f" ({word} {_number(alert.expected)})"
        parts.append(value)
    return _inert(" · ".join(parts))[:TEXT_LENGTH]


def _number(value: float) -> str:
    return f"{value:.6g}" if abs(value) < 1e6 else f"{value:,.0f}"  # noqa: PLR2004 (shorter than an exponent)


def _inert(text: str) -> str:
    """Text that Slack and Mattermost show as it is: no markup of links, no mentions, one line."""
    plain = "".join(each if each.isprintable() else " " for each in text)
    plain = plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return plain.replace("@", "@\u200b").replace("](", "]\u200b(")


def headers(
    message: Message,
    *,
    secret: str | None,
    created_at: datetime,
    sent_at: datetime,
    rule_id: Any,
    alert_id: Any,
) -> dict[str, str]:
    """The headers of one try: Standard Webhooks' signature, and CloudEvents in binary mode."""
    timestamp = str(int(sent_at.timestamp()))
    found = {
        "Content-Type": "application/json",
        "User-Agent": "tally",
        "webhook-id": message.id,
        "webhook-timestamp": timestamp,
        "ce-specversion": "1.0",
        "ce-id": message.id,
        "ce-type": f"tally.{message.event}",
        "ce-source": f"/api/v1/alerts/rules/{rule_id}",
        "ce-subject": str(alert_id),
        "ce-time": created_at.isoformat().replace("+00:00", "Z"),
    }
    if secret is not None:
        found["webhook-signature"] = signature(secret, message.id, timestamp, message.body)
    return found


def signature(secret: str, message_id: str, timestamp: str, body: str) -> str:
    """`v1,` and base64 of the HMAC-SHA256 of `id.timestamp.body` (Standard Webhooks)."""
    key = b64decode(secret.removeprefix(SECRET_PREFIX))
    signed = f"{message_id}.{timestamp}.{body}".encode()
    return f"v1,{b64encode(digest(key, signed, 'sha256')).decode()}"
