"""Say for each point of a series what was to be expected from the points before it. Pure: no clock, no I/O.

Counts (whole numbers from 0 on) are expected at the recent level times the factor of their season, with a
negative-binomial tail. Its dispersion comes from the errors of the forecasts before, so trends, lags and
uncertain factors widen the band. The sum of the last seven points is evaluated too, against the level before
them: in small counts only the sum shows a new level. Other numbers are expected at the level plus the offset
of their season, with a Gaussian tail whose scale outliers hardly move. Each point costs the same, however
long the series is.
"""

from collections import deque
from collections.abc import Collection, Iterable, Sequence
from datetime import date, datetime
from itertools import pairwise
from math import erfc, inf, isfinite, lgamma, log, log1p, log10, sqrt
from typing import Final, NamedTuple

DEFAULT_SENSITIVITY: Final = 4.0
LEAST_CHANGE: Final = 5.0
"""A count that is closer to the expected one than this is never an anomaly."""

_LEVEL_KEEPS: Final = 0.9
_CATCHING_UP_KEEPS: Final = 0.6
_SEASON_KEEPS: Final = 0.88
_ERRORS_KEEP: Final = 0.97
_PRIOR_COUNTS: Final = 6.0  # of a season's factor, which is 1 until there are more
_PRIOR_POINTS: Final = 8.0  # of the dispersion
_PRIOR_DISPERSION: Final = 0.01
_SMALLEST_DISPERSION: Final = 0.003
_SCALE_MARGIN: Final = 1.15  # a scale that is estimated from few points is often too small
_CLIP: Final = 4.0  # standard deviations of which the model learns, when a point is further away
_RUN: Final = 4  # points far away on one side, after which they are the new level
_DAY_S: Final = 86_400
_WEEKEND: Final = 5
_SUNDAY: Final = 6
_HIGHEST_SCORE: Final = 300.0
_TAIL_TERMS: Final = 60
_SMALL_TERM: Final = 1e-4
_SUMMED: Final = 7  # points whose sum is evaluated
_SUMS_MARGIN: Final = 0.7  # sums are a second look at the same points, so they have to be less likely

SeasonKey = tuple[int, int]


class Point(NamedTuple):
    """A value at a local time."""

    at: datetime
    value: float


class Band(NamedTuple):
    """What is usual at a sensitivity: values outside are anomalies."""

    expected: float
    low: float
    high: float


class Counts(NamedTuple):
    """A count to come: negative-binomial with this mean and a variance of `mean + dispersion * mean ** 2`."""

    mean: float
    dispersion: float

    @property
    def deviation(self) -> float:
        return sqrt(self.mean + self.dispersion * self.mean**2)

    def score(self, value: float) -> float:
        """Minus log10 of the probability of a value this far from the mean, or further, on its side."""
        if abs(value - self.mean) < max(LEAST_CHANGE, self.deviation):
            return 0.0
        count = round(value)
        return self._above(count) if value > self.mean else self._below(count)

    def _log_mass(self, count: int) -> float:
        size = 1 / self.dispersion
        ends = log1p(self.mean / size)
        return (
            lgamma(count + size) - lgamma(size) - lgamma(count + 1.0)
            - size * ends + count * (log(self.mean) - log(size) - ends)
        )  # fmt: skip

    def _above(self, count: int) -> float:
        size = 1 / self.dispersion
        share = self.mean / (size + self.mean)
        total, term, ratio = 1.0, 1.0, 0.0
        for number in range(count, count + _TAIL_TERMS):
            ratio = (number + size) / (number + 1) * share
            term *= ratio
            total += term
            if term < total * _SMALL_TERM:
                break
        if ratio < 1:
            total += term * ratio / (1 - ratio)
        return _score(self._log_mass(count) + log(total))

    def _below(self, count: int) -> float:
        size = 1 / self.dispersion
        share = self.mean / (size + self.mean)
        total, term, ratio = 1.0, 1.0, 0.0
        for number in range(count, 0, -1):
            ratio = number / ((number - 1 + size) * share)
            term *= ratio
            total += term
            if ratio < 1 and (count - number >= _TAIL_TERMS or term < total * _SMALL_TERM):
                total += term * ratio / (1 - ratio)
                break
        return _score(self._log_mass(count) + log(total))

    def band(self, sensitivity: float) -> Band:
        """The counts that are no anomalies."""
        step = max(1, int(self.deviation))
        low = self._edge(sensitivity, -1, step)
        return Band(self.mean, max(0.0, low), self._edge(sensitivity, 1, step))

    def _edge(self, sensitivity: float, side: int, step: int) -> float:
        """The last usual count on a side, by doubling steps and halving."""
        inside = round(self.mean)
        while True:
            outside = inside + side * step
            if outside < 0:
                outside = -1
                break
            if self.score(outside) >= sensitivity:
                break
            inside, step = outside, step * 2
        while abs(outside - inside) > 1:
            middle = (inside + outside) // 2
            if self.score(middle) >= sensitivity:
                outside = middle
            else:
                inside = middle
        return float(inside)


