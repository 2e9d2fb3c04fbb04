"""What becomes of a rule's alerts when a result was evaluated. Pure.

Each evaluation compares all episodes in the result with all stored alerts. So it may be repeated, come late,
or come after corrections: the same result leads to the same alerts.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, tzinfo
from typing import Any, Final, Literal, NamedTuple
from uuid import UUID, uuid4

import msgspec

from service.alerts.episodes import Assessment, Episode, EvaluatedPoint
from service.alerts.models import CLOSED, Alert, Rule, State
from service.alerts.series import NotSeries, key_of, read_time

LATE_TOLD: Final = 5
"""Of episodes that were over when they were first seen, so many are told; all are stored."""
WHOLE: Final[dict[str, Any]] = {}
"""The series of an alert about the whole result."""


_IF_FIRED: Final[dict[str, tuple[State, ...]]] = {"firing": ("firing",), "resolved": ("resolved",)}


class Gap(NamedTuple):
    """Data are missing (`nodata`) or old (`stale`) since the point of this label."""

    state: Literal["nodata", "stale"]
    label: str


class Seen(NamedTuple):
    """What an evaluation has seen. `gap`: of the whole result, whose series then tell nothing new.

    `since` is None at the first evaluation: then only the newest point of each series counts.
    """

    series: Mapping[str, Assessment]
    gap: Gap | None
    since: datetime | None
    timed: bool
    zone: tzinfo


class Transition(NamedTuple):
    """A new or changed alert, and the states that its receivers are told of, in order."""

    alert: Alert
    told: tuple[State, ...]
    is_new: bool


def transitions(rule: Rule, alerts: Iterable[Alert], seen: Seen, now: datetime) -> list[Transition]:
    """All changes of the alerts of a rule."""
    by_series: dict[str, list[Alert]] = {key: [] for key in seen.series}
    for alert in alerts:
        by_series.setdefault(key_of(alert.series), []).append(alert)
    by_series.setdefault(key_of(WHOLE), [])
    is_told = any(
        each.cause == "value" and each.state not in CLOSED for own in by_series.values() for each in own
    )
    found: list[Transition] = []
    for key, stored in by_series.items():
        found += _Series(rule, key, stored, seen, now).transitions(is_told=is_told)
    late = [each for each in found if each.is_new and each.alert.state == "resolved"]
    untold = {each.alert.id for each in late[:-LATE_TOLD]}
    return [each._replace(told=()) if each.alert.id in untold else each for each in found]


class _Series:
    """The alerts of one series."""

    def __init__(self, rule: Rule, key: str, stored: Sequence[Alert], seen: Seen, now: datetime) -> None:
        self._rule = rule
        self._seen = seen
        self._now = now
        self._key = key
        self._found = seen.series.get(key)
        self._values = [each for each in stored if each.cause == "value"]
        self._gaps = [each for each in stored if each.cause == "missing"]

    def transitions(self, *, is_told: bool) -> list[Transition]:
        """`is_told`: an open alert of the rule tells of a gap in the whole result."""
        found: list[Transition] = []
        rest = list(self._values)
        if self._seen.gap is None and self._found is not None:
            for episode in self._found.episodes:
                found += self._match(episode, rest)
        gap = self._gap()
        for alert in rest:
            found += self._unmatched(alert, gap)
        if gap is not None:
            found = [self._with_gap(each, gap) for each in found]
        is_open = any(each.alert.state not in CLOSED for each in found)
        is_told = is_open or (is_told and gap is self._seen.gap)
        return found_changes(self._values, found) + self._own_gap(gap, is_told=is_told)

    # Episodes

    def _match(self, episode: Episode, rest: list[Alert]) -> list[Transition]:
        """The alert of an episode. Others that it covers too are withdrawn: late data joined them."""
        own = [alert for alert in rest if self._is_of(alert, episode)]
        own.sort(key=lambda alert: alert.state == "withdrawn")
        for alert in own:
            rest.remove(alert)
        if not own:
            return [self._opened(episode)] if self._counts(episode) else []
        first, *others = own
        return [self._continued(first, episode), *(self._withdrawn(each) for each in others)]

    def _is_of(self, alert: Alert, episode: Episode) -> bool:
        if not self._seen.timed:
            return alert.state not in CLOSED
        last = self._at(alert.last_point)
        if last < episode.first.at:  # its point is gone, and nothing has ended it since
            return alert.state not in CLOSED and not self._has_ended(alert, before=episode.first.at)
        if episode.last.at < self._at(alert.point):  # its points are gone, and late data begin earlier
            return alert.state not in CLOSED and episode.end is None
        return True

    def _counts(self, episode: Episode) -> bool:
        """Whether the episode makes an alert. What was history when the rule was made does not."""
        if not self._seen.timed:
            return True
        if self._seen.since is not None:
            return episode.last.at >= self._seen.since
        newest = next(reversed(self._found.evaluated.values()), None) if self._found else None
        return newest is not None and newest.at == episode.last.at

    def _opened(self, episode: Episode) -> Transition:
        blank = Alert(
            id=uuid4(),
            rule_id=self._rule.id,
            rule_name=self._rule.name,
            metric_id=self._rule.metric_id,
            series=self._found.series.labels if self._found else {},
            point=episode.first.label,
            last_point=episode.last.label,
            value=episode.first.value,
            expected=episode.first.expected,
            cause="value",
            state="pending",
            opened_at=self._now,
            fired_at=None,
            resolved_at=None,
            acknowledged_at=None,
            acknowledged_by=None,
            updated_at=self._now,
        )
        return self._continued(blank, episode)._replace(is_new=True)

    def _continued(self, alert: Alert, episode: Episode) -> Transition:
        told: list[State] = []
        if alert.state == "resolved" and self._has_lost_its_end(alert, episode):
            return Transition(alert, (), is_new=False)
        alert = self._moved(alert, episode)
        if alert.state in CLOSED and episode.end is None:  # a correction took its end away
            told.extend(_IF_FIRED["firing"] if alert.fired_at else ())
            alert = _replaced(alert, resolved_at=None, acknowledged_at=None, acknowledged_by=None)
        if alert.fired_at is None and self._lasted(alert, episode):
            alert = _replaced(alert, fired_at=self._now)
            told = ["firing"]
        if episode.end is None:
            state: State = "pending" if alert.fired_at is None else "firing"
            return Transition(
                _replaced(alert, state="acknowledged" if alert.acknowledged_at else state), tuple(told), False
            )
        if alert.state != "resolved":
            told.extend(_IF_FIRED["resolved"] if alert.fired_at else ())
            alert = _replaced(alert, state="resolved", resolved_at=self._now)
        return Transition(alert, tuple(told), False)

    def _has_lost_its_end(self, alert: Alert, episode: Episode) -> bool:
        """Whether the point that ended it is missing now, which is no reason to begin again."""
        if episode.end is not None or self._found is None or self._at(alert.last_point) < episode.last.at:
            return False
        return self._seen.timed and all(each.at <= episode.last.at for each in self._found.evaluated.values())

    def _lasted(self, alert: Alert, episode: Episode) -> bool:
        for_s = self._rule.for_s
        waited_s = (self._now - alert.opened_at).total_seconds()
        return episode.lasted_s >= for_s or (episode.end is None and waited_s >= for_s)

    def _moved(self, alert: Alert, episode: Episode) -> Alert:
        """Corrections and new points move the ends of an episode. What has left the result stays known."""
        if not self._seen.timed:
            return alert
        first = self._found.series.points[0].at if self._found else None
        alert = _replaced(alert, last_point=episode.last.label)
        if first is not None and self._at(alert.point) < first:
            return alert
        start = episode.first
        if any(each.point == start.label and each.id != alert.id for each in self._values):
            return alert  # one that was withdrawn has this point: a point has one alert
        return _replaced(alert, point=start.label, value=start.value, expected=start.expected)

    # Alerts without an episode

    def _unmatched(self, alert: Alert, gap: Gap | None) -> list[Transition]:
        if alert.state == "withdrawn":
            return []
        if self._seen.gap is None and self._found is not None:
            if self._seen.timed and self._is_refuted(alert):
                return [self._withdrawn(alert)]
            if alert.state not in CLOSED and self._has_ended(alert):
                return [self._resolved(alert)]
        if alert.state in CLOSED or gap is not None:
            return [] if alert.state in CLOSED else [Transition(alert, (), False)]
        is_gone = self._found is None or (
            self._seen.timed and all(point.label != alert.last_point for point in self._found.series.points)
        )
        if is_gone:  # a series or a point that has left the result says nothing
            return [self._with_gap(Transition(alert, (), False), Gap("nodata", alert.last_point))]
        return [Transition(self._restored(alert), (), False)]

    def _is_refuted(self, alert: Alert) -> bool:
        """Whether the same point was evaluated again, and is usual."""
        evaluated = self._found.evaluated.get(alert.point) if self._found else None
        if evaluated is None or evaluated.side:
            return False
        return evaluated.value != alert.value or evaluated.ends(_side(alert, evaluated))

    def _has_ended(self, alert: Alert, before: datetime = datetime.max) -> bool:  # noqa: DTZ901 (local)
        """Whether a usual point follows its last one."""
        at = self._at(alert.last_point)
        later = [
            each
            for each in (self._found.evaluated.values() if self._found else ())
            if at < each.at < before or not self._seen.timed
        ]
        return any(each.ends(_side(alert, each)) for each in later)

    def _resolved(self, alert: Alert) -> Transition:
        told: tuple[State, ...] = ("resolved",) if alert.fired_at else ()
        return Transition(_replaced(alert, state="resolved", resolved_at=self._now), told, False)

    def _withdrawn(self, alert: Alert) -> Transition:
        told: tuple[State, ...] = ("withdrawn",) if alert.fired_at and alert.state != "withdrawn" else ()
        at = alert.resolved_at or self._now
        return Transition(_replaced(alert, state="withdrawn", resolved_at=at), told, False)

    @staticmethod
    def _restored(alert: Alert) -> Alert:
        """Data are there again."""
        state: State = "pending" if alert.fired_at is None else "firing"
        return _replaced(alert, state="acknowledged" if alert.acknowledged_at else state)

    # Missing data

    def _gap(self) -> Gap | None:
        if self._seen.gap is not None:
            return self._seen.gap
        if self._found is not None and self._found.is_missing:
            points = self._found.series.points
            return Gap("nodata", points[-1].label if points else "")
        return None

    def _with_gap(self, found: Transition, gap: Gap) -> Transition:
        """Nothing recovers by missing data: an open alert says that there are none."""
        alert = found.alert
        if alert.state not in {"pending", "firing", "nodata", "stale"}:
            return found
        told = found.told
        before = next((each.state for each in self._values if each.id == alert.id), gap.state)
        if alert.fired_at is not None and before != gap.state:
            told = (*told, gap.state)
        return found._replace(alert=_replaced(alert, state=gap.state), told=told)

    def _own_gap(self, gap: Gap | None, *, is_told: bool) -> list[Transition]:
        """The alert that data are missing, where no other alert of the series says so."""
        present = next((each for each in self._gaps if each.state not in CLOSED), None)
        if gap is None:
            return [self._resolved(present)] if present else []
        is_of_others = gap is self._seen.gap and self._key != key_of(WHOLE)
        if is_of_others or (present is not None and present.state in {gap.state, "acknowledged"}):
            return []
        if present is None and is_told:
            return []
        again = present or next((each for each in self._gaps if each.point == gap.label), None)
        if again is None:
            return [self._opened_gap(gap)]
        alert = _replaced(
            again, state=gap.state, resolved_at=None, acknowledged_at=None, acknowledged_by=None
        )
        return [Transition(alert, (gap.state,), is_new=False)]

    def _opened_gap(self, gap: Gap) -> Transition:
        alert = Alert(
            id=uuid4(),
            rule_id=self._rule.id,
            rule_name=self._rule.name,
            metric_id=self._rule.metric_id,
            series=self._found.series.labels if self._found else {},
            point=gap.label,
            last_point=gap.label,
            value=None,
            expected=None,
            cause="missing",
            state=gap.state,
            opened_at=self._now,
            fired_at=self._now,
            resolved_at=None,
            acknowledged_at=None,
            acknowledged_by=None,
            updated_at=self._now,
        )
        return Transition(alert, (gap.state,), True)

    def _at(self, label: str) -> datetime:
        try:
            return read_time(label, self._seen.zone)
        except NotSeries:  # the rule had another column of times before
            return datetime.min  # noqa: DTZ901 (local times are naive)


def found_changes(before: Iterable[Alert], found: Iterable[Transition]) -> list[Transition]:
    """Without those that change nothing."""
    known: dict[UUID, Alert] = {alert.id: alert for alert in before}
    return [each for each in found if each.is_new or each.told or known.get(each.alert.id) != each.alert]


def _side(alert: Alert, evaluated: EvaluatedPoint) -> int:
    """The side on which an alert is."""
    usual = evaluated.expected if alert.expected is None else alert.expected
    return 1 if usual is None or alert.value is None or alert.value >= usual else -1


def _replaced(alert: Alert, **fields: Any) -> Alert:
    return msgspec.structs.replace(alert, **fields)
