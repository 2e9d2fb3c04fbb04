"""Rules and alerts in the database. Each change and its audit row are one transaction."""

from base64 import b64encode
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from secrets import token_bytes
from typing import Any, Final
from uuid import UUID

import msgspec
from msgspec import UNSET, Struct

from service import audit
from service.alerts.models import (
    CLOSED,
    Alert,
    Definition,
    Delivery,
    NewRule,
    Rule,
    RuleChange,
    RuleMade,
)
from service.alerts.series import key_of
from service.alerts.states import Transition
from service.audit import Actor
from service.database.gateway import Database, Transaction, violation
from service.database.queries import SqlFile
from service.errors import Conflict, NotFound

SECRET_BYTES: Final = 24
MOST_RULES: Final = 1000
MOST_CLOSED: Final = 10_000
"""Closed alerts that are kept of a rule."""
MOST_ENDED: Final = 200
"""Messages that are kept of an alert, beside those that wait."""
RULES_TABLE: Final = "app.alert_rule"
ALERTS_TABLE: Final = "app.alert"
DELIVERIES_TABLE: Final = "app.alert_delivery"


class RuleRow(Struct, frozen=True):
    """A stored rule with what evaluations have noted of it."""

    id: UUID
    metric_id: UUID
    name: str
    definition: dict[str, Any]
    webhook_secret: str | None
    since: str | None
    was_current: bool
    problem: str | None
    created_at: datetime
    updated_at: datetime

    def rule(self) -> Rule:
        own = {
            name: getattr(self, name)
            for name in ("id", "metric_id", "name", "problem", "created_at", "updated_at")
        }
        return msgspec.convert(self.definition | own, Rule)


class OpenAlerts(Struct, frozen=True):
    """How many alerts of a metric are open."""

    metric_id: UUID
    n: int


class Opened(Struct, frozen=True):
    id: UUID


class Trimmed(Struct, frozen=True):
    """A closed alert that was deleted, because newer ones fill the history."""

    point: str
    cause: str


SQL: Final = SqlFile(Path(__file__).with_name("queries.sql"))
_INSERT_RULE: Final = SQL.rows("insert_rule", RuleRow)
_DROP_SECRETS: Final = SQL.command("drop_old_secrets")
_PUT_SECRET: Final = SQL.command("put_secret")
_LIST_RULES: Final = SQL.rows("list_rules", RuleRow)
_PAGE_RULES: Final = SQL.rows("page_rules", RuleRow)
_READ_RULE: Final = SQL.rows("read_rule", RuleRow)
_LOCK_RULE: Final = SQL.rows("lock_rule", RuleRow)
_UPDATE_RULE: Final = SQL.rows("update_rule", RuleRow)
_NOTE_RULE: Final = SQL.command("note_rule")
_DELETE_RULE: Final = SQL.command("delete_rule")
_LIST_ALERTS: Final = SQL.rows("list_alerts_of_rule", Alert)
_TRIM_ALERTS: Final = SQL.rows("trim_alerts", Trimmed)
_TRIM_DELIVERIES: Final = SQL.command("trim_deliveries")
_PAGE_ALERTS: Final = SQL.rows("page_alerts", Alert)
_READ_ALERT: Final = SQL.rows("read_alert", Alert)
_LOCK_ALERT: Final = SQL.rows("lock_alert", Alert)
_INSERT_ALERT: Final = SQL.rows("insert_alert", Opened)
_UPDATE_ALERT: Final = SQL.command("update_alert")
_COUNT_OPEN: Final = SQL.rows("count_open", OpenAlerts)
_PAGE_DELIVERIES: Final = SQL.rows("page_deliveries", Delivery)
_READ_DELIVERY: Final = SQL.rows("read_delivery", Delivery)
_REPLAY: Final = SQL.rows("replay_delivery", Delivery)

_EVALUATED: Final = frozenset(Definition.__struct_fields__) - {"webhook_url", "email"}


def definition_of(rule: Definition) -> dict[str, Any]:
    """The fields of a definition as JSON has them. Numbers of parameters keep their digits."""
    fields: dict[str, Any] = msgspec.to_builtins(rule, builtin_types=(Decimal,))
    return {name: fields[name] for name in Definition.__struct_fields__}