class Amount(NamedTuple):
    """A number to come: Gaussian."""

    mean: float
    deviation: float

    def score(self, value: float) -> float:
        """Minus log10 of the probability of a value this far from the mean, or further, on its side."""
        away = abs(value - self.mean)
        if away <= 1e-9 * max(abs(value), abs(self.mean)):
            return 0.0
        if not self.deviation:
            return _HIGHEST_SCORE
        tail = erfc(min(away / self.deviation, 1e3) / sqrt(2)) / 2
        return _HIGHEST_SCORE if tail <= 0 else min(_HIGHEST_SCORE, -log10(tail))

    def band(self, sensitivity: float) -> Band:
        """The numbers that are no anomalies."""
        low, high = 0.0, 40.0
        for _ in range(40):
            middle = (low + high) / 2
            tail = erfc(middle / sqrt(2)) / 2
            low, high = (low, middle) if tail <= 0 or -log10(tail) >= sensitivity else (middle, high)
        return Band(self.mean, self.mean - low * self.deviation, self.mean + low * self.deviation)


Model = Counts | Amount


class Recent(NamedTuple):
    """The sum of the last points, with the one to come. One far away counts as one at the `limits`."""

    before: float
    model: Counts
    limits: tuple[float, float]

    def total(self, value: float) -> float:
        low, high = self.limits
        return self.before + min(max(value, low), high)


class Forecast(NamedTuple):
    """The models of one point. They differ on holidays, which may be like a Sunday or like any other day."""

    high: Model
    low: Model
    recent: Recent | None = None

    @property
    def expected(self) -> float:
        return self.high.mean

    def score(self, value: float) -> float:
        """How unusual the value is, or the sum of the last points with it: the larger of both scores."""
        return max(self._own(value), self._sum(value))

    def side(self, value: float) -> int:
        """1 above, -1 below what was expected."""
        if self.recent is not None and self._sum(value) > self._own(value):
            return 1 if self.recent.total(value) > self.recent.model.mean else -1
        return 1 if value > self.high.mean else -1

    def _own(self, value: float) -> float:
        if value > self.high.mean:
            return self.high.score(value)
        return self.low.score(value) if value < self.low.mean else 0.0

    def _sum(self, value: float) -> float:
        if self.recent is None:
            return 0.0
        return max(0.0, self.recent.model.score(self.recent.total(value)) - _SUMS_MARGIN)

    def band(self, sensitivity: float) -> Band:
        high = self.high.band(sensitivity)
        low = high if self.low is self.high else self.low.band(sensitivity)
        return Band(self.expected, low.low, high.high)


def _score(log_tail: float) -> float:
    return min(_HIGHEST_SCORE, max(0.0, -log_tail / log(10)))


