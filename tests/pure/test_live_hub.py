"""The hub against the model of results: whatever happens, each watcher ends with the newest state."""

import asyncio
from types import SimpleNamespace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from service.errors import QueryFailed
from service.live.connection import Connection
from service.live.hub import LATE_S, Hub, Watch
from service.live.places import Limits
from service.results.freshness import NAMES
from service.results.requests import REFRESH_EVERY_S
from tests.pure.lookup import Lookup
from tests.pure.test_results_model import (
    KEYS,
    READS,
    STALE_FOR_S,
    ResultsMachine,
    dependencies_of,
)

LONGEST_PAUSE_S = 31.0
TOLD_WITHIN_S = REFRESH_EVERY_S + LATE_S + 4.0  # time moves in steps of up to four seconds
LIMITS = Limits(connections=100, connections_per_caller=100, body_bytes=1 << 20)


class Screen(Connection):
    """A client that shows what it is told."""

    def __init__(self, key):
        super().__init__(None)
        self.key = key
        self.watch = Watch(self, key, [])
        self.shown = None
        self.stale = False
        self.tags = []

    def tell(self, watch):
        topic = watch.topic
        if topic is not None and topic.tag:
            self.stale = topic.stale_since is not None
            if watch.lacks(topic.tag):
                watch.held = topic.tag
                self.tags.append(topic.tag)
                self.shown = dict(eval(topic.body))  # noqa: S307 (a repr of our own)

    def fail(self, watch, problem):
        raise AssertionError(problem)

    def go_away(self):
        self.ended = True


class Watched(ResultsMachine):
    """The machine of results, extended by watchers. Each key has one from the start."""

    @initialize(names=st.sampled_from([2, NAMES]), watched=st.booleans())
    def begin(self, names, watched):
        ResultsMachine.begin(self, names=names)
        self.screens = []
        self.hub = Hub(self.results, self.request_of, LIMITS)
        for key in READS if watched else ():
            self.watch(key=key)
            self.finish_all()

    async def request_of(self, watch):
        self.planned = getattr(self, "planned", 0) + 1
        key = watch.metric_id
        return Lookup(key, key, READS[key], STALE_FOR_S, compute=self.query(key))

    @rule(key=KEYS)
    def watch(self, key):
        screen = Screen(key)
        self.hub.enter(screen)
        self.loop.call_soon(self.hub.follow, screen.watch)
        self.screens.append(screen)
        self.loop.settle()

    @precondition(lambda self: getattr(self, "screens", []))
    @rule(data=st.data())
    def stop_watching(self, data):
        screen = self.screens.pop(data.draw(st.integers(0, len(self.screens) - 1)))
        self.hub.leave(screen, [screen.watch])
        self.loop.settle()

    @precondition(lambda self: self.listening)
    @rule(table=st.sampled_from(["data.a", "data.b"]))
    def change(self, table):
        """A commit whose announcement comes at once, whatever runs."""
        self.commit(table=table, times=1)
        while self.in_transit:
            self.deliver(twice=False)

    @precondition(lambda self: self.runs)
    @rule()
    def finish_what_runs(self):
        """Each run shows what was committed when it ends; what is begun for it goes on."""
        for run in list(self.runs):
            self.finish_run(run)
        self.loop.settle()

    @precondition(lambda self: getattr(self, "screens", []))
    @rule(key=KEYS)
    def redefine_a_metric(self, key):
        self.results.redefined(0, [key])
        self.loop.settle()

    @invariant()
    def nothing_is_sent_twice(self):
        for screen in getattr(self, "screens", []):
            assert all(one != other for one, other in zip(screen.tags, screen.tags[1:], strict=False))

    @invariant()
    def a_watcher_is_told_soon_that_it_shows_an_old_state(self):
        for screen in getattr(self, "screens", []):
            if screen.shown is None or screen.stale or screen.watch.topic is None:
                continue
            for table, version in screen.shown.items():
                if version < self.announced[table]:
                    known_for = self.loop.now - self.heard_at[table][version + 1]
                    assert known_for <= TOLD_WITHIN_S, (
                        f"{table} was at {self.announced[table]} for {known_for} s"
                    )

    @invariant()
    def watchers_of_a_key_share_a_topic(self):
        if hasattr(self, "hub"):
            assert len(self.hub) <= len({screen.key for screen in self.screens})

    @rule()
    def come_to_rest(self):
        """When nothing changes any more, all is shown, and nothing runs but what time alone asks for."""
        if not getattr(self, "screens", []):
            return
        while self.in_transit:
            self.deliver(twice=False)
        if not self.listening:
            self.connect()
        self.poll()
        self.loop.settle()
        self.finish_all()
        self.results_are_as_fresh_as_they_claim()
        for _ in range(12):
            self.finish_all()
            self.loop.now += LONGEST_PAUSE_S / 2
            self.loop.settle()
        self.finish_all()
        for screen in self.screens:
            assert screen.shown == {table: self.committed[table] for table in dependencies_of(screen.key)}
            assert not screen.stale
        begun = self.changed_runs()
        self.loop.now += LONGEST_PAUSE_S
        self.loop.settle()
        self.finish_all()
        assert self.changed_runs() == begun

    def changed_runs(self):
        """The runs but those that time asks for."""
        return len([run for run in self.begun if run.key != "timed"])

    def finish_all(self):
        for _ in range(20):
            if not self.runs:
                break
            for run in list(self.runs):
                self.finish_run(run)
            self.loop.settle()

    def finish_run(self, run):
        run.read = {table: self.committed[table] for table in dependencies_of(run.key)}
        if not run.gate.done():
            run.gate.set_result(None)

    def teardown(self):
        if hasattr(self, "hub"):
            self.come_to_rest()
            self.loop.run_until_complete(self.hub.close())
            self.loop.settle()
        super().teardown()


TestWatched = Watched.TestCase
TestWatched.settings = settings(max_examples=40, stateful_step_count=30)


class Slow(Connection):
    """A connection whose send never ends until it may."""

    def __init__(self):
        super().__init__(None)
        self.gate = asyncio.Event()
        self.state, self.sent = 0, []
        self._told = 0

    async def send(self, message):
        self.sent.append(message["n"])
        await self.gate.wait()

    def _next_message(self):
        if self.state == self._told:
            return None
        self._told = self.state
        return {"n": self.state}


async def test_a_send_that_waits_is_followed_by_the_newest_state_alone():
    slow = Slow()
    slow._send = slow.send
    for state in range(1, 100):
        slow.state = state
        slow.flush()
    assert slow.sent == [1]
    slow.gate.set()
    await slow._writing
    assert slow.sent == [1, 99]


async def test_a_client_that_left_ends_its_connection():
    async def broken(message):
        raise RuntimeError("closed")

    async def broken_later(message):
        await asyncio.sleep(0)
        raise RuntimeError("closed")

    for send in (broken, broken_later):
        connection = Slow()
        connection._send, connection.state = send, 1
        connection.flush()
        if connection._writing is not None:
            await connection._writing
        assert connection.ended


def test_the_wait_after_failures_grows_to_a_limit():
    from service.errors import DatabaseUnavailable
    from service.live.hub import Topic

    topic = Topic(SimpleNamespace(refresh_every_s=0.25), None)
    waits = []
    for _ in range(12):
        topic.failed(DatabaseUnavailable())
        waits.append(topic.due_in(0.0, silent=False))
    assert waits[:4] == [0.5, 1.0, 2.0, 4.0]
    assert waits[-1] == 30.0
    topic.failed(QueryFailed())
    assert topic.due_in(0.0, silent=False) is None
