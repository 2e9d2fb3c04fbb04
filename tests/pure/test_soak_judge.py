"""The judge of `make soak` sees what it must see."""

import time

import pytest

from tests.soak.judge import LONGEST_UNNOTICED_S, Judge, Report
from tests.soak.relay import Ear, Relay

NOTIFICATION = b"A\0\0\0\x24\0\0\x01\x02tally_data\0data.metrics %d\0"


@pytest.fixture
def relay():
    return Relay("127.0.0.1", 1)


@pytest.fixture
def judge(relay):
    return Judge(relay, 2)


def listening(relay, *, since=0.0):
    ear = Ear()
    ear.since = since
    relay.ears.add(ear)
    return ear


def answered(judge, n, *, stale=False, later_s=0.001):
    judge.answered(n, stale=stale, asked_at=time.perf_counter() + later_s)
    return judge.wrong


def test_an_answer_that_lacks_what_all_workers_were_told_is_no_fresh_one(relay, judge):
    ears = [listening(relay), listening(relay)]
    judge.commit(1, 501)
    judge.commit(2, 502)
    for ear in ears:
        ear.read(NOTIFICATION % 501 + NOTIFICATION % 502)
    assert answered(judge, 2) == []
    assert answered(judge, 1, stale=True) == []
    assert "had 1" in answered(judge, 1)[0]


def test_a_commit_that_one_worker_was_not_told_of_may_be_lacking(relay, judge):
    one, _ = listening(relay), listening(relay)
    judge.commit(1, 501)
    one.read(NOTIFICATION % 501)
    assert answered(judge, 0) == []


def test_a_worker_that_does_not_listen_excuses_for_a_while_only(relay, judge):
    listening(relay).read(NOTIFICATION % 501)
    judge.commit(1, 501)
    assert answered(judge, 0) == []
    assert "lacked a commit of" in answered(judge, 0, later_s=LONGEST_UNNOTICED_S + 1)[0]


def test_who_began_to_listen_after_a_commit_knows_of_it(relay, judge):
    judge.commit(1, 501)
    for _ in range(2):
        listening(relay, since=time.perf_counter())
    assert answered(judge, 0)


def test_an_announcement_is_known_in_whatever_pieces_it_comes():
    whole = b"x" * 300 + NOTIFICATION % 77 + b"D\0"
    for at in range(290, len(whole)):
        ear = Ear()
        ear.read(whole[:at])
        ear.read(whole[at:])
        assert list(ear.told) == [77]


def test_the_report_tells_the_worst_of_each_fault():
    report = Report()
    for wait_s in (1.0, 3.0):
        report.begin("cut")
        report.outcome("503")
        report.now.longest_wait = wait_s
        report.end()
        report.fresh(time.perf_counter())
        report.missed(time.perf_counter())
    *_, line = report.table()
    assert line.startswith("| cut | 2 | 2 503 | 3000 ms | 0 ms | 0 ms |")
    assert report.recovered()
    report.begin("forever")
    report.end()
    report.fresh(report.now.ended - 1)
    assert not report.recovered()
