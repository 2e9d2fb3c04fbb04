"""Series with seasons, trends and known faults, for the detector."""

import random
from datetime import UTC, date, datetime, timedelta
from math import exp
from typing import Literal, NamedTuple

from service.alerts.detect import Point

START = datetime(2024, 1, 1)  # noqa: DTZ001 (local time, as a date column has it)
YEAR = 365
WEEK = {"flat": (1.0,) * 7, "week": (1.2, 1.25, 1.2, 1.15, 1.1, 0.6, 0.5), "office": (1.4,) * 5 + (0.05, 0.0)}
MEANS = (0.3, 1, 3, 10, 30, 100, 300)

Fault = Literal["spike", "dip", "shift"]


class Made(NamedTuple):
    """A series, and the numbers of the points where each planted fault begins."""

    points: list[Point]
    faults: dict[int, Fault]


def poisson(rng: random.Random, mean: float) -> int:
    total = 0
    while mean > 20:  # Knuth's way, in parts whose exponential does not vanish
        total += poisson(rng, 20)
        mean -= 20
    product, limit = rng.random(), exp(-mean)
    while product > limit:
        total += 1
        product *= rng.random()
    return total


def count(rng: random.Random, mean: float, size: float | None) -> int:
    """A Poisson count, or with a `size` a negative-binomial one of more variance."""
    if mean <= 0:
        return 0
    return poisson(rng, mean if size is None else rng.gammavariate(size, mean / size))


def counts(
    seed: object,
    mean: float,
    *,
    week: str = "week",
    size: float | None = None,
    trend: float = 0.0,
    days: int = YEAR,
    missing: float = 0.0,
    faults: dict[int, Fault] | None = None,
) -> Made:
    """Daily counts. `trend` is the growth over a year (1.0 doubles). `faults` begin at these days."""
    rng = random.Random(str(seed))  # noqa: S311 (a repeatable series)
    points: list[Point] = []
    where: dict[int, Fault] = {}
    level = 1.0
    for day in range(days):
        at = START + timedelta(days=day)
        usual = mean * WEEK[week][at.weekday()] * (1 + trend * day / YEAR)
        fault = (faults or {}).get(day)
        if fault == "shift":
            level = 2.5
        expected = usual * level
        if fault == "spike":
            expected = 3 * usual + 10
        elif fault == "dip":
            expected = 0.1 * usual
        value = count(rng, expected, size)
        if fault is None and rng.random() < missing:
            continue
        if fault:
            where[len(points)] = fault
        points.append(Point(at, value))
    return Made(points, where)


def amounts(seed: object, *, scale: float = 5.0, trend: float = 0.0, days: int = YEAR) -> list[Point]:
    """Daily numbers with fractions, around 1000, and some below zero where the scale is large."""
    rng = random.Random(str(seed))  # noqa: S311
    return [
        Point(
            START + timedelta(days=day),
            rng.gauss(1000 + 8 * (day % 7) * scale / 10 + trend * day, scale),
        )
        for day in range(days)
    ]


def hours(seed: object, mean: float, *, days: int = 60, start: datetime = START) -> list[Point]:
    """Hourly counts in local time: the day in which clocks change has an hour less, or one twice as large."""
    rng = random.Random(str(seed))  # noqa: S311
    found: dict[datetime, int] = {}
    utc = start.replace(tzinfo=UTC)
    for hour in range(days * 24):
        # Central European time, whose clocks change in 2024 on 31 March and on 27 October.
        moment = utc + timedelta(hours=hour)
        summer = date(2024, 3, 31) <= moment.date() < date(2024, 10, 27)
        local = (moment + timedelta(hours=2 if summer else 1)).replace(tzinfo=None)
        active = 1.6 if 8 <= local.hour < 20 else 0.4
        found[local] = found.get(local, 0) + count(rng, mean * active, None)
    return [Point(at, value) for at, value in sorted(found.items())]
