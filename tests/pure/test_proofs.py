"""What a node requires of a result before it counts as fresh."""

import msgspec
import pytest

from service.database.snapshots import Position, Requirement, Snapshot, parse_snapshot
from service.results.proof import RECENT, TRANSACTIONS, Proofs
from service.results.stored import Proof

LIFE = b"life"


def position(text, wal=None):
    return Position("server", parse_snapshot(text), 0.0, wal)


def needed(transactions, wal):
    return Requirement(transactions, wal, "server")


@pytest.fixture
def proofs():
    found = Proofs()
    found.seen(found.asking(0.0), position("100:100:", 1000), LIFE)
    return found


def test_an_announced_transaction_must_be_visible(proofs):
    before, after = parse_snapshot("100:100:"), parse_snapshot("101:101:")
    assert proofs.shows(before, ["data.a"])
    proofs.announced("data.a", 100)
    assert not proofs.shows(before, ["data.a"])
    assert proofs.shows(after, ["data.a"])
    assert proofs.shows(before, ["data.b"])


def test_a_long_transaction_elsewhere_does_not_hide_a_later_one(proofs):
    proofs.announced("data.a", 104)
    assert proofs.shows(parse_snapshot("101:105:101"), ["data.a"])
    assert not proofs.shows(parse_snapshot("101:105:101,104"), ["data.a"])


def test_a_change_without_a_transaction_needs_a_position_that_was_asked_for_later(proofs):
    number = proofs.asking(0.0)
    proofs.moved("data.a")
    proofs.seen(number, position("100:100:"), LIFE)
    assert not proofs.shows(parse_snapshot("120:120:"), ["data.a"])
    assert proofs.shows(parse_snapshot("120:120:"), ["data.b"])
    proofs.seen(proofs.asking(0.0), position("110:112:110"), LIFE)
    assert not proofs.shows(parse_snapshot("110:112:110,111"), ["data.a"])
    assert proofs.shows(parse_snapshot("110:112:110"), ["data.a"])


def test_after_a_gap_nothing_is_proven_until_a_later_position(proofs):
    number = proofs.asking(0.0)
    proofs.renewed()
    proofs.seen(number, position("100:100:"), LIFE)
    assert not proofs.shows(parse_snapshot("120:120:"), ["data.a"])
    proofs.seen(proofs.asking(0.0), position("110:110:"), LIFE)
    assert proofs.shows(parse_snapshot("110:110:"), ["data.a"])
    assert not proofs.shows(parse_snapshot("109:110:109"), ["data.a"])


def test_what_was_announced_while_the_position_came_still_counts(proofs):
    proofs.renewed()
    number = proofs.asking(0.0)
    proofs.announced("data.a", 111)
    proofs.moved("data.b")
    proofs.seen(number, position("110:110:"), LIFE)
    assert not proofs.shows(parse_snapshot("110:110:"), ["data.a"])
    assert not proofs.shows(parse_snapshot("120:120:"), ["data.b"])


def test_a_number_that_nobody_committed_is_dropped_at_the_next_position(proofs):
    proofs.announced("data.a", 10**18)
    assert not proofs.shows(parse_snapshot("120:120:"), ["data.a"])
    proofs.seen(proofs.asking(0.0), position("120:120:"), LIFE)
    assert proofs.shows(parse_snapshot("120:120:"), ["data.a"])


def test_a_busy_table_keeps_few_transactions_and_a_long_one_elsewhere_does_no_harm(proofs):
    for transaction in range(101, 101 + 5 * TRANSACTIONS):
        proofs.announced("data.a", transaction)
        if transaction % 100 == 0:
            proofs.seen(proofs.asking(0.0), position(f"100:{transaction + 1}:100"), LIFE)
    last = 100 + 5 * TRANSACTIONS
    kept, older = proofs.transactions(["data.a"])
    assert len(kept) <= TRANSACTIONS
    assert older == 0
    assert proofs.shows(Snapshot(100, last + 1, frozenset([100])), ["data.a"])
    assert not proofs.shows(Snapshot(100, last + 1, frozenset([100, last])), ["data.a"])
    assert not proofs.shows(Snapshot(100, last - 2000), ["data.a"])


def test_a_standby_must_have_replayed_what_is_not_asked_for_one_by_one(proofs):
    proofs.announced("data.a", 100)
    assert proofs.requirement(["data.a"]) == needed((100,), 1000)
    proofs.announced("data.b", 101)
    proofs.seen(proofs.asking(0.0), position("102:102:", 1100), LIFE)
    assert proofs.requirement(["data.a"]) == needed((), 1100)
    assert proofs.requirement(["data.c"]) == needed((), 1000)
    assert not proofs.shows(Snapshot(90, 90, replayed=1099), ["data.a"])
    assert proofs.shows(Snapshot(90, 90, replayed=1100), ["data.a"])
    proofs.announced("data.a", 102)
    assert not proofs.shows(Snapshot(90, 90, replayed=1100), ["data.a"])
    assert proofs.shows(Snapshot(90, 90, shown=frozenset([102]), replayed=1100), ["data.a"])
    proofs.moved("data.a", digested=True)
    assert proofs.requirement(["data.a"]) is None
    proofs.seen(proofs.asking(0.0), position("103:103:", 1200), LIFE)
    assert proofs.requirement(["data.a"]) == needed((), 1200)
    assert proofs.requirement(["data.c"]) == needed((), 1000)
    assert proofs.requirement(["data.c"], timed=True) == needed((), 1200)


def test_too_many_transactions_for_one_position_need_a_later_one(proofs):
    for transaction in range(RECENT + 1):
        proofs.announced("data.a" if transaction else "data.b", 100 + transaction)
    assert proofs.requirement(["data.b"]) is None
    proofs.seen(proofs.asking(0.0), position("90000:90000:", 2000), LIFE)
    assert proofs.requirement(["data.b"]) == needed((), 2000)


