"""What a request's log line tells, and what it must not."""

import pytest

from service.auth.tokens import EVERYONE
from service.http.log_fields import cache_outcome, caller_of, shown_path, shown_query

JWT = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJlLW9mLWl0"


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("", ""),
        ("start_date=2025-06-01&end_date=2025-06-30", "start_date=2025-06-01&end_date=2025-06-30"),
        ("q=a%20b&flag", "q=a%20b&flag"),
        ("ticket=abc&q=1", "ticket=***&q=1"),
        ("access_token=abc", "access_token=***"),
        ("Access%5FToken=abc", "Access%5FToken=***"),
        ("client_secret=a&password=b&api_key=c&key=d", "client_secret=***&password=***&api_key=***&key=***"),
        ("monkey=1", "monkey=1"),
        (f"q={JWT}", "q=***"),
        (f"q={JWT.replace('.', '%2E')}", "q=***"),
        (JWT, "***"),
        (f"{JWT}=1", "***"),
        ("q=" + "x" * 200, "q=" + "x" * 200),
        ("q=" + "x" * 201, "q=" + "x" * 200 + "..."),
    ],
)
def test_a_query_is_shown_without_secrets_and_cut(query: str, shown: str):
    assert shown_query(query.encode()) == shown


def test_a_query_of_many_parameters_is_cut_as_a_whole():
    assert len(shown_query(b"&".join(b"name=value" for _ in range(10_000)))) < 2100


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/metrics", "/metrics"),
        ("/s/abc/data", "/s/***/data"),
        (f"/s/{JWT}", "/s/***"),
        (f"/live/{JWT}/x", "/live/***/x"),
        ("/items/s/abc", "/items/s/abc"),
    ],
)
def test_a_path_is_shown_without_tokens(path: str, shown: str):
    assert shown_path(path) == shown


@pytest.mark.parametrize("text", ["a", "a" * 8 + ".", "a" * 8 + "-"])
def test_a_path_and_a_query_as_long_as_a_head_can_be_are_read_once(text: str):
    """Were each part read again from each of its characters, this would take hours."""
    whole = text * ((1 << 20) // len(text)) + "!"
    assert len(shown_path(whole)) <= len(whole)
    assert len(shown_query(whole.encode())) < 300


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (b"tally; hit", "hit"),
        (b"tally; hit; ttl=3", "hit"),
        (b"tally; hit; ttl=-3; detail=stale", "stale"),
        (b"tally; fwd=miss", "miss"),
        (b"tally; fwd=stale; collapsed", "joined"),
    ],
)
def test_the_outcome_of_the_cache_is_one_word(status: bytes, outcome: str):
    assert cache_outcome([(b"etag", b'"a"'), (b"cache-status", status)]) == outcome


def test_an_answer_without_the_cache_has_no_outcome():
    assert cache_outcome([(b"etag", b'"a"')]) is None


def test_the_caller_is_the_subject_of_the_token():
    assert caller_of({"principal": EVERYONE}) == "local"
    assert caller_of({"principal": None}) is caller_of({}) is None
