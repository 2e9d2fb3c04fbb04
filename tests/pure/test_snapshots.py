"""Which transactions a snapshot shows, against a model of Postgres's own bookkeeping."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.database.snapshots import Position, Snapshot, parse_snapshot


@pytest.mark.parametrize(
    ("text", "shown", "hidden"),
    [
        ("10:10:", [1, 9], [10, 11]),
        ("10:20:10,15", [9, 11, 19], [10, 15, 20, 99]),
        ("4294967290:4294967300:4294967296", [4294967295, 4294967299], [4294967296, 4294967300]),
    ],
)
def test_a_snapshot_shows_what_had_ended(text, shown, hidden):
    snapshot = parse_snapshot(text)
    assert [each for each in shown if not snapshot.shows(each)] == []
    assert [each for each in hidden if snapshot.shows(each)] == []


steps = st.lists(st.tuples(st.sampled_from(["begin", "end", "look"]), st.integers(0, 20)), max_size=60)


@given(steps)
def test_of_two_snapshots_the_later_one_includes_the_earlier(steps):
    """And the earlier one includes the later one only if no transaction ended in between."""
    following, running, looks = 100, set[int](), []
    ended = set[int]()
    latest = 99
    for kind, number in steps:
        if kind == "begin":
            running.add(following)
            following += 1
        elif kind == "end" and running:
            one = sorted(running)[number % len(running)]
            running.remove(one)
            ended.add(one)
            latest = max(latest, one)
        elif kind == "look":
            xmax = latest + 1
            below = frozenset(each for each in running if each < xmax)
            looks.append((Snapshot(min(below, default=xmax), xmax, below), frozenset(ended)))
    for n, (earlier, before) in enumerate(looks):
        assert {each for each in range(100, following) if earlier.shows(each)} == before
        for later, after in looks[n:]:
            assert later.includes(Position("", earlier, 0.0))
            assert earlier.includes(Position("", later, 0.0)) is (before == after)


def test_a_standby_shows_what_it_was_asked_for_and_what_it_has_replayed():
    """It does not tell which transactions are running, so the numbers from `xmin` on say nothing."""
    snapshot = Snapshot(10, 10, shown=frozenset([12]), replayed=500)
    assert [snapshot.shows(each) for each in (9, 10, 11, 12)] == [True, False, False, True]
    primary = Snapshot(20, 20)
    assert snapshot.includes(Position("", primary, 0.0, wal=500))
    assert not snapshot.includes(Position("", primary, 0.0, wal=501))
    assert not snapshot.includes(Position("", primary, 0.0))
