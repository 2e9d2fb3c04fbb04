"""Which commits this process heard of, and whether it can have missed one."""

from service.results.commits import MOST_COMMITS, MOST_TABLES, CommitLog
from service.results.freshness import Generations


class Clock:
    def __init__(self):
        self.at = 100.0

    def __call__(self):
        return self.at


def made():
    clock = Clock()
    log = CommitLog(clock)
    log.silent(is_silent=False)
    return clock, log


def test_commits_between_two_times_are_told_in_order():
    clock, log = made()
    for at, table, transaction in [
        (101, "data.a", 7),
        (102, "data.b", 8),
        (103, "data.a", 9),
        (104, "data.c", 9),
    ]:
        clock.at = at
        log.note(table, transaction)
    heard = log.between(["data.a", "data.b"], 101, 103)
    assert [each.transaction for each in heard.commits] == [8, 9]
    assert heard.complete


def test_a_silence_leaves_what_is_heard_incomplete():
    clock, log = made()
    clock.at = 110.0
    log.silent(is_silent=True)
    assert not log.between(["data.a"], 105, 110).complete
    clock.at = 120.0
    log.silent(is_silent=False)
    log.silent(is_silent=False)
    assert not log.between(["data.a"], 105, 130).complete
    assert log.between(["data.a"], 120, 130).complete


def test_nothing_before_the_first_connection_is_complete():
    assert not CommitLog().between(["data.a"], 0, 1).complete
    assert not Generations().commits.between(["data.a"], 0, 1).complete


def test_more_commits_than_are_kept_leave_it_incomplete():
    clock, log = made()
    for number in range(MOST_COMMITS + 1):
        clock.at = 200.0 + number
        log.note("data.a", number)
        if not number:
            log.note("data.b", number)
    assert not log.between(["data.a"], 199, 1000).complete
    assert len(log.between(["data.a"], 199, 1000).commits) == MOST_COMMITS
    assert log.between(["data.b"], 199, 1000).complete
    assert log.between(["data.a"], 200, 1000).complete


def test_more_tables_than_are_kept_leave_it_incomplete():
    clock, log = made()
    for number in range(MOST_TABLES + 1):
        log.note(f"data.t{number}", number)
    clock.at = 101.0
    assert not log.between(["data.t0"], 99, 101).complete
    assert log.between(["data.t0"], 100, 101).complete


def test_announcements_and_redefinitions_reach_the_log():
    generations = Generations()
    generations.heard(1.0)
    generations.announced("data.a 77", 1.0)
    (commit,) = generations.commits.between(["data.a"], 0, 1e12).commits
    assert (commit.table, commit.transaction) == ("data.a", 77)
    generations.commits.redefined(["data.v", "functions"])
    assert [name for name, _ in generations.commits.redefinitions(0, 1e12)] == ["data.v", "functions"]
