"""The hub in scenes that are written down: one watcher of one key, and what it is told when."""

import pytest

from service.errors import QueryFailed, QueryTimeout
from service.live.hub import LATE_S, SILENT_RETRY_S
from service.results.freshness import NAMES
from service.results.requests import REFRESH_EVERY_S
from tests.pure.test_live_hub import LONGEST_PAUSE_S, Watched
from tests.pure.test_results_model import DEFINITIONS, FRESH_FOR_S


class Stage(Watched):
    """The machine in scenes that are written down: one watcher of one key, whose first result is shown."""

    def __init__(self, key="one"):
        super().__init__()
        self.begin(names=NAMES, watched=False)
        self.watch(key=key)
        self.screen = self.screens[0]

    def pass_(self, seconds):
        self.let_time_pass(seconds=seconds)
        self.a_watcher_is_told_soon_that_it_shows_an_old_state()
        self.nothing_is_sent_twice()


@pytest.fixture
def stage():
    made = Stage()
    made.finish_all()
    assert (made.screen.shown["data.a"], made.screen.stale) == (0, False)
    yield made
    made.teardown()


def test_a_change_runs_at_once_and_the_next_one_after_the_pause(stage):
    stage.pass_(REFRESH_EVERY_S)
    stage.change(table="data.a")
    assert len(stage.runs) == 1
    stage.finish_all()
    assert stage.screen.shown["data.a"] == 1
    stage.change(table="data.a")
    assert not stage.runs, "results of one key are not run faster than the pause"
    stage.pass_(REFRESH_EVERY_S)
    assert len(stage.runs) == 1
    stage.finish_all()
    assert stage.screen.shown["data.a"] == 2


@pytest.mark.parametrize("changes", [1, 3])
def test_changes_during_a_run_are_followed_by_one_run(stage, changes):
    stage.pass_(REFRESH_EVERY_S)
    stage.change(table="data.a")
    (run,) = stage.runs
    run.read = stage.known("one")
    for _ in range(changes):
        stage.change(table="data.a")
    run.gate.set_result(None)
    stage.loop.settle()
    assert stage.screen.shown["data.a"] == 1
    begun = len(stage.begun)
    stage.pass_(REFRESH_EVERY_S)
    stage.finish_all()
    stage.pass_(REFRESH_EVERY_S)
    assert stage.screen.shown["data.a"] == 1 + changes
    assert len(stage.begun) == begun + 1


def test_a_change_during_the_first_run_is_followed_by_one():
    stage = Stage()
    (run,) = stage.runs
    run.read = stage.known("one")
    stage.change(table="data.a")
    run.gate.set_result(None)
    stage.loop.settle()
    stage.pass_(REFRESH_EVERY_S)
    stage.finish_all()
    stage.pass_(REFRESH_EVERY_S)
    stage.finish_all()
    assert stage.screen.shown["data.a"] == 1
    stage.teardown()


def test_a_run_that_is_late_is_told_and_its_equal_result_ends_that(stage):
    """A row was changed and changed back: there is nothing new, but the result is no longer in doubt."""
    stage.pass_(REFRESH_EVERY_S)
    stage.generations.announced("data.a 900", stage.loop.now)
    stage.loop.settle()
    assert stage.runs
    stage.pass_(LATE_S / 2)
    assert not stage.screen.stale
    stage.pass_(LATE_S / 2)
    assert stage.screen.stale
    stage.finish_all()
    assert not stage.screen.stale
    assert len(stage.screen.tags) == 1


def test_a_run_that_fails_is_told_and_tried_again_with_growing_pauses(stage):
    stage.pass_(REFRESH_EVERY_S)
    stage.change(table="data.a")
    for pause in (0.5, 1.0, 2.0):
        (run,) = stage.runs
        run.gate.set_exception(QueryTimeout())
        stage.failed = True
        stage.loop.settle()
        assert stage.screen.stale
        stage.pass_(pause / 2)
        assert not stage.runs
        stage.pass_(pause / 2)
    stage.finish_all()
    assert (stage.screen.shown["data.a"], stage.screen.stale) == (1, False)


def test_a_run_that_would_fail_again_is_told_and_tried_after_a_change_alone(stage):
    stage.pass_(REFRESH_EVERY_S)
    stage.change(table="data.a")
    stage.runs[0].gate.set_exception(QueryFailed())
    stage.loop.settle()
    assert stage.screen.stale
    stage.pass_(LONGEST_PAUSE_S)
    assert not stage.runs
    stage.change(table="data.a")
    stage.finish_all()
    assert (stage.screen.shown["data.a"], stage.screen.stale) == (2, False)


def test_silence_is_told_and_the_result_looked_for_again_and_again(stage):
    stage.lose_the_connection()
    stage.loop.settle()
    assert stage.screen.stale
    stage.pass_(REFRESH_EVERY_S)
    stage.finish_all()
    stage.committed["data.a"] += 1  # nobody tells
    stage.pass_(SILENT_RETRY_S - 1)
    assert not stage.runs
    stage.pass_(1)
    stage.finish_all()
    assert (stage.screen.shown["data.a"], stage.screen.stale) == (1, True)
    stage.connect()
    stage.poll()
    stage.loop.settle()
    for _ in range(3):
        stage.pass_(REFRESH_EVERY_S)
        stage.finish_all()
    assert not stage.screen.stale


def test_a_result_that_depends_on_the_clock_is_run_when_it_ends():
    stage = Stage("timed")
    stage.finish_all()
    stage.pass_(FRESH_FOR_S / 2)
    assert not stage.runs
    stage.pass_(FRESH_FOR_S / 2)
    assert len(stage.runs) == 1
    stage.teardown()


@pytest.mark.parametrize("what", ["metric", "views"])
def test_after_a_redefinition_the_new_result_is_shown(stage, what):
    stage.redefine()
    assert stage.planned == 1
    if what == "metric":
        stage.know(DEFINITIONS, 1)
        stage.redefine_a_metric(key="one")
    else:
        stage.poll()
        stage.loop.settle()
    stage.finish_all()
    stage.pass_(REFRESH_EVERY_S)
    stage.finish_all()
    assert stage.screen.shown[DEFINITIONS] == 1
    assert stage.planned == 2, "what a request reads may be another now"
