"""Request directives are read, and response headers describe the result."""

from math import inf

import pytest

from service.results.freshness import Basis, FreshnessPolicy
from service.results.headers import Directives, directives, reply
from service.results.table import CacheOutcome, Entry, plain


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("", Directives()),
        ("no-cache", Directives(no_cache=True)),
        ("No-Cache, foo=bar", Directives(no_cache=True)),
        ("max-age=0", Directives(max_age=0)),
        ('max-age="15"', Directives(max_age=15)),
        ("max-age=30,max-age=10, no-transform", Directives(max_age=10)),
        ("max-age=-1", Directives()),
        ("max-age=ten", Directives()),
        ("x-no-cache, no-cached, no-store", Directives()),
    ],
)
def test_reads_cache_control(field, expected):
    assert directives(field) == expected


def make_outcome(*, fresh_until=inf, max_age=0, **rest):
    policy = FreshnessPolicy(
        basis=Basis(0, ()),
        made_at=100.0,
        fresh_until=fresh_until,
        stale_for_s=600,
        stale_if_error_s=86400,
        max_age=max_age,
    )
    entry = Entry(
        key=1,
        owner=1,
        policy=policy,
        media_type="application/json",
        representations=plain(b"{}"),
    )
    return CacheOutcome(entry, **rest)


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (make_outcome(), "tally; hit"),
        (make_outcome(fresh_until=160.0), "tally; hit; ttl=21"),
        (make_outcome(stale_s=7), "tally; hit; ttl=-7; detail=stale"),
        (make_outcome(forward="miss"), "tally; fwd=miss"),
        (make_outcome(forward="stale", collapsed=True), "tally; fwd=stale; collapsed"),
        (make_outcome(forward="request"), "tally; fwd=request"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_cache_status_names_the_source_of_a_result(outcome, status):
    headers = reply(outcome, "identity", 139.2).headers
    assert headers["cache-status"] == status
    assert headers["age"] == "39"


def test_cache_control_states_how_long_a_result_may_be_cached():
    headers = reply(make_outcome(max_age=60), "identity", 100.0).headers
    expected = "private, max-age=60, stale-while-revalidate=600, stale-if-error=86400"
    assert headers["cache-control"] == expected
