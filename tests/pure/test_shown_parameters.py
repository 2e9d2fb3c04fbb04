"""Parameters as an answer shows them, and the keys under which their results are cached."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import InvalidInput
from service.sql.parameters import Declared
from service.sql.parameters.template import MESSAGES_LIMIT
from tests.pure.stored_sql import (
    END,
    START,
    read,
    trusted,
    where,
)


def test_the_effective_parameters_are_shown():
    template = where("DATE(d) BETWEEN '2025-06-01' AND '2025-06-30'")
    assert template.bind([]).parameters == {"start_date": "2025-06-01", "end_date": "2025-06-30"}
    assert template.bind([END]).parameters == {"start_date": "2025-06-01", "end_date": "2025-06-20"}
    assert template.bind([("day_range", "7")]).parameters == {"day_range": 7}


def test_an_intervals_length_is_shown_until_a_start_replaces_it():
    template = where("d >= CURRENT_DATE - INTERVAL '30' DAY")
    assert template.bind([END]).parameters == {"day_range": 30, "end_date": "2025-06-20"}
    assert template.bind([START]).parameters == {"start_date": "2025-06-05"}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([("n", "1"), ("t", "a")], [("t", "a"), ("n", "01")]),
        ([("n", "5"), ("t", "a")], [("t", "a")]),
    ],
    ids=["order and spelling", "default"],
)
def test_parameters_that_mean_the_same_share_a_key(one, other):
    template = read("SELECT :n, :t", n=Declared("integer", default=5), t=Declared("text"))
    assert template.bind(one) == template.bind(other)


def test_a_window_given_its_own_default_is_the_unchanged_metric():
    template = where("DATE(d) BETWEEN '2025-06-01' AND '2025-06-30'")
    assert template.bind([("start_date", "2025-06-01"), ("end_date", "2025-06-30")]) == template.bind([])


def test_a_given_end_covers_more_than_an_equal_literal_on_a_moment():
    template = where("d BETWEEN '2025-06-01' AND '2025-06-30'")
    assert template.bind([("end_date", "2025-06-30")]).key != template.bind([]).key


@given(st.lists(st.tuples(st.text("abc,[]\"'", min_size=1), st.text("abc,[]\"'", min_size=1)), min_size=2))
def test_different_values_never_share_a_key(pairs):
    template = read("SELECT :a, :b", a=Declared("text"), b=Declared("text"))
    keys = {template.bind([("a", a), ("b", b)]).key for a, b in pairs}
    assert len(keys) == len(set(pairs))


def test_binding_reports_a_clock_added_to_the_sql():
    template = where("d >= '2025-06-01'")
    assert [template.bind([pair]).clock for pair in (START, ("day_range", "7"))] == [False, True]


@pytest.mark.parametrize(
    ("text", "clock"),
    [
        ("now", True),
        (" Today ", True),
        ("[yesterday,infinity)", True),
        ("nowhere", False),
        ("2025-01-01", False),
    ],
)
def test_a_text_that_may_be_cast_to_a_clock_time_is_recognised(text, clock):
    template = read("SELECT CAST(CAST(:t AS text) AS timestamp)").with_types({"t": "text"})
    assert template.bind([("t", text)]).clock is clock


@pytest.mark.parametrize("way", ["bind", "bind_json"])
def test_errors_stop_at_the_message_limit(way):
    """A body of unknown parameters must not produce many times its size in messages."""
    template = trusted("SELECT :known::int")
    unknown = {f"p{number}": "1" for number in range(50_000)}
    pairs = list(unknown.items())
    tracemalloc.start()
    with pytest.raises(InvalidInput) as refused:
        getattr(template, way)(pairs if way == "bind" else unknown)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(refused.value.errors) == MESSAGES_LIMIT
    assert peak < 2_000_000
