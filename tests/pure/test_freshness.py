"""The one decision: may this answer be served now, and as what."""

from math import inf

import pytest

from service.results.freshness import (
    LOG_LENGTH,
    Counter,
    FreshnessPolicy,
    Generations,
    State,
    evaluate_freshness,
)


@pytest.fixture
def generations():
    found = Generations()
    found.heard(0.0)
    return found


def terms(generations, *tables, made_at=10.0, fresh_until=inf, stale_for_s=600.0, stale_if_error_s=3600.0):
    return FreshnessPolicy(
        basis=generations.of(tables),
        made_at=made_at,
        fresh_until=fresh_until,
        stale_for_s=stale_for_s,
        stale_if_error_s=stale_if_error_s,
        max_age=0,
    )


def test_stays_fresh_until_a_table_moves(generations):
    answer = terms(generations, "data.a", "data.b")
    assert evaluate_freshness(answer, 1e6, generations, None).state is State.FRESH
    generations.announced("data.b 771", 1e6)
    assert evaluate_freshness(answer, 1e6 + 3, generations, None) == (State.MOVED, 3)


def test_ignores_tables_that_it_does_not_read(generations):
    answer = terms(generations, "data.a")
    generations.announced("data.b 771", 11.0)
    assert evaluate_freshness(answer, 12.0, generations, None).state is State.FRESH


def test_counts_staleness_from_the_first_of_many_changes(generations):
    answer = terms(generations, "data.a")
    for second in range(20, 600):
        generations.announced("data.a 1", float(second))
    assert evaluate_freshness(answer, 599.5, generations, None) == (State.MOVED, 580)
    assert evaluate_freshness(answer, 620.0, generations, None).state is State.SUSPECT


def test_time_ends_what_depends_on_the_clock(generations):
    answer = terms(generations, "data.a", fresh_until=70.0)
    assert evaluate_freshness(answer, 69.9, generations, None).state is State.FRESH
    assert evaluate_freshness(answer, 70.0, generations, None) == (State.STALE, 1)
    assert evaluate_freshness(answer, 75.5, generations, None) == (State.STALE, 6)
    assert evaluate_freshness(answer, 669.9, generations, None).state is State.STALE
    assert evaluate_freshness(answer, 670.0, generations, None).state is State.SUSPECT


def test_a_gap_makes_everything_suspect(generations):
    answer = terms(generations, "data.a")
    generations.silent(20.0)
    assert evaluate_freshness(answer, 20.0, generations, None).state is State.SUSPECT
    generations.heard(21.0)
    assert evaluate_freshness(answer, 21.0, generations, None).state is State.SUSPECT
    assert evaluate_freshness(terms(generations, "data.a"), 22.0, generations, None).state is State.FRESH


def test_what_began_before_the_gap_is_not_fresh_after_it(generations):
    began = terms(generations, "data.a")
    generations.silent(20.0)
    during = terms(generations, "data.a")
    generations.heard(21.0)
    assert evaluate_freshness(began, 22.0, generations, None).state is State.SUSPECT
    assert evaluate_freshness(during, 22.0, generations, None).state is State.SUSPECT


def test_serves_what_is_held_while_the_database_is_away(generations):
    answer = terms(generations, "data.a", stale_for_s=0.0, stale_if_error_s=100.0)
    generations.silent(20.0)
    assert evaluate_freshness(answer, 50.0, generations, 20.0) == (State.STALE, 30)
    assert evaluate_freshness(answer, 120.0, generations, 20.0).state is State.STALE
    assert evaluate_freshness(answer, 120.1, generations, 20.0).state is State.GONE


def test_a_failing_run_does_not_age_what_is_known_to_be_current(generations):
    assert evaluate_freshness(terms(generations, "data.a"), 50.0, generations, 20.0).state is State.FRESH


def test_hears_nothing_before_it_listens():
    assert evaluate_freshness(terms(deaf := Generations()), 11.0, deaf, None).state is State.SUSPECT


def test_a_counter_forgets_times_not_generations():
    counter = Counter()
    for second in range(3 * LOG_LENGTH):
        counter.rise(float(second))
    assert counter.left_at(0) == -inf
    assert counter.left_at(counter.generation) == inf
    assert counter.left_at(counter.generation - 1) == 3 * LOG_LENGTH - 1


def test_a_counter_never_says_that_it_moved_later_than_it_did():
    counter = Counter()
    times = [0.0, 0.1, 0.2, 0.95, 1.0, 1.1, 5.0, 5.2, 5.9, 6.05]
    for time in times:
        counter.rise(time)
    for generation, moved in enumerate(times):
        assert moved - 1.0 <= counter.left_at(generation) <= moved


def test_whoever_went_silent_must_speak_again(generations):
    generations.silent(20.0)
    generations.silent(21.0, "poll")
    generations.heard(22.0)
    answer = terms(generations, "data.a", made_at=23.0)
    assert generations.silent_since == 21.0
    assert evaluate_freshness(answer, 24.0, generations, None).state is State.SUSPECT
    generations.polled()
    assert generations.silent_since is None
    assert evaluate_freshness(answer, 24.0, generations, None).state is State.FRESH
    generations.silent(25.0, "poll")
    generations.silent(26.0)
    generations.polled()
    assert generations.silent_since == 26.0
