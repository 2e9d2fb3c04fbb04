"""What a request's headers ask of a held answer, and what a reply says of it."""

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


def served(*, fresh_until=inf, max_age=0, **rest):
    terms = FreshnessPolicy(
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
        terms=terms,
        media_type="application/json",
        representations=plain(b"{}"),
    )
    return CacheOutcome(entry, **rest)


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (served(), "tally; hit"),
        (served(fresh_until=160.0), "tally; hit; ttl=21"),
        (served(stale_s=7), "tally; hit; ttl=-7; detail=stale"),
        (served(forward="miss"), "tally; fwd=miss"),
        (served(forward="stale", collapsed=True), "tally; fwd=stale; collapsed"),
        (served(forward="request"), "tally; fwd=request"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_says_where_an_answer_came_from(answer, status):
    headers = reply(answer, "identity", 139.2).headers
    assert headers["cache-status"] == status
    assert headers["age"] == "39"


def test_says_how_long_it_may_be_kept():
    headers = reply(served(max_age=60), "identity", 100.0).headers
    expected = "private, max-age=60, stale-while-revalidate=600, stale-if-error=86400"
    assert headers["cache-control"] == expected
