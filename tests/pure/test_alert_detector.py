"""The detector: what it finds, how seldom it is wrong, and what it must never do."""

from datetime import date, datetime, timedelta
from itertools import pairwise
from math import exp, lgamma, log, log10, nan

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from service.alerts.detect import (
    DEFAULT_SENSITIVITY,
    LEAST_CHANGE,
    Amount,
    Counts,
    Point,
    are_counts,
    forecasts,
    usual_step_s,
)
from tests.bench.alerts import by_forecasts, measure
from tests.series import MEANS, START, amounts, counts, hours

VALUES = st.integers(0, 400)
COUNTS = st.builds(Counts, st.floats(0.02, 2000), st.floats(0.003, 3))


def flags(points, **options):
    found = forecasts(points, **options)
    return {
        point.at: forecast.side(point.value)
        for point, forecast in zip(points, found, strict=True)
        if forecast is not None and forecast.score(point.value) >= DEFAULT_SENSITIVITY
    }


def test_clean_counts_of_all_sizes_make_few_false_alerts_and_faults_are_found():
    wrong, found, precision = measure(by_forecasts, seeds=2)
    assert set(wrong) == set(MEANS)
    assert max(wrong.values()) <= 0.5
    assert precision >= 0.95
    assert found["spike"] >= 0.85
    assert found["dip"] >= 0.7
    assert found["shift"] >= 0.65


@pytest.mark.parametrize("scale", [0.5, 5, 50])
@pytest.mark.parametrize("trend", [0, 0.5])
def test_clean_amounts_make_few_false_alerts(scale, trend):
    found = [len(flags(amounts((scale, trend, seed), scale=scale, trend=trend))) for seed in range(8)]
    assert sum(found) / len(found) <= 0.5


def test_an_outlier_among_amounts_is_found_and_the_next_points_are_usual():
    points = amounts("outlier")
    points[200] = points[200]._replace(value=points[200].value + 60)
    assert flags(points) == {points[200].at: 1}


@pytest.mark.parametrize(("fault", "side"), [("spike", 1), ("dip", -1)])
@pytest.mark.parametrize("missing", [0, 0.1])
def test_a_single_fault_is_found_on_its_side_and_only_there(fault, side, missing):
    made = counts("single", 60, week="flat", missing=missing, faults={200: fault})
    (at,) = made.faults
    assert flags(made.points) == {made.points[at].at: side}


def test_a_new_level_is_told_and_then_usual():
    made = counts("new level", 40, faults={200: "shift"})
    told = flags(made.points)
    begin = START + timedelta(days=200)
    assert min(told) - begin < timedelta(days=3)
    assert max(told) - begin < timedelta(days=30)


@pytest.mark.parametrize("seed", range(4))
def test_small_counts_show_a_new_level_by_their_sum(seed):
    made = counts(("small", seed), 7, week="flat", faults={200: "shift"})
    told = flags(made.points)
    assert min(told) - START - timedelta(days=200) < timedelta(days=8)
    found = zip(made.points, forecasts(made.points), strict=True)
    by_sum = [point.at for point, each in found if point.at in told and each.high.score(point.value) < 4]
    assert by_sum


def test_growth_and_seasons_are_usual():
    assert flags(counts("growth", 100, week="office", trend=2.0).points) == {}


def test_days_without_counts_in_a_week_are_usual_and_a_count_there_is_not():
    points = counts("office", 50, week="office").points
    sunday = next(number for number, point in enumerate(points) if number > 200 and point.at.weekday() == 6)
    assert points[sunday].value == 0
    points[sunday] = points[sunday]._replace(value=40)
    assert flags(points) == {points[sunday].at: 1}


def test_a_holiday_may_be_as_quiet_as_a_sunday_if_it_is_listed():
    points = counts("holiday", 100).points
    day = next(number for number, point in enumerate(points) if number > 200 and point.at.weekday() == 2)
    quiet = points[day]._replace(value=45)
    points[day] = quiet
    assert quiet.at in flags(points)
    assert flags(points, holidays=[quiet.at.date()]) == {}
    points[day] = quiet._replace(value=2)
    assert flags(points, holidays=[quiet.at.date()]) == {quiet.at: -1}


