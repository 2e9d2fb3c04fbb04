"""How often: allowances, and the numbers that are told to callers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.auth import limits
from service.auth.limits import Allowance


class Clock:
    time = 0.0

    def __call__(self):
        return self.time


@pytest.fixture
def clock():
    return Clock()


def test_an_allowance_can_be_used_at_once_and_comes_back_evenly(clock):
    allowance = Allowance(60, 60, now=clock)
    assert [allowance.take("a").allowed for _ in range(61)] == [True] * 60 + [False]
    clock.time = 2.0
    assert [allowance.take("a").allowed for _ in range(3)] == [True, True, False]


def test_the_numbers_told_are_those_that_hold(clock):
    allowance = Allowance(10, 60, now=clock)
    first = allowance.take("a")
    assert (first.limit, first.remaining, first.reset_s, first.retry_s) == (10, 9, 6, 0)
    for _ in range(9):
        last = allowance.take("a")
    assert (last.allowed, last.remaining, last.reset_s) == (True, 0, 60)
    refused = allowance.take("a")
    assert (refused.allowed, refused.remaining, refused.retry_s) == (False, 0, 6)
    clock.time = refused.retry_s
    assert allowance.take("a").allowed


def test_callers_do_not_use_up_each_other(clock):
    allowance = Allowance(1, 60, now=clock)
    assert allowance.take("a").allowed
    assert not allowance.take("a").allowed
    assert allowance.take("b").allowed


def test_being_refused_costs_nothing(clock):
    allowance = Allowance(1, 10, now=clock)
    for _ in range(100):
        allowance.take("a")
    clock.time = 10.0
    assert allowance.take("a").allowed


def test_looking_costs_nothing(clock):
    allowance = Allowance(1, 10, now=clock)
    for _ in range(100):
        assert allowance.look("a").allowed
    allowance.take("a")
    assert not allowance.look("a").allowed


def test_many_keys_do_not_grow_memory_without_bound(clock, monkeypatch):
    monkeypatch.setattr(limits, "KEYS", 100)
    allowance = Allowance(5, 60, now=clock)
    for key in range(1000):
        allowance.take(key)
    assert len(allowance._whole_at) == 100


@given(
    limit=st.integers(1, 1000),
    window=st.integers(1, 3600),
    steps=st.lists(st.floats(0, 100, allow_nan=False), max_size=200),
)
def test_no_window_lets_through_more_than_twice_the_limit(limit, window, steps):
    clock = Clock()
    allowance = Allowance(limit, window, now=clock)
    taken: list[float] = []
    for step in steps:
        clock.time += step
        verdict = allowance.take("a")
        assert 0 <= verdict.remaining <= limit
        if verdict.allowed:
            taken.append(clock.time)
    assert all(sum(start <= at < start + window for at in taken) <= 2 * limit for start in taken)
