"""`Results` against a model: commits, announcements (late, twice or lost), callers that come and leave.

The test owns the clock and the event loop, so a failing interleaving can be replayed.
"""

import asyncio
from collections import deque
from dataclasses import dataclass, field
from itertools import count
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from service.errors import Busy, DatabaseUnavailable, Problem, QueryFailed, QueryTimeout
from service.http.fields import ANY, Directives
from service.observe.events import Event
from service.results.cache import PATIENCE_S, Results
from service.results.feed import Change
from service.results.freshness import NAMES, FreshnessPolicy, Generations
from service.results.requests import Composition, Computed
from service.results.table import OVERHEAD, CacheOutcome, Entry, ResultTable, plain
from tests.pure.lookup import Lookup

DEFINITIONS = "definitions"
"""Every result depends on it and nobody announces its changes. Only a poll notices them."""
READS = {"one": ("data.a",), "both": ("data.a", "data.b"), "timed": ("data.b",), "big": ("data.a",)}
STALE_FOR_S = 5.0
FRESH_FOR_S = 3.0
WAIT_S = 2.0
STALE_IF_ERROR_S = 20.0
ROOM = 8 * (OVERHEAD + 1000)
KEYS = st.sampled_from(list(READS))
DIRECTIVES = st.sampled_from([ANY] * 4 + [Directives(no_cache=True), Directives(max_age=1)])


class Loop(asyncio.SelectorEventLoop):
    """An event loop whose time moves only when the test moves it."""

    now = 1000.0

    def time(self):
        return self.now

    def settle(self):
        for _ in range(20):
            self.call_soon(self.stop)
            self.run_forever()


@dataclass(eq=False)
class Run:
    number: int
    key: str
    gate: asyncio.Future
    began: float
    known: dict
    read: dict | None = None
    taken: bool = False


@dataclass(eq=False)
class Reader:
    key: str
    task: asyncio.Task
    arrived: float
    must_show: dict
    forced: bool = False
    number: int = 0
    checked: bool = field(default=False)


def dependencies_of(key):
    return (*READS[key], DEFINITIONS)