def test_another_life_of_the_server_begins_anew(proofs):
    proofs.announced("data.a", 500)
    proofs.seen(proofs.asking(0.0), position("90:90:"), b"another")
    assert proofs.shows(parse_snapshot("90:90:"), ["data.a"])
    assert not proofs.shows(parse_snapshot("80:80:"), ["data.a"])


def test_the_oldest_of_too_many_transactions_is_required_of_every_result(proofs):
    last = 101 + TRANSACTIONS
    for transaction in range(101, last + 1):
        proofs.announced("data.a", transaction)
    assert proofs.transactions(["data.a"]) == (frozenset(range(102, last + 1)), 101)
    assert not proofs.shows(Snapshot(101, last + 1, frozenset([101])), ["data.a"])
    assert not proofs.shows(Snapshot(101, last + 1, frozenset([101])), ["data.b"])
    assert proofs.shows(Snapshot(102, last + 1), ["data.a"])
    proofs.renewed()
    proofs.seen(proofs.asking(0.0), position(f"{last + 1}:{last + 1}:"), LIFE)
    assert proofs.transactions(["data.a"]) == (frozenset(), 0)


def test_transactions_that_a_position_covers_are_required_by_it(proofs):
    for transaction in range(101, 201):
        proofs.announced("data.a", transaction)
    proofs.seen(proofs.asking(0.0), position("201:201:"), LIFE)
    last = 101 + TRANSACTIONS
    for transaction in range(201, last + 1):
        proofs.announced("data.a", transaction)
    assert proofs.transactions(["data.a"]) == (frozenset(range(201, last + 1)), 0)
    assert proofs.shows(Snapshot(last + 1, last + 1), ["data.a"])
    assert not proofs.shows(Snapshot(150, last + 1, frozenset([150])), ["data.a"])
    assert not proofs.shows(Snapshot(201, last + 1, frozenset([201])), ["data.a"])


def test_what_was_forgotten_is_required_until_a_position_covers_it(proofs):
    proofs.announced("data.a", 500)
    proofs.forget()
    assert proofs.transactions(["data.a"]) == (frozenset(), 500)
    assert not proofs.shows(parse_snapshot("600:600:"), ["data.a"])
    proofs.seen(proofs.asking(0.0), position("550:550:"), LIFE)
    assert proofs.shows(parse_snapshot("550:550:"), ["data.a"])
    assert not proofs.shows(parse_snapshot("549:549:"), ["data.a"])


def test_a_position_covers_nothing_that_became_known_after_its_question(proofs):
    number = proofs.asking(0.0)
    proofs.announced("data.a", 105)
    proofs.moved("data.b", digested=True)
    proofs.seen(number, position("100:100:", 1100), LIFE)
    assert proofs.transactions(["data.a"]).latest == {105}
    assert proofs.requirement(["data.a"]) == needed((105,), 1000)
    assert proofs.requirement(["data.b"]) is None
    proofs.seen(proofs.asking(0.0), position("106:106:", 1200), LIFE)
    assert proofs.requirement(["data.a"]) == needed((), 1200)
    assert proofs.requirement(["data.b"]) == needed((), 1200)


def test_the_first_position_after_a_gap_does_neither(proofs):
    proofs.renewed()
    number = proofs.asking(0.0)
    proofs.announced("data.a", 105)
    proofs.moved("data.b", digested=True)
    proofs.moved("data.c")
    proofs.seen(number, position("100:100:", 1100), LIFE)
    assert proofs.requirement(["data.a"]) == needed((105,), 1100)
    assert proofs.requirement(["data.b"]) is None
    assert proofs.requirement(["data.c"]) is None


def test_of_two_changes_without_transactions_the_later_one_counts(proofs):
    proofs.asking(0.0)
    proofs.moved("data.a")
    number = proofs.asking(0.0)
    proofs.moved("data.a")
    proofs.seen(number, position("100:100:"), LIFE)
    assert not proofs.shows(parse_snapshot("120:120:"), ["data.a"])


def test_an_unknown_floor_is_no_floor(proofs):
    proofs.moved("data.a")
    assert not proofs.shows(parse_snapshot("120:120:"), ["data.a"])
    proofs.renewed()
    assert not proofs.shows(parse_snapshot("120:120:"), ["data.b"])
    assert proofs.requirement(["data.b"]) is None


def test_a_proof_is_of_this_server_this_life_and_these_definitions(proofs):
    proof = Proof("server", parse_snapshot("100:100:"), b"definitions", LIFE)
    assert proofs.holds(proof, b"definitions", ["data.a"])
    assert not proofs.holds(proof, b"others", ["data.a"])
    for name, value in (("server", "other"), ("incarnation", b"other"), ("digest", b"other")):
        other = msgspec.structs.replace(proof, **{name: value})
        assert not proofs.holds(other, b"definitions", ["data.a"]), name
    proofs.announced("data.a", 100)
    assert not proofs.holds(proof, b"definitions", ["data.a"])


@pytest.mark.parametrize(("server", "life"), [("other", LIFE), ("server", b"other")])
def test_another_server_is_another_life(proofs, server, life):
    """Its numbers begin elsewhere, so what was required of the old one says nothing."""
    proofs.announced("data.a", 500)
    seen = Position(server, parse_snapshot("90:90:"), 0.0, None)
    proofs.seen(proofs.asking(0.0), seen, life)
    assert (proofs.server, proofs.incarnation) == (server, life)
    assert proofs.shows(parse_snapshot("90:90:"), ["data.a"])
    assert not proofs.shows(parse_snapshot("89:89:"), ["data.a"])