def are_counts(values: Iterable[float]) -> bool:
    """Whether these are whole numbers from 0 on."""
    return all(value >= 0 and value == int(value) for value in values if isfinite(value))


def usual_step_s(times: Sequence[datetime]) -> float:
    """Seconds from one point to the next, as most points have it; infinite for fewer than two."""
    steps = sorted((after - before).total_seconds() for before, after in pairwise(times))
    return steps[len(steps) // 2] if steps else inf


class _Seasons(NamedTuple):
    """How points of a series repeat: by weekday, by hour and weekend, or not at all."""

    step_s: float

    @property
    def warm_up(self) -> int:
        """Points that are needed before one can be evaluated."""
        if self.step_s < _DAY_S:
            return min(168, max(24, round(7 * _DAY_S / max(self.step_s, 3600))))
        return 21 if self.step_s == _DAY_S else 8

    def key(self, at: datetime, *, holiday: bool = False) -> SeasonKey:
        day = _SUNDAY if holiday else at.weekday()
        if self.step_s < _DAY_S:
            return (int(day >= _WEEKEND), at.hour)
        return (day if self.step_s == _DAY_S else 0, 0)


class _Learner:
    """What was learned from the points so far. Times between points that are missing teach nothing."""

    def __init__(self) -> None:
        self._season: dict[SeasonKey, tuple[float, float]] = {}
        self._run = 0

    def _kept(self, away: float, deviation: float) -> tuple[float, bool]:
        """The error that is learned of, and whether the series has a new level."""
        limit = _CLIP * deviation
        if abs(away) <= limit:
            self._run = 0
            return away, False
        side = 1 if away > 0 else -1
        self._run = self._run + side if self._run * side >= 0 else side
        if abs(self._run) >= _RUN:
            return away, True
        return side * limit, False


class _Week(NamedTuple):
    """What `_CountLearner` keeps of one of the last points."""

    key: SeasonKey
    value: float
    level: float
    dispersion: float


class _CountLearner(_Learner):
    def __init__(self) -> None:
        super().__init__()
        self._sum = self._weight = self._error = self._scale = 0.0
        self._sums_error = self._sums_scale = 0.0
        self._last: deque[_Week] = deque(maxlen=_SUMMED - 1)

    def _factor(self, key: SeasonKey) -> float:
        seen, expected = self._season.get(key, (0.0, 0.0))
        return (seen + _PRIOR_COUNTS) / (expected + _PRIOR_COUNTS)

    @property
    def _level(self) -> float:
        return self._sum / self._weight if self._weight else 0.0

    def model(self, key: SeasonKey) -> Counts:
        mean = max(self._level * self._factor(key), 0.02)
        prior = _PRIOR_POINTS * max(mean, 1.0) ** 2
        dispersion = (self._error + _PRIOR_DISPERSION * prior) / (self._scale + prior)
        return Counts(mean, max(dispersion, _SMALLEST_DISPERSION))

    def recent(self, key: SeasonKey) -> Recent | None:
        """The model of the sum of the last points and the next one, of this season."""
        if len(self._last) < _SUMMED - 1:
            return None
        model = self.model(key)
        factors = sum(self._factor(each.key) for each in self._last) + self._factor(key)
        # Both from before these points, so that a new level does not hide itself.
        mean, dispersion = max(self._last[0].level * factors, 0.02), self._last[0].dispersion
        limit = _CLIP * max(model.deviation, 1.0)
        return Recent(
            sum(each.value for each in self._last),
            Counts(mean, dispersion),
            (max(0.0, model.mean - limit), model.mean + limit),
        )

    def _sums_dispersion(self) -> float:
        mean = _SUMMED * max(self._level, 1.0)
        prior = _PRIOR_POINTS * mean**2
        dispersion = (self._sums_error + _PRIOR_DISPERSION / 2 * prior) / (self._sums_scale + prior)
        return max(dispersion, _SMALLEST_DISPERSION)

    def learn(self, key: SeasonKey, value: float) -> None:
        model = self.model(key)
        recent = self.recent(key)
        away, shifted = self._kept(value - model.mean, max(model.deviation, 1.0))
        value = max(0.0, model.mean + away)
        if recent is not None and not shifted:
            mean = recent.model.mean
            limit = _CLIP * recent.model.deviation
            error = min(max(recent.total(value) - mean, -limit), limit)
            self._sums_error = self._sums_error * _ERRORS_KEEP + error**2 - mean
            self._sums_scale = self._sums_scale * _ERRORS_KEEP + mean**2
        self._last.append(_Week(key, value, self._level, self._sums_dispersion()))
        keep = _CATCHING_UP_KEEPS if shifted else _LEVEL_KEEPS
        seen, expected = self._season.get(key, (0.0, 0.0))
        factor, level = self._factor(key), self._level
        self._sum = self._sum * keep + value
        self._weight = self._weight * keep + factor
        if shifted:
            self._last.clear()
            return
        level = level or self._level
        self._season[key] = (seen * _SEASON_KEEPS + value, expected * _SEASON_KEEPS + level)
        self._error = self._error * _ERRORS_KEEP + (value - model.mean) ** 2 - model.mean
        self._scale = self._scale * _ERRORS_KEEP + model.mean**2


class _AmountLearner(_Learner):
    def __init__(self) -> None:
        super().__init__()
        self._sum = self._weight = self._error = self._seen = 0.0

    def recent(self, key: SeasonKey) -> None:
        """Sums are evaluated for counts only."""

    def _offset(self, key: SeasonKey) -> float:
        total, number = self._season.get(key, (0.0, 0.0))
        return total / (number + 1)

    def model(self, key: SeasonKey) -> Amount:
        level = self._sum / self._weight if self._weight else 0.0
        deviation = sqrt(self._error / self._seen) * _SCALE_MARGIN if self._seen else 0.0
        return Amount(level + self._offset(key), deviation)

    def learn(self, key: SeasonKey, value: float) -> None:
        if not self._weight:
            self._sum, self._weight = value, 1.0
            return
        model = self.model(key)
        few = self._seen < _PRIOR_POINTS / 2
        away, shifted = self._kept(value - model.mean, inf if few else model.deviation)
        keep = _CATCHING_UP_KEEPS if shifted else _LEVEL_KEEPS
        offset = self._offset(key)
        level = self._sum / self._weight
        self._sum = self._sum * keep + model.mean + away - offset
        self._weight = self._weight * keep + 1
        if shifted:
            return
        total, number = self._season.get(key, (0.0, 0.0))
        self._season[key] = (
            total * _SEASON_KEEPS + model.mean + away - level,
            number * _SEASON_KEEPS + 1,
        )
        self._error = self._error * _ERRORS_KEEP + away**2
        self._seen = self._seen * _ERRORS_KEEP + 1


def forecasts(
    points: Sequence[Point], *, step_s: float | None = None, holidays: Collection[date] = ()
) -> list[Forecast | None]:
    """The forecast of each point from those before it, which stand in the order of time.

    None while too few come before it. Values that are not finite are skipped. Holidays count as Sundays
    below and as usual days above, and nothing is learned from them.
    """
    seasons = _Seasons(usual_step_s([point.at for point in points]) if step_s is None else step_s)
    learner = _CountLearner() if are_counts(point.value for point in points) else _AmountLearner()
    found: list[Forecast | None] = []
    learned = 0
    for at, value in points:
        holiday = at.date() in holidays
        key = seasons.key(at)
        forecast = None
        if learned >= seasons.warm_up:
            model = learner.model(key)
            other = learner.model(seasons.key(at, holiday=True)) if holiday else model
            high, low = (model, other) if model.mean >= other.mean else (other, model)
            forecast = Forecast(high, low, None if holiday else learner.recent(key))
        found.append(forecast)
        if isfinite(value) and not holiday:
            learner.learn(key, value)
            learned += 1
    return found
