"""One decision: is a cached result fresh, stale or unusable?"""

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
from service.results.proof import TRANSACTIONS


@pytest.fixture
def generations():
    found = Generations()
    found.heard(0.0)
    return found


def make(generations, *tables, made_at=10.0, fresh_until=inf, stale_for_s=600.0, stale_if_error_s=3600.0):
    return FreshnessPolicy(
        basis=generations.of(tables),
        made_at=made_at,
        fresh_until=fresh_until,
        stale_for_s=stale_for_s,
        stale_if_error_s=stale_if_error_s,
        max_age=0,
    )


def test_a_result_stays_fresh_until_a_table_changes(generations):
    policy = make(generations, "data.a", "data.b")
    assert evaluate_freshness(policy, 1e6, generations, None).state is State.FRESH
    generations.announced("data.b 771", 1e6)
    assert evaluate_freshness(policy, 1e6 + 3, generations, None) == (State.MOVED, 3)


def test_other_tables_do_not_end_the_freshness(generations):
    policy = make(generations, "data.a")
    generations.announced("data.b 771", 11.0)
    assert evaluate_freshness(policy, 12.0, generations, None).state is State.FRESH


def test_staleness_counts_from_the_first_of_many_changes(generations):
    policy = make(generations, "data.a")
    for second in range(20, 600):
        generations.announced("data.a 1", float(second))
    assert evaluate_freshness(policy, 599.5, generations, None) == (State.MOVED, 580)
    assert evaluate_freshness(policy, 620.0, generations, None).state is State.SUSPECT


def test_time_ends_the_freshness_of_a_result_that_depends_on_the_clock(generations):
    policy = make(generations, "data.a", fresh_until=70.0)
    assert evaluate_freshness(policy, 69.9, generations, None).state is State.FRESH
    assert evaluate_freshness(policy, 70.0, generations, None) == (State.STALE, 1)
    assert evaluate_freshness(policy, 75.5, generations, None) == (State.STALE, 6)
    assert evaluate_freshness(policy, 669.9, generations, None).state is State.STALE
    assert evaluate_freshness(policy, 670.0, generations, None).state is State.SUSPECT


def test_a_gap_makes_everything_suspect(generations):
    policy = make(generations, "data.a")
    generations.silent(20.0)
    assert evaluate_freshness(policy, 20.0, generations, None).state is State.SUSPECT
    generations.heard(21.0)
    assert evaluate_freshness(policy, 21.0, generations, None).state is State.SUSPECT
    assert evaluate_freshness(make(generations, "data.a"), 22.0, generations, None).state is State.FRESH


def test_a_run_that_started_before_or_during_a_gap_is_not_fresh_after_it(generations):
    made_before = make(generations, "data.a")
    generations.silent(20.0)
    made_during = make(generations, "data.a")
    generations.heard(21.0)
    assert evaluate_freshness(made_before, 22.0, generations, None).state is State.SUSPECT
    assert evaluate_freshness(made_during, 22.0, generations, None).state is State.SUSPECT


def test_cached_results_are_served_while_the_database_is_lost(generations):
    policy = make(generations, "data.a", stale_for_s=0.0, stale_if_error_s=100.0)
    generations.silent(20.0)
    assert evaluate_freshness(policy, 50.0, generations, 20.0) == (State.STALE, 30)
    assert evaluate_freshness(policy, 120.0, generations, 20.0).state is State.STALE
    assert evaluate_freshness(policy, 120.1, generations, 20.0).state is State.GONE


def test_a_failing_run_does_not_age_a_current_result(generations):
    assert evaluate_freshness(make(generations, "data.a"), 50.0, generations, 20.0).state is State.FRESH


def test_every_result_is_suspect_before_the_first_connection():
    assert (
        evaluate_freshness(make(unconnected := Generations()), 11.0, unconnected, None).state is State.SUSPECT
    )


def test_a_counter_forgets_old_times_but_no_generations():
    counter = Counter()
    for second in range(3 * LOG_LENGTH):
        counter.rise(float(second))
    assert counter.left_at(0) == -inf
    assert counter.left_at(counter.generation) == inf
    assert counter.left_at(counter.generation - 1) == 3 * LOG_LENGTH - 1


def test_a_counter_never_reports_a_change_too_late():
    counter = Counter()
    times = [0.0, 0.1, 0.2, 0.95, 1.0, 1.1, 5.0, 5.2, 5.9, 6.05]
    for time in times:
        counter.rise(time)
    for generation, moved in enumerate(times):
        assert moved - 1.0 <= counter.left_at(generation) <= moved


def test_each_silent_source_must_recover(generations):
    generations.silent(20.0)
    generations.silent(21.0, "poll")
    generations.heard(22.0)
    policy = make(generations, "data.a", made_at=23.0)
    assert generations.silent_since == 21.0
    assert evaluate_freshness(policy, 24.0, generations, None).state is State.SUSPECT
    generations.polled()
    assert generations.silent_since is None
    assert evaluate_freshness(policy, 24.0, generations, None).state is State.FRESH
    generations.silent(25.0, "poll")
    generations.silent(26.0)
    generations.polled()
    assert generations.silent_since == 26.0


def test_the_last_transactions_that_changed_a_table_are_known(generations):
    for number in range(1, TRANSACTIONS + 4):
        generations.announced(f"data.a {number}", 11.0)
    generations.announced("data.b 700", 11.0)
    assert generations.proofs.transactions(["data.a"]) == (frozenset(range(4, TRANSACTIONS + 4)), 3)
    assert generations.proofs.transactions(["data.b", "data.c"]) == (frozenset([700]), 3)


@pytest.mark.parametrize(
    "payload", ["", "data.a", "data.a ", "data.a x", "data.a -1", "data.a ²", "data.a " + "9" * 5000]
)
def test_a_payload_without_a_transaction_announces_none(generations, payload):
    generations.announced(payload, 11.0)
    assert generations.proofs.transactions(["data.a", "data.b"]) == (frozenset(), 0)


def test_with_too_many_names_older_results_are_suspect_and_transactions_stay_known():
    generations = Generations(names=3)
    generations.heard(0.0)
    generations.announced("data.a 9", 1.0)
    policy = make(generations, "data.a", "data.z")
    for number in range(3):
        generations.announced(f"data.invented_{number} {number}", 11.0)
    assert len(generations._counters) <= 3
    assert evaluate_freshness(policy, 12.0, generations, None).state is State.SUSPECT
    assert generations.proofs.transactions(["data.a"]) == (frozenset(), 9)
    assert evaluate_freshness(make(generations, "data.a"), 12.0, generations, None).state is State.FRESH


def test_nothing_is_fresh_or_told_once_the_service_stops():
    events = []
    generations = Generations(events.append)
    generations.heard(0.0)
    policy = make(generations, "data.a")
    generations.close(11.0)
    generations.silent(12.0)
    assert evaluate_freshness(policy, 12.0, generations, None).state is State.SUSPECT
    assert events == []
