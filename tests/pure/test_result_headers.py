"""Response headers describe the result."""

from math import inf

import pytest

from service.results.freshness import Basis, FreshnessPolicy
from service.results.headers import reply
from service.results.table import CacheOutcome, Entry, plain


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
