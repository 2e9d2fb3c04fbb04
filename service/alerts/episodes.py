"""Evaluate a rule at the points of series, and join unusual points in a row into episodes. Pure."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from math import inf, isfinite
from typing import Final, NamedTuple

from service.alerts.detect import Forecast, Point, forecasts
from service.alerts.models import BandPoint, Definition, SeriesBand
from service.alerts.series import Reading, Series, Table, ends_at

RECENT: Final = 14
"""A series that had a value at nearly all of so many points before is missed when it has none."""
REGULAR: Final = 0.9
OVERDUE_STEPS: Final = 2


class EvaluatedPoint(NamedTuple):
    """A point that was evaluated. `side` is 1 or -1 if the rule fires on it.

    `clear_above`, `clear_below`: whether it ends an episode above or below what is usual.
    """

    at: datetime
    label: str
    value: float
    expected: float | None
    side: int
    clear_above: bool
    clear_below: bool

    def ends(self, side: int) -> bool:
        return not self.side and (self.clear_above if side > 0 else self.clear_below)


class Episode(NamedTuple):
    """Unusual points in a row, and the point that ended them, if any."""

    first: EvaluatedPoint
    last: EvaluatedPoint
    end: EvaluatedPoint | None

    @property
    def lasted_s(self) -> float:
        """Seconds from its first point to its end, or to its newest unusual point."""
        return ((self.end or self.last).at - self.first.at).total_seconds()


class Assessment(NamedTuple):
    """What a rule finds in one series. `evaluated` is by label. At `due` more points can be evaluated."""

    series: Series
    evaluated: dict[str, EvaluatedPoint]
    episodes: list[Episode]
    due: datetime | None
    is_missing: bool


class _Clock(NamedTuple):
    now: datetime
    settle_s: float
    step_s: float

    def settled(self, at: datetime) -> datetime | None:
        """When a point may be evaluated; None if it may be by now."""
        ready = at + timedelta(seconds=self.settle_s)
        return None if ready <= self.now else ready

    def is_open(self, at: datetime) -> bool:
        """Whether the period of a point goes on, so that its value may grow."""
        return at <= self.now < ends_at(at, self.step_s)


def assess(table: Table, rule: Definition, now: datetime, *, timed: bool) -> dict[str, Assessment]:
    """Evaluate all series. `now` is local time. `timed`: the points have times of their own."""
    clock = _Clock(now, rule.settle_s if timed else 0.0, table.step_s if timed else 0.0)
    found: dict[str, Assessment] = {}
    for key, series in table.series.items():
        evaluated, due = _evaluate(series, rule, clock)
        found[key] = Assessment(
            series,
            {each.label: each for each in evaluated},
            _episodes(evaluated),
            due,
            _is_missing(series, table, clock, timed=timed),
        )
    return found


def _evaluate(
    series: Series, rule: Definition, clock: _Clock
) -> tuple[list[EvaluatedPoint], datetime | None]:
    evaluated: list[EvaluatedPoint] = []
    due: datetime | None = None
    expected = _forecasts(series, rule, clock.step_s)
    before: Reading | None = None
    for point, forecast in zip(series.points, expected, strict=True):
        ready = clock.settled(point.at)
        if ready is not None:
            due = ready if due is None else min(due, ready)
            continue
        if not isfinite(point.value):
            continue
        found = _evaluate_point(point, rule, before, forecast)
        before = point
        if found is None:
            continue
        if rule.kind != "threshold" and found.side < 0 and clock.is_open(point.at):
            over = ends_at(point.at, clock.step_s)
            due = over if due is None else min(due, over)
            continue
        evaluated.append(found)
    return evaluated, due


def _forecasts(series: Series, rule: Definition, step_s: float) -> Sequence[Forecast | None]:
    if rule.kind != "anomaly":
        return [None] * len(series.points)
    points = [Point(point.at, point.value) for point in series.points]
    return forecasts(points, step_s=step_s, holidays=frozenset(rule.holidays))


def _evaluate_point(
    point: Reading, rule: Definition, before: Reading | None, forecast: Forecast | None
) -> EvaluatedPoint | None:
    """Evaluate one value. None without what it is compared with."""
    if rule.kind == "anomaly":
        if forecast is None:
            return None
        score = forecast.score(point.value)
        side = forecast.side(point.value) if score >= rule.sensitivity else 0
        clear = score < (max(rule.sensitivity - 1, 0.5) if rule.resolve is None else rule.resolve)
        return _weighed(point, rule, forecast.expected, side, (clear, clear))
    if rule.kind == "change":
        if before is None:
            return None
        share = _share(before.value, point.value)
        resolve = rule.resolve
        return _weighed(
            point, rule, before.value, _side(share, *rule.bounds()),
            (resolve is None or share <= resolve, resolve is None or share >= -resolve),
        )  # fmt: skip
    clear_above = rule.resolve is None or point.value <= rule.resolve
    clear_below = rule.resolve is None or point.value >= rule.resolve
    usual = None if before is None else before.value
    found = _weighed(point, rule, usual, _side(point.value, *rule.bounds()), (clear_above, clear_below))
    above, below = rule.bounds()
    return found._replace(expected=above if found.side > 0 else below if found.side < 0 else None)


def _side(value: float, above: float | None, below: float | None) -> int:
    if above is not None and value > above:
        return 1
    return -1 if below is not None and value < below else 0


def _share(before: float, value: float) -> float:
    """The relative change; any change from 0 is infinite."""
    if before == value:
        return 0.0
    return (value - before) / abs(before) if before else inf * (1 if value > 0 else -1)


def _weighed(
    point: Reading, rule: Definition, usual: float | None, side: int, clear: tuple[bool, bool]
) -> EvaluatedPoint:
    """The point; one of too little volume is usual."""
    if side and rule.min_volume is not None:
        volume = max(abs(point.value), 0.0 if usual is None else abs(usual))
        if volume < rule.min_volume:
            side, clear = 0, (True, True)
    return EvaluatedPoint(point.at, point.label, point.value, usual, side, *clear)


def _episodes(evaluated: Sequence[EvaluatedPoint]) -> list[Episode]:
    found: list[Episode] = []
    first = last = None
    for point in evaluated:
        if point.side:
            first, last = first or point, point
        elif first is not None and last is not None and point.ends(last.side):
            found.append(Episode(first, last, point))
            first = last = None
    if first is not None and last is not None:
        found.append(Episode(first, last, None))
    return found


def _is_missing(series: Series, table: Table, clock: _Clock, *, timed: bool) -> bool:
    """Whether the series has no value at the newest time, although it had one at nearly all before."""
    values = {point.at: isfinite(point.value) for point in series.points}
    if not timed:
        return not any(values.values())
    newest = next((at for at in reversed(table.times) if clock.settled(at) is None), None)
    if newest is None or clock.is_open(newest) or values.get(newest, False):
        return False
    before = [at for at in table.times if at < newest][-RECENT:]
    if len(before) < RECENT / 2:
        return newest in values  # a null where a value should be
    return sum(values.get(at, False) for at in before) >= REGULAR * len(before)


def overdue_at(table: Table, rule: Definition) -> datetime | None:
    """When the next point should be there at the latest; None if nobody can tell."""
    if not table.times or table.step_s in {0, inf}:
        return None
    return table.times[-1] + timedelta(seconds=table.step_s * (1 + OVERDUE_STEPS) + rule.settle_s)


def bands(table: Table, rule: Definition) -> list[SeriesBand]:
    """All points with what was usual, for charts."""
    found: list[SeriesBand] = []
    for series in table.series.values():
        expected = _forecasts(series, rule, table.step_s)
        points: list[BandPoint] = []
        before: Reading | None = None
        for point, forecast in zip(series.points, expected, strict=True):
            known = isfinite(point.value)
            evaluated = _evaluate_point(point, rule, before, forecast) if known else None
            low, high = _edges(rule, before, forecast)
            points.append(
                BandPoint(
                    point=point.label,
                    value=point.value if known else None,
                    expected=forecast.expected
                    if forecast
                    else None
                    if evaluated is None
                    else evaluated.expected,
                    low=low,
                    high=high,
                    unusual=evaluated is not None and evaluated.side != 0,
                )
            )
            before = point if known else before
        found.append(SeriesBand(series.labels, points))
    return found


def _edges(
    rule: Definition, before: Reading | None, forecast: Forecast | None
) -> tuple[float | None, float | None]:
    if rule.kind == "threshold":
        return rule.below, rule.above
    if rule.kind == "anomaly":
        if forecast is None:
            return None, None
        band = forecast.band(rule.sensitivity)
        return band.low, band.high
    if before is None:
        return None, None
    above, below = rule.bounds()
    size = abs(before.value)
    return (
        None if below is None else before.value + below * size,
        None if above is None else before.value + above * size,
    )
