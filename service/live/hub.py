"""Follow results for those who watch them: one refresher per cache key, however many watch.

A refresher runs nothing while nothing changes. A change wakes it, and it gets the result the way a poller
does, so watchers and pollers share each run. Changes during a run are merged into one run that follows.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterable
from contextlib import suppress
from contextvars import Context
from datetime import UTC, datetime, timedelta
from math import inf
from typing import Any, Final
from uuid import UUID

from service.errors import LiveUnavailable, NotFound, Problem
from service.http.current_caller import current_caller
from service.http.fields import ANY
from service.http.representation import bare_tag
from service.live.connection import Connection
from service.live.places import WAIT, Limits, Places, UnreadBytes
from service.metrics.notices import Given
from service.results.cache import SERVER_FAULTS, Results
from service.results.feed import Change, Subscription
from service.results.requests import CacheRequest
from service.results.table import CacheOutcome

RequestOf = Callable[["Watch"], Awaitable[CacheRequest]]
"""Builds the cache request of a watch: its metric, its parameters and the claims of its caller."""

SIDE_BY_SIDE: Final = 4
"""Runs, and plans, at the same time. Other callers use the rest of the reader pool."""
LATE_S: Final = 1.0
"""After a change, a result that takes longer than this is told to be stale."""
SILENT_RETRY_S: Final = 5.0
RETRY_S: Final = (0.5, 30.0)
TIMED_S: Final = 1.0
"""The least pause between two runs that time alone asks for."""


class Watch:
    """One metric with its parameters on one connection, and what its client was told last."""

    __slots__ = (
        "connection", "given", "held", "left", "metric_id", "problem", "told_alerts", "told_stale", "topic",
    )  # fmt: skip

    def __init__(self, connection: Connection, metric_id: UUID, given: Given, held: str = "") -> None:
        self.connection = connection
        self.metric_id = metric_id
        self.given = given
        self.held = held
        self.told_stale = False
        self.told_alerts = 0
        self.left = False
        self.problem: Problem | None = None
        self.topic: Topic | None = None

    def news(self) -> tuple[str, dict[str, Any]] | None:
        """The next thing that the client has not been told: its kind and members. None if there is none."""
        topic = self.topic
        if topic is None:
            return None
        if topic.tag and self.lacks(topic.tag):
            self.held = topic.tag
            return "result", {}
        if (topic.stale_since is not None) is not self.told_stale:
            self.told_stale = not self.told_stale
            return ("stale", {"since": topic.stale_since}) if self.told_stale else ("fresh", {})
        if topic.alerts != self.told_alerts and self.connection.hears_alerts():
            self.told_alerts = topic.alerts
            return "alert", {"open": topic.alerts}
        before, self.problem = self.problem, topic.shown_problem
        if self.problem is None or self.problem is before:
            return None
        return "problem", described(self.problem)

    def lacks(self, tag: str) -> bool:
        """Whether the client holds another result than the one of this tag, or of its beginning."""
        return self.held not in {tag, tag[:SHORT_TAG]}


def described(problem: Problem) -> dict[str, str]:
    """A problem's code, and its detail with the fields that it names."""
    fields = [f"{each.field}: {each.message}" for each in problem.errors]
    return {"code": problem.code, "message": " ".join([problem.detail, *fields])}


SHORT_TAG: Final = 16
"""Characters of a tag that tell one result of a metric from another."""


class Topic:
    """The newest state of one result.

    `tag` is its ETag without quotes. `stale_since` is set while the result may be outdated. `framed` holds
    the bytes that all its event streams share. `alerts` is how many alerts of the metric are open.
    """

    __slots__ = (
        "alerts", "body", "changes", "failures", "framed", "fresh_until", "problem", "ready", "request",
        "stale_since", "tag", "task", "watches",
    )  # fmt: skip

    def __init__(self, request: CacheRequest, changes: Subscription) -> None:
        self.request = request
        self.changes = changes
        self.watches: dict[Watch, None] = {}
        self.alerts = 0
        self.ready = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self.tag = ""
        self.body = b""
        self.framed: bytes | None = None
        self.stale_since: datetime | None = None
        self.problem: Problem | None = None
        self.failures = 0
        self.fresh_until = inf

    @property
    def shown_problem(self) -> Problem | None:
        """The problem that clients are told of. That a held result goes stale says enough of a fault."""
        fault = self.problem is not None and self.problem.status >= SERVER_FAULTS
        return None if fault and self.tag else self.problem

    def answered(self, outcome: CacheOutcome, silent_s: float | None) -> None:
        """Take a result. `silent_s` is for how long changes may have gone unnoticed, None if they cannot."""
        body = outcome.entry.body
        tag = bare_tag(outcome.entry.etag)
        if tag != self.tag:
            self.tag, self.body, self.framed = tag, body, None
        self.problem = None
        self.fresh_until = outcome.entry.policy.fresh_until
        self.failures = self.failures + 1 if outcome.stale_s else 0
        stale_s = max(outcome.stale_s, 0 if silent_s is None else max(silent_s, 1))
        if stale_s:
            self.outdated(stale_s)
        else:
            self.stale_since = None

    def failed(self, problem: Problem) -> None:
        self.failures += 1
        self.problem = problem
        self.outdated(0)

    def drop(self) -> None:
        """Hold no result."""
        self.tag, self.body, self.framed, self.stale_since = "", b"", None, None

    def outdated(self, for_s: float) -> None:
        if self.stale_since is None and self.tag:
            self.stale_since = datetime.now(UTC) - timedelta(seconds=min(for_s, 1e9))

    def due_in(self, now: float, *, silent: bool) -> float | None:
        """Seconds until it is refreshed although nothing changed. None: only a change refreshes it."""
        if silent:
            return SILENT_RETRY_S
        if self.problem is not None and self.problem.status < SERVER_FAULTS:
            return None  # the same run would fail the same way
        if self.failures:
            shortest, longest = RETRY_S
            return min(shortest * 2.0 ** min(self.failures - 1, 10), longest)
        if self.fresh_until < inf:
            return max(self.fresh_until - now, self.request.refresh_every_s, TIMED_S)
        return None


