"""The Structs of rules and alerts, in the database and in the API."""

from datetime import date, datetime
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from msgspec import UNSET, Meta, Struct, UnsetType

from service.alerts.detect import DEFAULT_SENSITIVITY
from service.errors import FieldError, InvalidInput
from service.metrics.models import Title

Kind = Literal["threshold", "change", "anomaly"]
State = Literal["pending", "firing", "resolved", "nodata", "stale", "withdrawn", "acknowledged"]
Cause = Literal["value", "missing"]
CLOSED: Final = frozenset({"resolved", "withdrawn"})
"""The states of an alert that nobody has to look at any more."""

Bound = Annotated[float, Meta(ge=-1e300, le=1e300)]
Share = Annotated[float, Meta(gt=0, le=1e6)]
Sensitivity = Annotated[float, Meta(ge=1, le=12)]
Seconds = Annotated[float, Meta(ge=0, le=31_536_000)]
ColumnName = Annotated[str, Meta(min_length=1, max_length=63, pattern=r"^[^\x00]*$")]
Columns = Annotated[tuple[ColumnName, ...], Meta(max_length=8)]
Holidays = Annotated[tuple[date, ...], Meta(max_length=1000)]
Address = Annotated[str, Meta(min_length=1, max_length=2000, pattern=r"^[^\s\x00]*$")]
Mailbox = Annotated[str, Meta(max_length=254, pattern=r"^[^\s@,;<>\x00-\x1f]+@[A-Za-z0-9.-]+$")]
Mailboxes = Annotated[tuple[Mailbox, ...], Meta(max_length=20)]


