"""The table stores entries, counts their bytes and evicts them."""

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.http.representation import SMALLEST, compress
from service.results.freshness import Basis, FreshnessPolicy
from service.results.table import OVERHEAD, Entry, ResultTable, plain

POLICY = FreshnessPolicy(
    basis=Basis(0, ()), made_at=0.0, fresh_until=inf, stale_for_s=1.0, stale_if_error_s=1.0, max_age=0
)


def entry(key, size=1000, owner=None):
    return Entry(
        key=key,
        owner=owner if owner is not None else key,
        policy=POLICY,
        media_type="application/json",
        representations=plain(b"x" * size),
    )


def weight_of(table):
    return sum(held.weight for queue in (table._small, table._main) for held in queue.values())


def test_finds_a_stored_entry():
    table = ResultTable(1 << 20)
    table.put(one := entry("a"))
    assert table.get("a") is one
    assert table.get("b") is None


def test_only_equal_bodies_have_equal_etags():
    tags = {plain(body)["identity"].etag for body in (b"a", b"a", b"b", b"")}
    assert len(tags) == 3


@pytest.mark.parametrize("size", [1 << 20, (1 << 20) // 8])
def test_a_huge_result_evicts_nothing(size):
    table = ResultTable(1 << 20)
    for number in range(100):
        table.put(entry(number))
    table.put(entry("huge", size))
    assert table.get("huge") is None
    assert all(table.get(number) for number in range(100))


def test_a_huge_result_removes_the_older_entry_of_its_key():
    table = ResultTable(1 << 20)
    table.put(entry("a"))
    table.put(entry("a", 1 << 20))
    assert table.get("a") is None
    assert table.weight == 0


def test_a_scan_does_not_evict_polled_entries():
    table = ResultTable(100 * (1000 + OVERHEAD))
    polled = [f"tile {number}" for number in range(50)]
    for key in polled:
        table.put(entry(key))
        table.get(key)
    for number in range(10_000):
        table.put(entry(number))
    assert all(table.get(key) for key in polled)


def test_an_entry_stored_again_soon_after_its_eviction_enters_the_main_queue():
    table = ResultTable(20 * (1000 + OVERHEAD))
    for number in range(30):
        table.put(entry(number))
    assert table.get(0) is None
    table.put(entry(0))
    for number in range(100, 130):
        table.put(entry(number))
    assert table.get(0)


def test_drops_all_entries_of_an_owner():
    table = ResultTable(1 << 20)
    for number in range(10):
        table.put(entry(number, owner="even" if number % 2 == 0 else "odd"))
    table.drop("even")
    table.drop("never seen")
    assert [number for number in range(10) if table.get(number)] == [1, 3, 5, 7, 9]


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_coded_representations_have_their_own_etag_and_weight(coding):
    table = ResultTable(1 << 20)
    table.put(held := entry("a"))
    before = table.weight
    body = compress(held.representations["identity"].body, coding)
    coded = table.add(held, coding, body)
    assert coded.etag != held.representations["identity"].etag
    assert table.weight == before + len(body)
    table.drop("a")
    assert table.weight == 0


def test_all_codings_share_a_small_body_and_its_weight_counts_once():
    small = entry("a", SMALLEST)
    assert set(small.representations.values()) == {small.representations["identity"]}
    assert set(small.representations) == {"identity", "gzip", "zstd"}
    assert small.weight == OVERHEAD + SMALLEST
    assert set(entry("a", SMALLEST + 1).representations) == {"identity"}


@given(
    st.lists(
        st.tuples(st.sampled_from(["put", "get", "drop", "add"]), st.integers(0, 30), st.integers(0, 20_000)),
        max_size=200,
    )
)
def test_never_exceeds_its_room_and_never_miscounts(steps):
    table = ResultTable(100_000)
    for step, key, size in steps:
        if step == "put":
            table.put(entry(key, size, owner=key % 5))
        elif step == "get":
            table.get(key)
        elif step == "drop":
            table.drop(key % 5)
        elif held := table.get(key):
            table.add(held, "gzip", b"z" * size)
        assert table.weight == weight_of(table) <= 100_000
        held_keys = {*table._small, *table._main}
        assert set().union(*table._owned.values()) == held_keys if table._owned else not held_keys
    assert len(table) == len({*table._small, *table._main})