def test_hours_have_a_daily_season_and_clocks_may_change():
    points = hours("clocks", 40, days=60, start=datetime(2024, 3, 1))  # noqa: DTZ001
    assert any(after.at - before.at == timedelta(hours=2) for before, after in pairwise(points))
    assert flags(points) == {}
    autumn = hours("clocks back", 40, days=40, start=datetime(2024, 10, 1))  # noqa: DTZ001
    changed = [point for point in autumn if point.at.date() == date(2024, 10, 27)]
    assert len(changed) == 24
    # The hour that comes twice has twice the count, and nothing else is told.
    assert {at.date() for at in flags(autumn)} <= {date(2024, 10, 27)}


def test_the_first_weeks_are_not_judged():
    points = counts("young", 30, days=60).points
    found = forecasts(points)
    assert found[:21] == [None] * 21
    assert None not in found[21:]


def test_missing_values_teach_nothing():
    points = counts("gaps", 30).points
    holes = [point if number % 10 else point._replace(value=nan) for number, point in enumerate(points)]
    without = [point for number, point in enumerate(points) if number % 10]
    kept = [each for number, each in enumerate(forecasts(holes)) if number % 10]
    assert kept == forecasts(without, step_s=86400)


@settings(max_examples=60)
@given(st.lists(VALUES, min_size=30, max_size=80), st.integers(1, 40))
def test_later_points_change_no_forecast(values, later):
    points = [Point(START + timedelta(days=day), value) for day, value in enumerate(values)]
    assert forecasts(points)[:-later] == forecasts(points[:-later], step_s=86400)


@settings(max_examples=60)
@given(st.lists(st.one_of(VALUES, st.just(10**9), st.just(0)), min_size=25, max_size=120))
def test_any_counts_give_finite_scores_and_bands_in_order(values):
    points = [Point(START + timedelta(days=day), value) for day, value in enumerate(values)]
    for forecast, point in zip(forecasts(points), points, strict=True):
        if forecast is None:
            continue
        assert 0 <= forecast.score(point.value) <= 300
        band = forecast.band(4)
        assert 0 <= band.low <= max(band.high, band.low)
        assert band.high < 1e13


@settings(max_examples=60)
@given(st.lists(st.floats(-1e12, 1e12), min_size=25, max_size=80))
def test_any_amounts_give_finite_scores(values):
    points = [Point(START + timedelta(days=day), value) for day, value in enumerate(values)]
    for forecast, point in zip(forecasts(points), points, strict=True):
        assert forecast is None or 0 <= forecast.score(point.value) <= 300


@settings(max_examples=200)
@given(COUNTS, st.integers(0, 5000), st.floats(1, 12))
def test_a_band_holds_what_is_no_anomaly_and_nothing_else(model, value, sensitivity):
    band = model.band(sensitivity)
    inside = band.low <= value <= band.high
    assert inside is (model.score(value) < sensitivity)


@settings(max_examples=200)
@given(COUNTS, st.integers(0, 3000))
def test_further_away_is_never_more_usual(model, value):
    further = value + 1 if value > model.mean else max(0, value - 1)
    assume(model.score(value) >= 1)
    assert model.score(further) >= model.score(value) - 0.02


@settings(max_examples=50)
@given(st.floats(0.5, 60), st.floats(0.01, 0.5), st.integers(0, 200))
def test_the_tail_is_the_sum_of_the_probabilities(mean, dispersion, value):
    model, size = Counts(mean, dispersion), 1 / dispersion

    def mass(count):
        return exp(
            lgamma(count + size) - lgamma(size) - lgamma(count + 1)
            + size * log(size / (size + mean)) + count * log(mean / (size + mean))
        )  # fmt: skip

    if abs(value - mean) < max(LEAST_CHANGE, model.deviation):
        assert model.score(value) == 0
        return
    tail = sum(map(mass, range(value, value + 3000) if value > mean else range(value + 1)))
    if tail > 1e-250:
        assert model.score(value) == pytest.approx(-log10(tail), abs=0.02)


def test_an_amount_that_never_changes_makes_any_other_an_anomaly():
    assert Amount(5.5, 0.0).score(5.5) == 0
    assert Amount(5.5, 0.0).score(5.6) == 300


def test_counts_are_whole_and_not_negative():
    assert are_counts([0, 3, 2.0, nan])
    assert not are_counts([0, 3.5])
    assert not are_counts([-1, 3])


def test_the_usual_step_is_that_of_most_points():
    times = [START + timedelta(days=day) for day in (0, 1, 2, 5, 6)]
    assert usual_step_s(times) == 86400
    assert usual_step_s(times[:1]) == float("inf")