class ResultsMachine(RuleBasedStateMachine):
    @initialize(names=st.sampled_from([2, NAMES]))
    def begin(self, names):
        self.loop = Loop()
        self.generations = Generations(names=names)
        self.results = Results(
            self.generations,
            ResultTable(ROOM),
            self.loop.time,
            wait_s=WAIT_S,
            stale_if_error_s=STALE_IF_ERROR_S,
        )
        self.committed = {"data.a": 0, "data.b": 0, DEFINITIONS: 0}
        self.announced = dict(self.committed)
        self.heard_at = {table: [0.0] for table in self.committed}  # when each version became known here
        self.in_transit = deque()
        self.listening = False
        self.polled = True
        self.failed = False
        self.runs = []
        self.begun = []
        self.readers = []
        self.connect()

    # The database

    @rule(table=st.sampled_from(["data.a", "data.b"]), times=st.integers(1, 3))
    def commit(self, table, times):
        for _ in range(times):
            self.committed[table] += 1
            if self.listening:
                self.in_transit.append((table, self.committed[table]))

    @precondition(lambda self: self.in_transit)
    @rule(twice=st.booleans())
    def deliver(self, twice):
        table, version = self.in_transit.popleft()
        for _ in range(1 + twice):
            self.generations.announced(f"{table} {700 + version}", self.loop.now)
        self.know(table, version)
        self.loop.settle()

    @precondition(lambda self: self.listening)
    @rule()
    def lose_the_connection(self):
        self.in_transit.clear()
        self.listening = False
        self.generations.silent(self.loop.now)

    @precondition(lambda self: not self.listening)
    @rule()
    def connect(self):
        self.listening, self.failed = True, False
        self.results.heard()
        for table in ("data.a", "data.b"):
            self.know(table, self.committed[table])

    @rule()
    def redefine(self):
        self.committed[DEFINITIONS] += 1

    @rule()
    def poll(self):
        self.polled = True
        self.generations.polled()
        if self.announced[DEFINITIONS] < self.committed[DEFINITIONS]:
            self.generations.renew(self.loop.now)
            self.know(DEFINITIONS, self.committed[DEFINITIONS])

    @rule()
    def fail_to_poll(self):
        self.polled = False
        self.generations.silent(self.loop.now, "poll")

    def know(self, table, version):
        self.announced[table] = max(self.announced[table], version)
        while len(self.heard_at[table]) <= version:
            self.heard_at[table].append(self.loop.now)

    # Runs

    def query(self, key):
        async def run():
            assert not any(other.key == key for other in self.runs), "two executions of one key"
            this = Run(len(self.begun), key, self.loop.create_future(), self.loop.now, self.known(key))
            self.begun.append(this)
            self.runs.append(this)
            try:
                await this.gate
            finally:
                self.runs.remove(this)
            body = repr(sorted(this.read.items())).encode()
            if key == "big":
                body = body.ljust(ROOM)
            fresh_for_s = FRESH_FOR_S if key == "timed" else inf
            return Computed(body, "", len(body), timings=str(this.number), fresh_for_s=fresh_for_s)

        return run

    @precondition(lambda self: any(run.read is None for run in self.runs))
    @rule(data=st.data())
    def take_snapshot(self, data):
        run = data.draw(st.sampled_from([run for run in self.runs if run.read is None]))
        run.read = {table: self.committed[table] for table in dependencies_of(run.key)}

    @precondition(lambda self: any(run.read is not None for run in self.runs))
    @rule(data=st.data())
    def finish(self, data):
        run = data.draw(st.sampled_from([run for run in self.runs if run.read is not None]))
        run.gate.set_result(None)
        self.loop.settle()

    @precondition(lambda self: self.runs)
    @rule(data=st.data(), problem=st.sampled_from([DatabaseUnavailable, Busy, QueryTimeout]))
    def fail(self, data, problem):
        run = data.draw(st.sampled_from(self.runs))
        run.gate.set_exception(problem(run=run))
        self.failed = self.failed or problem is DatabaseUnavailable or self.in_doubt()
        self.loop.settle()

    # Callers

    def known(self, key):
        tables = self.announced if self.listening else self.committed
        definitions = self.announced if self.polled else self.committed
        return {
            table: (definitions if table == DEFINITIONS else tables)[table] for table in dependencies_of(key)
        }

    def in_doubt(self):
        return not self.listening or not self.polled

    def call(self, key, directives):
        request = Lookup(key, key, READS[key], STALE_FOR_S, compute=self.query(key))
        must_show = self.known(key)
        if directives.no_cache:
            must_show = {table: self.committed[table] for table in dependencies_of(key)}
        task = self.loop.create_task(self.results.get(request, directives))
        self.readers.append(Reader(key, task, self.loop.now, must_show, directives.no_cache, len(self.begun)))
        return task

    @precondition(lambda self: any(self.results.fresh(key) for key in READS))
    @rule(data=st.data(), problem=st.sampled_from([DatabaseUnavailable, Busy, QueryTimeout]))
    def force_a_run_that_fails(self, data, problem):
        key = data.draw(st.sampled_from([key for key in READS if self.results.fresh(key)]))
        self.call(key, Directives(no_cache=True))
        self.loop.settle()
        if self.begun[-1] in self.runs and self.begun[-1].key == key:
            self.begun[-1].gate.set_exception(problem(run=self.begun[-1]))
            self.failed = self.failed or problem is DatabaseUnavailable or self.in_doubt()
            self.loop.settle()

    @rule(key=KEYS, directives=DIRECTIVES, count=st.integers(1, 3))
    def ask(self, key, directives, count):
        for _ in range(count):
            self.call(key, directives)
        self.loop.settle()

    @precondition(lambda self: self.runs)
    @rule(data=st.data(), directives=DIRECTIVES)
    def ask_for_a_running_key(self, data, directives):
        self.call(data.draw(st.sampled_from(self.runs)).key, directives)
        self.loop.settle()

    @rule(key=KEYS, directives=DIRECTIVES)
    def ask_both_ways(self, key, directives):
        """`fresh` and `get` serve the same result, and `get` finds no other result fresh."""
        outcome = self.results.fresh(key, directives)
        task = self.call(key, directives)
        self.loop.settle()
        if outcome is not None:
            assert task.done()
            assert task.result() == outcome
        elif task.done() and task.exception() is None:
            assert task.result().forward or task.result().stale_s

    @precondition(lambda self: any(not reader.task.done() for reader in self.readers))
    @rule(data=st.data())
    def leave(self, data):
        waiting = [reader for reader in self.readers if not reader.task.done()]
        data.draw(st.sampled_from(waiting)).task.cancel()
        self.loop.settle()

    @rule(owner=KEYS)
    def drop(self, owner):
        self.results.table.drop(owner)

    @rule(seconds=st.sampled_from([0.001, 0.01, PATIENCE_S, 0.5, 1.0, 2.0, 4.0]))
    def let_time_pass(self, seconds):
        self.loop.now += seconds
        self.loop.settle()

    # Invariants

    @invariant()
    def results_are_as_fresh_as_they_claim(self):
        for reader in getattr(self, "readers", []):
            if reader.task.done() and not reader.checked:
                reader.checked = True
                if not reader.task.cancelled():
                    self.check(reader)
        self.readers = [reader for reader in getattr(self, "readers", []) if not reader.checked]

    def check(self, reader):
        assert self.loop.now - reader.arrived <= WAIT_S + 4.0  # time moves in steps of up to four seconds
        error = reader.task.exception()
        if error is not None:
            assert isinstance(error, Problem), error
            assert error.status in {503, 504}
            if reader.forced and not isinstance(error, Busy):
                held = self.results.fresh(reader.key)
                assert held is None or int(held.entry.timings) >= reader.number, "fresh after a failed run"
            run = error.members.get("run")
            if run is not None and not reader.forced and not isinstance(error, DatabaseUnavailable):
                assert all(run.known[table] >= version for table, version in reader.must_show.items()), (
                    f"{error!r} was made knowing {run.known} only, where {reader.must_show} was announced"
                )
            return
        outcome = reader.task.result()
        shown = dict(eval(outcome.entry.body))  # noqa: S307 (a repr of our own)
        run = self.begun[int(outcome.entry.timings)]
        if outcome.forward and not outcome.collapsed:
            assert not run.taken, "two callers got one run as their own"
            run.taken = True
        if reader.forced and outcome.forward:
            assert run.began - reader.arrived > 0 if outcome.collapsed else run.began >= reader.arrived
        if outcome.stale_s == 0:
            assert all(shown[table] >= version for table, version in reader.must_show.items()), (
                f"marked fresh, but shows {shown} where {reader.must_show} was announced"
            )
            return
        assert not reader.forced or self.failed or self.in_doubt(), "no-cache got a cached result"
        if not self.failed and not self.in_doubt():
            for table, version in shown.items():
                if version < self.announced[table]:
                    known_for = self.loop.now - self.heard_at[table][version + 1]
                    assert known_for <= STALE_FOR_S + 4.0

    @invariant()
    def stays_small(self):
        if hasattr(self, "results"):
            assert self.results.table.weight <= ROOM

    def teardown(self):
        if not hasattr(self, "loop"):
            return
        for reader in self.readers:
            reader.task.cancel()
        self.loop.settle()
        self.loop.run_until_complete(self.results.close())
        self.loop.settle()
        assert self.runs == []
        assert asyncio.all_tasks(self.loop) == set()
        self.loop.close()


