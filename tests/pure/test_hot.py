"""Hot results are run again by the change itself: the most asked first, few side by side, only while hot."""

import asyncio
from math import inf

import pytest

from service.errors import QueryTimeout
from service.http.fields import ANY
from service.live import hot
from service.live.hot import SIDE_BY_SIDE, HotResults
from service.results.cache import Results
from service.results.freshness import Generations
from service.results.requests import Computed
from service.results.table import ResultTable
from tests.pure.lookup import Lookup
from tests.pure.test_results_model import Loop

HOT_FOR_S = 10.0


class Harness:
    """Results that are run when the test says so. `begun` names the runs in their order."""

    def __init__(self, hot_for_s=HOT_FOR_S):
        self.loop = Loop()
        generations = Generations()
        generations.heard(self.loop.now)
        self.results = Results(
            generations, ResultTable(1 << 24), self.loop.time, wait_s=60, stale_if_error_s=60
        )
        self.begun = []
        self.gates = {}
        self.held_up = False
        self.hot = HotResults(self.results, hot_for_s)
        self.task = self.loop.create_task(self.hot.keep(self.results.subscribe()))
        self.loop.settle()

    def request(self, name, table="data.a", refresh_every_s=0.0):
        async def run():
            self.begun.append(name)
            if self.held_up:
                self.gates[name] = self.loop.create_future()
                await self.gates[name]
            return Computed(f"{len(self.begun)}".encode(), "", 1)

        return Lookup(name, name, (table,), 5.0, compute=run, refresh_every_s=refresh_every_s)

    def ask(self, name, times=1, **about):
        for _ in range(times):
            self.loop.create_task(self.results.get(self.request(name, **about), ANY))
            self.loop.settle()
        self.begun.clear()

    def change(self, table="data.a"):
        self.results.announced(f"{table} 700")
        self.loop.settle()

    def finish(self, name):
        self.gates[name].set_result(None)
        self.loop.settle()

    def wait(self, seconds):
        self.loop.now += seconds
        self.loop.settle()

    def close(self):
        self.task.cancel()
        self.loop.settle()
        self.loop.run_until_complete(self.results.close())
        assert self.task.done()
        self.loop.close()


@pytest.fixture
def made():
    harnesses = []

    def make(**options):
        harnesses.append(Harness(**options))
        return harnesses[-1]

    yield make
    for harness in harnesses:
        harness.close()


@pytest.fixture
def harness(made):
    return made()


def test_the_most_asked_run_first_and_few_side_by_side(harness):
    for times, name in enumerate("abcd", 1):
        harness.ask(name, times)
    harness.held_up = True
    harness.change()
    assert harness.begun == ["d", "c"]
    assert len(harness.begun) == SIDE_BY_SIDE
    harness.finish("c")
    assert harness.begun == ["d", "c", "b"]
    harness.finish("d")
    assert harness.begun == ["d", "c", "b", "a"]


def test_under_changes_without_end_the_least_asked_are_left_to_their_next_caller(harness):
    for times, name in enumerate("abcd", 1):
        harness.ask(name, times)
    harness.held_up = True
    harness.change()
    for _ in range(5):
        harness.change()
        harness.finish("c")
        harness.finish("d")
    assert set(harness.begun) == {"c", "d"}
    harness.finish("c")
    harness.finish("d")
    assert set(harness.begun[-2:]) == {"a", "b"}


def test_a_result_is_run_again_while_it_is_hot_and_no_longer(harness):
    harness.ask("a")
    harness.wait(HOT_FOR_S)
    harness.change()
    assert harness.begun == ["a"]
    harness.wait(0.1)  # that run was nobody's request
    harness.change()
    assert harness.begun == ["a"]
    harness.ask("a")
    harness.change()
    assert harness.begun == ["a"]


def test_a_hit_keeps_a_result_hot(harness):
    harness.ask("a")
    harness.wait(HOT_FOR_S)
    assert harness.results.hit("a")
    harness.wait(HOT_FOR_S)
    harness.change()
    assert harness.begun == ["a"]


def test_other_tables_run_nothing_and_zero_seconds_run_nothing(made):
    harness, off = made(), made(hot_for_s=0)
    for each in (harness, off):
        each.ask("a")
    harness.change("data.b")
    off.change()
    assert (harness.begun, off.begun) == ([], [])


def test_the_pause_between_two_runs_is_kept(harness):
    harness.ask("a", refresh_every_s=2.0)
    harness.ask("b")
    harness.change()
    assert harness.begun == ["b"]
    harness.wait(1.9)
    assert harness.begun == ["b"]
    harness.wait(0.1)
    assert harness.begun == ["b", "a"]


def test_a_failed_run_ends_nothing(harness):
    harness.ask("a")
    harness.ask("b", 2)
    harness.held_up = True
    harness.change()
    harness.gates["b"].set_exception(QueryTimeout())
    harness.loop.settle()
    harness.finish("a")
    harness.change()
    assert harness.begun == ["b", "a", "b", "a"]


def test_what_a_caller_had_run_meanwhile_is_not_run_again(harness):
    for name in ("a", "b", "c"):
        harness.ask(name, 1 if name == "a" else 2)
    harness.held_up = True
    harness.change()
    assert set(harness.begun) == {"b", "c"}
    harness.wait(0.01)
    harness.loop.create_task(harness.results.get(harness.request("a"), ANY))
    harness.loop.settle()
    for name in ("a", "b", "c"):
        harness.finish(name)
    assert sorted(harness.begun) == ["a", "b", "c"]


def test_beyond_a_number_the_least_asked_are_forgotten(harness, monkeypatch):
    monkeypatch.setattr(hot, "MOST", 4)
    for number in range(8):
        harness.ask(f"n{number}", 8 - number)
    harness.ask("new")
    harness.change()
    assert set(harness.begun) == {"n0", "n1", "n2", "new"}
    assert len(harness.hot._known) == 4


def test_the_cold_are_forgotten_before_the_least_asked(harness, monkeypatch):
    monkeypatch.setattr(hot, "MOST", 4)
    harness.ask("cold", 50)
    harness.wait(HOT_FOR_S + 1)
    for number in range(8):
        harness.ask(f"n{number}", 1 + number)
    harness.change()
    assert set(harness.begun) == {f"n{number}" for number in range(4, 8)}


def test_a_result_that_left_the_table_is_forgotten(harness):
    harness.ask("a")
    harness.results.redefined(1, ["a"])
    harness.change()
    assert (harness.begun, harness.hot._known, harness.hot._by_table) == ([], {}, {})


def test_an_idle_look_waits_for_a_change_alone(harness):
    assert harness.hot._next(harness.loop.now) == (None, inf)
    assert len(asyncio.all_tasks(harness.loop)) == 1 + SIDE_BY_SIDE