class Hub:
    """All open connections and the topics that they watch, with limits per process and caller."""

    def __init__(self, results: Results, request_of: RequestOf, limits: Limits) -> None:
        self._results = results
        self._request_of = request_of
        self._limits = limits
        self._places = Places(limits)
        self.unread = UnreadBytes()
        self._body_bytes = 0
        self._topics: dict[Hashable, Topic] = {}
        self._alerts: dict[UUID, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._side_by_side = asyncio.Semaphore(SIDE_BY_SIDE)
        self._planning = asyncio.Semaphore(SIDE_BY_SIDE)
        self._followers: dict[Hashable, dict[Connection, Callable[[], None]]] = {}
        self.connections = self._places.connections
        self.draining = False

    def __len__(self) -> int:
        return len(self._topics)

    # Connections

    def enter(self, connection: Connection, watches: int = 0) -> None:
        """Count a connection with its watches. It is told when the service stops.

        Raises `LiveUnavailable` or `TooManyStreams`.
        """
        if self.draining:
            raise LiveUnavailable(headers=WAIT)
        self._places.enter(connection, watches)

    def count(self, connection: Connection, watches: int) -> None:
        """Count further watches of a connection, or fewer. Raises `TooManyStreams`."""
        self._places.add(connection, watches)

    def leave(self, connection: Connection, watches: Iterable[Watch]) -> None:
        for watch in watches:
            self.detach(watch)
        for followers in self._followers.values():
            followers.pop(connection, None)
        self._places.leave(connection)

    def drain(self) -> list[tuple[str, int]]:
        """Tell all clients to come back to another process, and take no new ones.

        Returns the clients of connections that have not ended, because they do not read.
        """
        if not self.draining:
            self.draining = True
            for connection in tuple(self.connections):
                connection.go_away()
        return [each.client for each in self.connections if each.client is not None]

    async def close(self) -> None:
        self.drain()
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # Watches

    async def attach(self, watch: Watch) -> None:
        """Follow the result for a watch, and wait until its first state is known.

        Raises the problems of the metric and its parameters. A problem of the run is `watch.topic.problem`.
        """
        watch.topic = None
        async with self._planning:
            request = await self._request_of(watch)
        if watch.left:
            return
        topic = self._topics.get(request.key)
        if topic is None:
            if len(self._topics) >= self._limits.topics:
                raise LiveUnavailable("So many results are watched that none is added.", headers=WAIT)
            # Subscribe before the first look, so that no change between is missed.
            topic = Topic(request, self._results.subscribe(request.tables, [request.owner]))
            topic.alerts = self._alerts.get(watch.metric_id, 0)
            self._topics[request.key] = topic
            topic.task = self._start(self._follow(topic))
        topic.watches[watch] = None
        watch.topic = topic
        await topic.ready.wait()

    def follow(self, watch: Watch) -> None:
        """Follow the result for a watch. Its connection is told whatever comes of it."""
        self._start(self._attach_again((watch,), watch.metric_id))

    def follow_owner(self, connection: Connection, owner: Hashable, changed: Callable[[], None]) -> None:
        """Call `changed` after each change of a definition, until the connection leaves."""
        followers = self._followers.get(owner)
        if followers is None:
            followers = self._followers[owner] = {}
            self._start(self._keep_owner(owner, followers, self._results.subscribe((), [owner])))
        followers[connection] = changed

    async def _keep_owner(
        self, owner: Hashable, followers: dict[Connection, Callable[[], None]], changes: Subscription
    ) -> None:
        with changes:
            async for _ in changes:
                for connection in [each for each in followers if each not in self.connections]:
                    del followers[connection]
                if not followers:
                    break
                for changed in tuple(followers.values()):
                    changed()
        del self._followers[owner]

    def set_open_alerts(self, alerts: dict[UUID, int]) -> None:
        """Tell those who watch a metric how many of its alerts are open."""
        self._alerts = alerts
        for topic in tuple(self._topics.values()):
            number = alerts.get(topic.request.owner, 0) if isinstance(topic.request.owner, UUID) else 0
            if topic.alerts != number:
                topic.alerts = number
                self._tell(topic)

    def detach(self, watch: Watch) -> None:
        """Stop following. The last watch ends the topic."""
        watch.left = True
        topic, watch.topic = watch.topic, None
        if topic is None:
            return
        topic.watches.pop(watch, None)
        if not topic.watches and self._topics.get(topic.request.key) is topic:
            self._forget(topic)
            if topic.task is not None:
                topic.task.cancel()

    def _forget(self, topic: Topic) -> None:
        del self._topics[topic.request.key]
        self._body_bytes -= len(topic.body)
        topic.changes.close()
        topic.ready.set()

    def _start(self, work: Any) -> "asyncio.Task[None]":
        """Start work of the service itself, in a context of its own: it outlives whose request began it."""
        context = Context()
        context.run(current_caller.set, None)
        task = asyncio.get_running_loop().create_task(work, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # Refreshing

    async def _follow(self, topic: Topic) -> None:
        """Keep a topic as new as its tables, until its last watch leaves or its metric is redefined."""
        clock = self._results.clock
        refresh = self._first
        while True:
            began = clock()
            await refresh(topic)
            topic.ready.set()
            self._tell(topic)
            silent = self._results.generations.silent_since is not None
            change = await _next(topic.changes, topic.due_in(clock(), silent=silent))
            if change is not None:
                if change.redefined or change.renewed:
                    break
                if change.silent_since is not None:
                    topic.outdated(clock() - change.silent_since)
                    self._tell(topic)
            await asyncio.sleep(began + topic.request.refresh_every_s - clock())
            refresh = self._refresh
        watches = tuple(topic.watches)
        self._forget(topic)
        await self._attach_again(watches, topic.request.owner)

    async def _first(self, topic: Topic) -> None:
        """Give what a GET would give, which may be a stale result while a run goes on.

        Many first runs at once take turns, or they would fill the queue of the reader pool.
        """
        try:
            outcome = self._results.hit(topic.request.key)
            if outcome is None:
                async with self._side_by_side:
                    outcome = await self._results.get(topic.request, ANY)
        except Problem as problem:
            topic.failed(problem)
        else:
            self._answered(topic, outcome)

    async def _refresh(self, topic: Topic) -> None:
        late = asyncio.get_running_loop().call_later(LATE_S, self._note_late, topic)
        try:
            async with self._side_by_side:
                outcome = await self._results.refreshed(topic.request)
        except Problem as problem:
            topic.failed(problem)
        else:
            self._answered(topic, outcome)
        finally:
            late.cancel()

    def _answered(self, topic: Topic, outcome: CacheOutcome) -> None:
        """Let a topic take a result, if all bodies that are held have room for it."""
        size = len(topic.body)
        if self._body_bytes - size + len(outcome.entry.body) > self._limits.body_bytes:
            topic.drop()
            topic.failed(LiveUnavailable("All watched results together take too much memory.", headers=WAIT))
        else:
            topic.answered(outcome, self._silent_s())
        if topic.request.key in self._topics:
            self._body_bytes += len(topic.body) - size

    def _note_late(self, topic: Topic) -> None:
        topic.outdated(LATE_S)
        self._tell(topic)

    def _silent_s(self) -> float | None:
        since = self._results.generations.silent_since
        return None if since is None else self._results.clock() - since

    @staticmethod
    def _tell(topic: Topic) -> None:
        for watch in tuple(topic.watches):
            watch.connection.tell(watch)

    async def _attach_again(self, watches: tuple[Watch, ...], owner: Hashable) -> None:
        """Follow the new definition. What it does not take is told, and tried again at its next change."""
        with self._results.subscribe((), [owner]) as changes:
            changes.take()
            waiting = watches
            pause, longest = RETRY_S
            while waiting := tuple([each for each in waiting if not await self._attached(each)]):
                retryable = any(each.problem and each.problem.status >= SERVER_FAULTS for each in waiting)
                await _next(changes, pause if retryable else None)
                pause = min(pause * 2, longest)

    async def _attached(self, watch: Watch) -> bool:
        """Whether nothing is left to do for a watch."""
        if watch.left:
            return True
        try:
            await self.attach(watch)
        except NotFound:
            watch.topic = None
            self._places.add(watch.connection, -1)
            watch.connection.gone(watch)
        except Problem as problem:
            watch.connection.fail(watch, problem)
            return False
        else:
            watch.connection.tell(watch)
        return True


async def _next(changes: Subscription, within_s: float | None) -> Change | None:
    """The next change; None after the time."""
    with suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            return await anext(changes)
    return None