TestResults = ResultsMachine.TestCase
TestResults.settings = settings(max_examples=100, stateful_step_count=50)


async def test_a_result_too_large_to_store_leaves_nothing_behind():
    """Neither the older entry, nor a flight that the next caller could join or wait for."""
    ticks = count(1000)
    generations = Generations()
    generations.heard(next(ticks))
    results = Results(
        generations, ResultTable(ROOM), lambda: float(next(ticks)), wait_s=WAIT_S, stale_if_error_s=0
    )
    bodies = iter([b"small", b"large".ljust(ROOM), b"small again"])

    async def run():
        return Computed(next(bodies), "", 1)

    request = Lookup("key", "owner", ("data.a",), 10_000, compute=run)
    assert (await results.get(request, ANY)).forward == "miss"
    generations.moved("data.a", next(ticks))
    refreshed = await results.get(request, ANY)
    assert (refreshed.forward, refreshed.entry.weight > ROOM) == ("stale", True)
    assert (results.fresh("key"), results.table.weight, len(results._flights)) == (None, 0, 0)
    again = await results.get(request, ANY)
    assert (again.forward, again.collapsed) == ("miss", False)
    assert results.fresh("key").entry is again.entry
    await results.close()


PARTS = st.lists(st.sampled_from(["shared", "own", "failed"]), min_size=1, max_size=6)