async def create_rule(database: Database, new: NewRule, actor: Actor) -> RuleMade:
    secret = None if new.webhook_url is None else new_secret()
    unknown = NotFound(f"There is no metric {new.metric_id}.")
    async with database.transaction() as tx:
        with violation("alert_rule_metric_id_fkey", unknown):
            row = await tx.read_one(_INSERT_RULE, new.metric_id, new.name, definition_of(new), MOST_RULES)
        if row is None:
            raise Conflict(f"There are {MOST_RULES} rules already: delete some first.")
        if secret is not None:
            await tx.write(_DROP_SECRETS)
            await tx.write(_PUT_SECRET, row.id, secret)
        after = audit.digest(row.definition)
        await audit.record(tx, actor, "alert_rules.create", str(row.id), after=after)
    return made(msgspec.structs.replace(row, webhook_secret=secret))


def made(row: RuleRow) -> RuleMade:
    """The rule with its secret, for whoever made it."""
    fields = msgspec.structs.asdict(row.rule())
    return RuleMade(**fields, webhook_secret=row.webhook_secret)


def new_secret() -> str:
    """A secret as Standard Webhooks writes it."""
    return f"whsec_{b64encode(token_bytes(SECRET_BYTES)).decode()}"


async def list_rules(db: Database | Transaction) -> list[RuleRow]:
    return await db.read(_LIST_RULES)


async def page_rules(db: Database, after: UUID | None, metric_id: UUID | None, limit: int) -> list[Rule]:
    """Up to `limit` + 1 rules, the oldest first."""
    return [row.rule() for row in await db.read(_PAGE_RULES, after, metric_id, limit + 1)]


async def get_rule(db: Database | Transaction, rule_id: UUID) -> RuleRow:
    """Raises `NotFound`."""
    row = await db.read_one(_READ_RULE, rule_id)
    if row is None:
        raise NotFound(f"There is no alert rule {rule_id}.")
    return row


async def lock_rule(tx: Transaction, rule_id: UUID) -> RuleRow | None:
    return await tx.read_one(_LOCK_RULE, rule_id)


def changed(row: RuleRow, change: RuleChange) -> Rule:
    """The rule with the change applied. Raises `InvalidInput` for fields that do not go together."""
    fields = {
        name: value for name in change.__struct_fields__ if (value := getattr(change, name)) is not UNSET
    }
    rule = msgspec.structs.replace(row.rule(), **fields)
    rule.check()
    return rule


async def change_rule(
    database: Database, rule_id: UUID, change: RuleChange, actor: Actor
) -> tuple[RuleRow, str | None]:
    """Change a rule. Returns it with a new secret, if its first webhook address was set.

    A rule that evaluates something else than before starts again: its earlier points are history.
    """
    async with database.transaction() as tx:
        row = await lock_rule(tx, rule_id)
        if row is None:
            raise NotFound(f"There is no alert rule {rule_id}.")
        rule = changed(row, change)
        after = definition_of(rule)
        anew = any(after[name] != row.definition.get(name) for name in _EVALUATED)
        new = new_secret() if rule.webhook_url and row.webhook_secret is None else None
        if new is not None:
            await tx.write(_PUT_SECRET, rule_id, new)
        stored = await tx.read_one(
            _UPDATE_RULE,
            rule_id,
            rule.name,
            after,
            None if anew else row.since,
            row.was_current and not anew,
        )
        assert stored, "the row is locked"
        states = {"before": audit.digest(row.definition), "after": audit.digest(after)}
        await audit.record(tx, actor, "alert_rules.change", str(rule_id), **states)
    return stored, new


async def delete_rule(database: Database, rule_id: UUID, actor: Actor) -> None:
    """Delete a rule with its alerts. Raises `NotFound`."""
    async with database.transaction() as tx:
        row = await lock_rule(tx, rule_id)
        if row is None:
            raise NotFound(f"There is no alert rule {rule_id}.")
        await tx.write(_DELETE_RULE, rule_id)
        await tx.write(_DROP_SECRETS)
        before = audit.digest(row.definition)
        await audit.record(tx, actor, "alert_rules.delete", str(rule_id), before=before)


async def note(db: Database | Transaction, row: RuleRow) -> None:
    """Store what an evaluation has noted of a rule."""
    await db.write(_NOTE_RULE, row.id, row.since, row.was_current, row.problem)


async def alerts_of(db: Database | Transaction, rule_id: UUID) -> list[Alert]:
    """The alerts of a rule that an evaluation may change."""
    return await db.read(_LIST_ALERTS, rule_id)