class Definition(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """What a rule evaluates, and whom it tells.

    - `by`: the columns that tell the series apart. By default all texts; every series is evaluated.
    - `at`: the column with the time of the point. By default the first date or timestamp.
    - `above`, `below`: bounds of a `threshold`, or fractions of a `change` (0.5: half more, half less).
    - `change`: the same fraction in both directions.
    - `sensitivity` of an `anomaly`: the tail probability as a power of ten (4: p < 1e-4).
    - `min_volume`: points are evaluated only if they, or what was expected, are at least this large.
    - `for_s`: an alert fires when its values have been unusual for so long.
    - `resolve`: the bound, fraction or sensitivity at which an alert ends, instead of the one at which it
      began.
    - `settle_s`: how long after its time a point may still change, and is not evaluated.
    - `missing`: what a point without a row means.
    - `holidays`: days that may be as quiet as a Sunday.
    """

    parameters: dict[str, Any] = {}
    column: ColumnName
    by: Columns | None = None
    at: ColumnName | None = None
    kind: Kind
    above: Bound | None = None
    below: Bound | None = None
    change: Share | None = None
    sensitivity: Sensitivity = DEFAULT_SENSITIVITY
    min_volume: Bound | None = None
    for_s: Seconds = 0
    resolve: Bound | None = None
    settle_s: Seconds = 0
    missing: Literal["unknown", "zero"] = "unknown"
    holidays: Holidays = ()
    webhook_url: Address | None = None
    email: Mailboxes = ()

    def bounds(self) -> tuple[float | None, float | None]:
        """The upper and the lower bound: values of a threshold, fractions of a change (the lower below 0)."""
        if self.kind == "threshold":
            return self.above, self.below
        below = self.change if self.below is None else abs(self.below)
        return (self.change if self.above is None else self.above), None if below is None else -below

    def check(self) -> None:
        """Raise `InvalidInput` for fields that do not go together."""
        wrong = [FieldError(*each) for each in _CHECKS[self.kind](self)]
        if self.by is not None and len(set(self.by)) != len(self.by):
            wrong.append(FieldError("by", "names a column twice"))
        if self.column in {self.at, *(self.by or ())}:
            wrong.append(FieldError("column", "is also in `by` or `at`: it is the value that is evaluated"))
        if wrong:
            raise InvalidInput(errors=tuple(wrong))


Checked = list[tuple[str, str]]


def _check_threshold(rule: Definition) -> Checked:
    wrong: Checked = []
    above, below = rule.above, rule.below
    if above is None and below is None:
        wrong.append(("above", "a threshold needs `above`, `below` or both"))
    if rule.change is not None:
        wrong.append(("change", "belongs to the kind `change`"))
    if above is not None and below is not None and below > above:
        wrong.append(("below", "is larger than `above`"))
    outside = rule.resolve is not None and (
        (above is not None and rule.resolve > above) or (below is not None and rule.resolve < below)
    )
    if outside:
        wrong.append(("resolve", "has to be on the usual side of the bound"))
    return wrong


def _check_change(rule: Definition) -> Checked:
    wrong: Checked = []
    above, below = rule.bounds()
    if above is None and below is None:
        wrong.append(("change", "give the fraction as `change` (both directions), `above` or `below`"))
    if above is not None and above <= 0:
        wrong.append(("above", "is a fraction larger than 0 here: 0.5 is half more than the point before"))
    if below == 0:
        wrong.append(("below", "is a fraction other than 0 here: 0.5 is half less than the point before"))
    smallest = min(each for each in (above, below and -below, 1e300) if each is not None)
    if rule.resolve is not None and not 0 <= rule.resolve <= smallest:
        wrong.append(("resolve", "has to be from 0 to the fraction at which the alert begins"))
    return wrong


def _check_anomaly(rule: Definition) -> Checked:
    wrong: Checked = []
    for name in ("above", "below", "change"):
        if getattr(rule, name) is not None:
            wrong.append((name, "an anomaly has no bounds of its own: set `sensitivity`"))
    if rule.resolve is not None and not 0 < rule.resolve <= rule.sensitivity:
        wrong.append(("resolve", "has to be above 0 and at most `sensitivity`"))
    return wrong


_CHECKS: Final = {"threshold": _check_threshold, "change": _check_change, "anomaly": _check_anomaly}


class NewRule(Definition, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new rule."""

    name: Title
    metric_id: UUID


class Trial(Definition, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A rule to try over history. Its name does not matter."""

    name: Title | None = None
    metric_id: UUID


class RuleChange(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fields to change. Other fields keep their values."""

    name: Title | UnsetType = UNSET
    parameters: dict[str, Any] | UnsetType = UNSET
    column: ColumnName | UnsetType = UNSET
    by: Columns | UnsetType | None = UNSET
    at: ColumnName | UnsetType | None = UNSET
    kind: Kind | UnsetType = UNSET
    above: Bound | UnsetType | None = UNSET
    below: Bound | UnsetType | None = UNSET
    change: Share | UnsetType | None = UNSET
    sensitivity: Sensitivity | UnsetType = UNSET
    min_volume: Bound | UnsetType | None = UNSET
    for_s: Seconds | UnsetType = UNSET
    resolve: Bound | UnsetType | None = UNSET
    settle_s: Seconds | UnsetType = UNSET
    missing: Literal["unknown", "zero"] | UnsetType = UNSET
    holidays: Holidays | UnsetType = UNSET
    webhook_url: Address | UnsetType | None = UNSET
    email: Mailboxes | UnsetType = UNSET


class Rule(Definition, frozen=True, kw_only=True):
    """A stored rule. `problem` says why it cannot be evaluated."""

    id: UUID
    name: str
    metric_id: UUID
    problem: str | None
    created_at: datetime
    updated_at: datetime


class RuleMade(Rule, frozen=True, kw_only=True):
    """A created rule, with the secret that signs its webhooks. It is shown only here."""

    webhook_secret: str | None


class RulePage(Struct, frozen=True):
    items: list[Rule]
    next_cursor: str | None


class Alert(Struct, frozen=True):
    """An episode in which a series was unusual, or its data missing.

    `point`, `value` and `expected` are those of its first point.
    """

    id: UUID
    rule_id: UUID
    rule_name: str
    metric_id: UUID
    series: dict[str, Any]
    point: str
    last_point: str
    value: float | None
    expected: float | None
    cause: Cause
    state: State
    opened_at: datetime
    fired_at: datetime | None
    resolved_at: datetime | None
    acknowledged_at: datetime | None
    acknowledged_by: str | None
    updated_at: datetime


class AlertPage(Struct, frozen=True):
    items: list[Alert]
    next_cursor: str | None


class Found(Struct, frozen=True):
    """An alert that a rule would have made."""

    series: dict[str, Any]
    point: str
    value: float
    expected: float | None


class RulePreview(Struct, frozen=True):
    """What a rule would have found in the present result. `points`: how many points it could evaluate."""

    points: int
    alerts: list[Found]


class BandPoint(Struct, frozen=True):
    """A point with what was usual: null without enough points before it. `unusual`: the rule fires on it."""

    point: str
    value: float | None
    expected: float | None
    low: float | None
    high: float | None
    unusual: bool


class SeriesBand(Struct, frozen=True):
    series: dict[str, Any]
    points: list[BandPoint]


class Bands(Struct, frozen=True):
    """The points of all series of a rule with their bands, for charts."""

    rule_id: UUID
    metric_id: UUID
    column: str
    series: list[SeriesBand]


class Delivery(Struct, frozen=True):
    """A message about an alert. `dead` ones were tried often enough, and can be replayed."""

    id: str
    alert_id: UUID
    rule_id: UUID
    kind: Literal["webhook", "email"]
    target: str
    event: str
    status: Literal["waiting", "delivered", "dead"]
    tries: int
    next_try_at: datetime
    last_error: str | None
    created_at: datetime
    delivered_at: datetime | None


class DeliveryPage(Struct, frozen=True):
    items: list[Delivery]
    next_cursor: str | None