@given(visits=st.lists(st.tuples(st.sampled_from(["ann", "bob"]), PARTS), min_size=1, max_size=8))
@settings(max_examples=300)
def test_a_composed_result_reaches_only_callers_who_may_get_each_part(visits):
    """For any order of requests, with parts that fail, and parts that are shared only sometimes."""
    generations = Generations()
    generations.heard(0.0)
    results = Results(generations, ResultTable(ROOM), lambda: 1.0, wait_s=WAIT_S, stale_if_error_s=0)
    for caller, parts in visits:
        composition = Composition(("dashboard", "main"), "main", caller)
        held = results.composed(composition)
        if held is not None:
            assert set(sources(held)) <= {"shared", caller}
            continue
        answers = [tile(generations, part, caller) for part in parts if part != "failed"]
        body = ",".join(sources(each)[0] for each in answers).encode()
        made = results.compose(composition, body, answers, whole="failed" not in parts)
        assert made.entry.shared is ("own" not in parts)
        assert (results.composed(composition) is None) is ("failed" in parts)


def tile(generations, part, caller):
    policy = FreshnessPolicy(
        basis=generations.of([]),
        made_at=1.0,
        fresh_until=inf,
        stale_for_s=1.0,
        stale_if_error_s=1.0,
        max_age=0,
    )
    whose = "shared" if part == "shared" else caller
    return CacheOutcome(
        Entry(
            key=whose,
            owner="tile",
            policy=policy,
            media_type="",
            representations=plain(whose.encode()),
            shared=part == "shared",
        )
    )


def sources(outcome):
    return outcome.entry.body.decode().split(",")


async def test_a_failed_run_also_ends_the_freshness_of_composed_results_and_is_no_change_of_a_table():
    events: list[Event] = []
    generations = Generations(events.append)
    generations.heard(0.0)
    ticks = count(1000)
    results = Results(
        generations, ResultTable(ROOM), lambda: float(next(ticks)), wait_s=WAIT_S, stale_if_error_s=0
    )
    outcomes = iter([Computed(b"1", "", 1), QueryFailed("no such column")])

    async def run():
        outcome = next(outcomes)
        if isinstance(outcome, Problem):
            raise outcome
        return outcome

    request = Lookup("key", "owner", ("data.a",), 10_000, compute=run)
    composition = Composition(("dashboard",), "main", "ann")
    results.compose(composition, b"[1]", [await results.get(request, ANY)], whole=True)
    assert results.fresh("key")
    assert results.composed(composition)
    subscription = results.subscribe()
    subscription.take()
    with pytest.raises(QueryFailed):
        await results.get(request, Directives(no_cache=True))
    assert results.fresh("key") is None
    assert results.composed(composition) is None
    assert (subscription.take(), events) == (None, [])
    await results.close()


async def test_a_subscriber_hears_of_a_new_definition_when_the_old_results_are_gone():
    generations = Generations()
    generations.heard(0.0)
    results = Results(generations, ResultTable(ROOM), lambda: 1.0, wait_s=WAIT_S, stale_if_error_s=0)

    async def run():
        return Computed(b"1", "", 1)

    await results.get(Lookup("key", "metric", (), 10_000, compute=run), ANY)
    with results.subscribe(["data.a"], ["metric"]) as subscription:
        results.redefined(7, ["metric", "other"])
        assert await anext(subscription) == Change(redefined=frozenset(["metric"]))
        assert (results.table.get("key"), results.definitions) == (None, 7)
        results.announced("data.a 9")
        assert await anext(subscription) == Change(frozenset(["data.a"]))
    await results.close()