async def trim_alerts(tx: Transaction, rule_id: UUID) -> list[str]:
    """Bound the history of a rule. Returns the points whose alerts were deleted."""
    deleted = await tx.read(_TRIM_ALERTS, rule_id, MOST_CLOSED)
    return [each.point for each in deleted if each.cause == "value"]


async def trim_messages(tx: Transaction, alert_id: UUID) -> None:
    """Bound the messages of an alert that comes and goes."""
    await tx.write(_TRIM_DELIVERIES, alert_id, MOST_ENDED)


async def put(tx: Transaction, found: Transition, now: datetime) -> bool:
    """Store a new or changed alert. Returns false if the episode is stored already, as an old alert."""
    alert = found.alert
    if not found.is_new:
        await tx.write(
            _UPDATE_ALERT, alert.id, alert.point, alert.last_point, alert.value, alert.expected, alert.state,
            alert.fired_at, alert.resolved_at, alert.acknowledged_at, alert.acknowledged_by, now,
        )  # fmt: skip
        return True
    opened = await tx.read_one(
        _INSERT_ALERT, alert.id, alert.rule_id, alert.metric_id, alert.series, key_of(alert.series),
        alert.point, alert.last_point, alert.value, alert.expected, alert.cause, alert.state,
        alert.opened_at, alert.fired_at, alert.resolved_at, now,
    )  # fmt: skip
    return opened is not None


async def page_alerts(
    db: Database,
    limit: int,
    *,
    before: UUID | None,
    states: Sequence[str] | None = None,
    rule_id: UUID | None = None,
    metric_id: UUID | None = None,
) -> list[Alert]:
    """Up to `limit` + 1 alerts, newest first."""
    return await db.read(_PAGE_ALERTS, before, states, rule_id, metric_id, limit + 1)


async def count_open(db: Database) -> dict[UUID, int]:
    """How many alerts are open, by metric. Pending ones do not count."""
    return {each.metric_id: each.n for each in await db.read(_COUNT_OPEN)}


async def get_alert(db: Database, alert_id: UUID) -> Alert:
    """Raises `NotFound`."""
    alert = await db.read_one(_READ_ALERT, alert_id)
    if alert is None:
        raise NotFound(f"There is no alert {alert_id}.")
    return alert


async def acknowledge(database: Database, alert_id: UUID, actor: Actor, now: datetime) -> Alert:
    """Note that somebody looks after an alert. Raises `NotFound`, and `Conflict` for one that is over."""
    async with database.transaction() as tx:
        # Evaluations lock the rule first, and then its alerts.
        known = await tx.read_one(_READ_ALERT, alert_id)
        if known is not None:
            await lock_rule(tx, known.rule_id)
        alert = await tx.read_one(_LOCK_ALERT, alert_id)
        if alert is None:
            raise NotFound(f"There is no alert {alert_id}.")
        if alert.state in CLOSED:
            raise Conflict(f"The alert is {alert.state}: there is nothing to acknowledge.")
        if alert.state == "acknowledged":
            return alert
        acknowledged = msgspec.structs.replace(
            alert, state="acknowledged", acknowledged_at=now, acknowledged_by=actor.name, updated_at=now
        )
        await put(tx, Transition(acknowledged, (), is_new=False), now)
        await audit.record(tx, actor, "alerts.acknowledge", str(alert_id))
    return acknowledged


async def page_deliveries(
    db: Database, limit: int, *, before: str | None, status: str | None, alert_id: UUID | None
) -> list[Delivery]:
    """Up to `limit` + 1 deliveries, newest first."""
    return await db.read(_PAGE_DELIVERIES, before, status, alert_id, limit + 1)


async def replay(database: Database, delivery_id: str, actor: Actor) -> Delivery:
    """Try a dead delivery again, with the same body and id. Raises `NotFound` and `Conflict`."""
    async with database.transaction() as tx:
        again = await tx.read_one(_REPLAY, delivery_id)
        if again is None:
            if (known := await tx.read_one(_READ_DELIVERY, delivery_id)) is None:
                raise NotFound(f"There is no delivery {delivery_id[:60]!r}.")
            raise Conflict(f"The delivery is {known.status}: only dead ones are replayed.")
        await audit.record(tx, actor, "alert_deliveries.replay", delivery_id)
    return again
