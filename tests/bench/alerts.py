"""How many faults detectors find in series of counts, and how often they are wrong.

`.venv/bin/python -m tests.bench.alerts`
"""

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from statistics import median, pstdev

from service.alerts.detect import DEFAULT_SENSITIVITY, Point, forecasts
from tests.series import MEANS, YEAR, Fault, Made, counts

SEEDS = 4
WARM_UP = 60
FOUND_WITHIN = {"spike": 1, "dip": 1, "shift": 7}
DIPS_FROM = 10
WINDOW = 28
Detector = Callable[[Sequence[Point]], list[bool]]


def by_forecasts(points: Sequence[Point]) -> list[bool]:
    """Ours, at the default sensitivity."""
    found = forecasts(points)
    return [
        forecast is not None and forecast.score(point.value) >= DEFAULT_SENSITIVITY
        for forecast, point in zip(found, points, strict=True)
    ]


def by_mad(points: Sequence[Point]) -> list[bool]:
    """Median and median absolute deviation of the points before, 3.5 of them."""
    flags: list[bool] = []
    for number, point in enumerate(points):
        before = [each.value for each in points[max(0, number - WINDOW) : number]] or [0.0]
        middle = median(before)
        spread = 1.4826 * median(abs(value - middle) for value in before)
        flags.append(number >= WINDOW and abs(point.value - middle) > 3.5 * spread)
    return flags


def by_window(points: Sequence[Point]) -> list[bool]:
    """Mean and standard deviation of the points before, 3 of them."""
    flags: list[bool] = []
    for number, point in enumerate(points):
        before = [each.value for each in points[max(0, number - WINDOW) : number]] or [0.0]
        middle = sum(before) / len(before)
        flags.append(number >= WINDOW and abs(point.value - middle) > 3 * pstdev(before))
    return flags


DETECTORS: dict[str, Detector] = {
    "weekday factor, recent level, negative-binomial tail": by_forecasts,
    "windowed Gaussian, 3 deviations": by_window,
    "median and MAD, 3.5": by_mad,
}


def clean(means: Sequence[float] = MEANS, seeds: int = SEEDS) -> Iterator[tuple[float, Made]]:
    """A year of each kind of series without a fault."""
    kinds = product(means, ("flat", "week", "office"), (None, 20.0), (0.0, 1.0), range(seeds))
    for mean, week, size, trend, seed in kinds:
        yield mean, counts((mean, week, size, trend, seed), mean, week=week, size=size, trend=trend)


def faulty(means: Sequence[float] = MEANS, seeds: int = SEEDS) -> Iterator[tuple[float, Made]]:
    """A year of each kind with two spikes, two dips if the counts are large enough, and a shift."""
    for mean, week, size, missing, seed in product(
        means, ("flat", "week"), (None, 20.0), (0.0, 0.05), range(seeds)
    ):
        faults: dict[int, Fault] = {90: "spike", 205: "spike", 300: "shift"}
        if mean >= DIPS_FROM:
            faults |= {120: "dip", 239: "dip"}
        name = ("faults", mean, week, size, missing, seed)
        yield mean, counts(name, mean, week=week, size=size, missing=missing, faults=faults)


def alerts(flags: Sequence[bool]) -> list[int]:
    """Where episodes begin: points in a row are one alert."""
    return [number for number, flag in enumerate(flags) if flag and not (number and flags[number - 1])]


def measure(detect: Detector, seeds: int = SEEDS) -> tuple[dict[float, float], dict[Fault, float], float]:
    """False alerts a series and year by mean, the share of faults that are found, and the precision."""
    wrong: dict[float, list[float]] = {}
    for mean, made in clean(seeds=seeds):
        judged = len(made.points) - WARM_UP
        number = sum(at >= WARM_UP for at in alerts(detect(made.points)))
        wrong.setdefault(mean, []).append(number * YEAR / judged)
    found: dict[Fault, list[bool]] = {}
    right = told = 0
    for _, made in faulty(seeds=seeds):
        flags = detect(made.points)
        near: set[int] = set()
        for at, fault in made.faults.items():
            within = range(at, min(at + FOUND_WITHIN[fault], len(flags)))
            found.setdefault(fault, []).append(any(flags[each] for each in within))
            near.update(range(at, at + 21 if fault == "shift" else at + 1))
        begun = [at for at in alerts(flags) if at >= WARM_UP]
        told += len(begun)
        right += sum(at in near for at in begun)
    return (
        {mean: sum(each) / len(each) for mean, each in wrong.items()},
        {fault: sum(each) / len(each) for fault, each in found.items()},
        right / max(told, 1),
    )


def microseconds_a_point() -> float:
    points = counts("speed", 30, days=20 * YEAR).points
    began = time.perf_counter()
    by_forecasts(points)
    return (time.perf_counter() - began) / len(points) * 1e6


def main() -> None:
    print("| detector | false alerts a series and year | precision | spikes | dips | level shifts |")  # noqa: T201
    print("|---|---:|---:|---:|---:|---:|")  # noqa: T201
    for name, detect in DETECTORS.items():
        wrong, found, precision = measure(detect)
        rate = sum(wrong.values()) / len(wrong)
        shares = " | ".join(f"{found[fault]:.0%}" for fault in ("spike", "dip", "shift"))
        print(f"| {name} | {rate:.2f} | {precision:.0%} | {shares} |")  # noqa: T201
        if detect is by_forecasts:
            print({mean: round(each, 2) for mean, each in wrong.items()})  # noqa: T201
    print(f"{microseconds_a_point():.0f} us a point")  # noqa: T201


if __name__ == "__main__":
    main()
