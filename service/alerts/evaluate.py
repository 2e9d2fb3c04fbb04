"""Evaluate rules whenever the result that they evaluate is refreshed: an alert runs no query of its own.

One topic follows one result, however many rules evaluate it. It is told of changes as watchers are, and gets
the result by the single flight that pollers share. A topic takes at most a twentieth of a connection.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from datetime import datetime, tzinfo
from math import inf
from typing import Any, Final
from uuid import UUID

import msgspec
import structlog

from service.alerts import store
from service.alerts.assessing import (
    AT_ONCE,
    Document,
    NotEvaluable,
    Reviewed,
    failing,
    later,
    read_document,
    review,
)
from service.alerts.messages import messages
from service.alerts.models import Alert, Rule
from service.alerts.series import NotSeries
from service.alerts.states import Seen, Transition, transitions
from service.alerts.store import ALERTS_TABLE, RULES_TABLE, SQL, RuleRow
from service.database.gateway import Database, Transaction
from service.errors import DatabaseUnavailable, InvalidInput, Problem
from service.http import bodies
from service.observe.events import AlertChanged, Observe, ignore
from service.results.cache import SERVER_FAULTS, CacheRequest, Results
from service.results.feed import Subscription
from service.results.freshness import State, evaluate_freshness
from service.results.table import CacheOutcome

RequestOf = Callable[[UUID, dict[str, Any]], Awaitable[CacheRequest]]
"""Builds the cache request of a metric with parameters, for nobody in particular."""

SIDE_BY_SIDE: Final = 4
LEAST_PAUSE_S: Final = 1.0
SHARE: Final = 20
"""The pause after a run of our own is this many times its duration."""
LOOK_S: Final = 0.5
RETRY_S: Final = 2.0
FAILING: Final = 2
"""Data are old when there was no fresh result for so many intervals."""
_log: Final = structlog.get_logger("alerts")
_INSERT_DELIVERY: Final = SQL.command("insert_delivery")


class Topic:
    """One result, and the rules that evaluate it."""

    def __init__(self, metric_id: UUID, parameters: dict[str, Any], rules: dict[UUID, RuleRow]) -> None:
        self.metric_id = metric_id
        self.parameters = parameters
        self.rules = rules
        self.task: asyncio.Task[None] | None = None
        self.failing_since: float | None = None
        self.tag = ""
        self.document: Document | None = None
        self.due: datetime | None = None

    @property
    def versions(self) -> dict[UUID, datetime]:
        return {rule_id: row.updated_at for rule_id, row in self.rules.items()}


class Evaluator:
    """Evaluates all rules while this node has the turn. `now` is the wall clock, `page` where people look."""

    def __init__(
        self,
        database: Database,
        results: Results,
        request_of: RequestOf,
        *,
        zone: tzinfo,
        interval_s: float,
        now: Callable[[], datetime],
        page: str,
        observe: Observe = ignore,
    ) -> None:
        self._observe = observe
        self._database = database
        self._results = results
        self._request_of = request_of
        self._zone = zone
        self._interval_s = interval_s
        self._now = now
        self._page = page
        self._topics: dict[tuple[UUID, bytes], Topic] = {}
        self._alerts: dict[UUID, list[Alert]] = {}
        self._side_by_side = asyncio.Semaphore(SIDE_BY_SIDE)

    async def run(self) -> None:
        """Evaluate until cancelled."""
        self._topics.clear()
        self._alerts.clear()
        try:
            with self._results.subscribe((RULES_TABLE, ALERTS_TABLE)) as changes:
                await self._read_rules()
                async for change in changes:
                    if change.renewed or ALERTS_TABLE in change.tables:
                        self._alerts.clear()
                    if change.renewed or RULES_TABLE in change.tables:
                        await self._read_rules()
        finally:
            tasks = [topic.task for topic in self._topics.values() if topic.task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    # Rules

    async def _read_rules(self) -> None:
        while True:
            try:
                rows = await store.list_rules(self._database)
            except DatabaseUnavailable:
                await asyncio.sleep(RETRY_S)
            else:
                return self._arrange(rows)

    def _arrange(self, rows: Iterable[RuleRow]) -> None:
        """Follow the results of these rules. A topic whose rules are as they were goes on."""
        wanted: dict[tuple[UUID, bytes], Topic] = {}
        for row in rows:
            parameters: dict[str, Any] = row.definition.get("parameters", {})
            key = (row.metric_id, bodies.encode_key(parameters))
            topic = wanted.setdefault(key, Topic(row.metric_id, parameters, {}))
            topic.rules[row.id] = row
        for key, topic in [*self._topics.items()]:
            if key in wanted and wanted[key].versions == topic.versions:
                topic.rules = wanted.pop(key).rules
                continue
            if topic.task is not None:
                topic.task.cancel()
            del self._topics[key]
        for key, topic in wanted.items():
            self._topics[key] = topic
            topic.task = asyncio.get_running_loop().create_task(self._follow(topic))

    # Results

    async def _follow(self, topic: Topic) -> None:
        """Follow a metric through its definitions."""
        while True:
            with self._results.subscribe((), [topic.metric_id]) as definition:
                try:
                    request = await self._request_of(topic.metric_id, topic.parameters)
                except Problem as problem:
                    await self._safely(topic, problem)
                    await _change(definition, self._retry_s(problem))
                    continue
            await self._follow_result(topic, request)

    async def _follow_result(self, topic: Topic, request: CacheRequest) -> None:
        """Evaluate the rules after each refresh, until the metric is redefined."""
        clock = self._results.clock
        with self._results.subscribe(request.tables, [request.owner]) as changes:
            while True:
                began = clock()
                found = await self._refreshed(request)
                lost = await self._safely(topic, found)
                spent = clock() - began
                change = await _change(changes, RETRY_S if lost else self._due_s(topic, found))
                if change is not None and (change.redefined or change.renewed):
                    return
                pause = min(max(LEAST_PAUSE_S, request.refresh_every_s, SHARE * spent), self._interval_s)
                await self._pause(request, began + spent + pause)

    async def _pause(self, request: CacheRequest, until: float) -> None:
        """Wait for the next run of our own, or until somebody else has refreshed the result."""
        left = until - self._results.clock()
        while left > 0 and not self._is_fresh(request):
            await asyncio.sleep(min(left, LOOK_S))  # a refresh by others is told to nobody
            left = until - self._results.clock()

    def _is_fresh(self, request: CacheRequest) -> bool:
        entry = self._results.table.peek(request.key)
        if entry is None:
            return False
        now, generations = self._results.clock(), self._results.generations
        return evaluate_freshness(entry.policy, now, generations, None).state is State.FRESH

    async def _refreshed(self, request: CacheRequest) -> CacheOutcome | Problem:
        try:
            async with self._side_by_side:
                return await self._results.refreshed(request)
        except Problem as problem:
            return problem

    def _due_s(self, topic: Topic, found: CacheOutcome | Problem) -> float | None:
        """Seconds until the next evaluation although nothing changed; None: only a change asks for one."""
        waits: list[float] = []
        if isinstance(found, Problem):
            waits.append(self._retry_s(found))
        else:
            fresh_until = found.entry.policy.fresh_until
            if fresh_until < inf:
                waits.append(max(fresh_until - self._results.clock(), self._interval_s))
            if found.stale_s or self._results.generations.silent_since is not None:
                waits.append(min(self._interval_s, RETRY_S))
        if topic.due is not None:
            waits.append(max((topic.due - self._now()).total_seconds(), 0.0))
        return min(waits, default=None)

    def _retry_s(self, problem: Problem) -> float:
        return self._interval_s if problem.status < SERVER_FAULTS else min(self._interval_s, RETRY_S)

    # Evaluation

    async def _safely(self, topic: Topic, found: CacheOutcome | Problem) -> bool:
        """Evaluate all rules of a topic. Returns whether to try again soon."""
        try:
            if isinstance(found, Problem) or found.stale_s:
                await self._without_result(topic, found)
            else:
                await self._with_result(topic, found)
        except DatabaseUnavailable:
            return True
        except Exception as error:  # noqa: BLE001 (logged with its traceback)
            # One rule that fails in a way nobody has thought of must not end the others.
            _log.exception("a rule could not be evaluated", metric=str(topic.metric_id), error=repr(error))
            return False
        return False

    async def _without_result(self, topic: Topic, found: CacheOutcome | Problem) -> None:
        clock = self._results.clock()
        topic.failing_since = topic.failing_since or clock
        topic.due = None
        problem = found.detail if isinstance(found, Problem) else None
        is_old = clock - topic.failing_since >= FAILING * self._interval_s
        for row in topic.rules.values():
            if problem is not None and row.problem != problem and not isinstance(found, DatabaseUnavailable):
                await self._note(topic, msgspec.structs.replace(row, problem=problem))
            if is_old:
                label = self._now().isoformat()
                await self._apply(topic, row, failing(row, self._zone, label))

    async def _with_result(self, topic: Topic, found: CacheOutcome) -> None:
        topic.failing_since = None
        body, tag = found.entry.body, found.entry.etag
        if topic.tag != tag or topic.document is None:
            topic.document = await asyncio.to_thread(read_document, body)
            topic.tag = tag
        due: list[datetime] = []
        for row in [*topic.rules.values()]:
            reviewed = await self._reviewed(topic, row, topic.document)
            if reviewed is None:
                continue
            alerts = await self._apply(topic, reviewed.row, reviewed.seen)
            rule = row.rule()
            due += [] if reviewed.due is None else [reviewed.due]
            due += [_fires_at(rule, each) for each in alerts if each.state == "pending"]
        now = self._now()
        topic.due = min((each for each in due if each > now), default=None)  # what was due is done

    async def _reviewed(self, topic: Topic, row: RuleRow, document: Document) -> Reviewed | None:
        """Evaluate a result. None if it cannot be evaluated, which is noted at the rule."""
        try:
            arguments = (row, row.rule(), document, self._now(), self._zone)
            if len(document.records) > AT_ONCE:
                return await asyncio.to_thread(review, *arguments)
            return review(*arguments)
        except InvalidInput as problem:
            why = problem.sentence
        except (NotSeries, NotEvaluable) as problem:
            why = str(problem)
        if row.problem != why:
            await self._note(topic, msgspec.structs.replace(row, problem=why))
        return None

    async def _note(self, topic: Topic, row: RuleRow) -> None:
        topic.rules[row.id] = row
        await store.note(self._database, row)

    async def _apply(self, topic: Topic, row: RuleRow, seen: Seen) -> list[Alert]:
        """Store what became of the rule's alerts, and what is to be told. Returns the alerts.

        The database is asked only if something changes. Then the rule is locked and its alerts are read
        again, so that two nodes never store or tell the same.
        """
        if row.id not in self._alerts:
            self._alerts[row.id] = await store.alerts_of(self._database, row.id)
        known = self._alerts[row.id]
        rule = row.rule()
        noted = row != topic.rules.get(row.id)
        if not noted and not transitions(rule, known, seen, self._now()):
            return known
        async with self._database.transaction() as tx:
            locked = await store.lock_rule(tx, row.id)
            if locked is None or locked.updated_at != row.updated_at:
                return known  # the topic begins anew
            now = self._now()
            found = transitions(rule, await store.alerts_of(tx, row.id), seen, now)
            states = [state for each in found for state in await self._put(tx, rule, each, now)]
            if states:
                trimmed = await store.trim_alerts(tx, row.id)
                row = later(row, trimmed, self._zone) if seen.timed else row
            if row != topic.rules.get(row.id):
                await store.note(tx, row)
            alerts = await store.alerts_of(tx, row.id)
        for state in states:
            self._observe(AlertChanged(row.id, state))
        topic.rules[row.id] = row
        self._alerts[row.id] = alerts
        return alerts

    async def _put(self, tx: Transaction, rule: Rule, found: Transition, now: datetime) -> tuple[str, ...]:
        """Store a transition and what is to be told of it. Returns the states that are told."""
        if not await store.put(tx, found, now):
            return ()
        if found.told:
            await store.trim_messages(tx, found.alert.id)
        for state in found.told:
            for each in messages(rule, found.alert, state, now, self._page):
                await tx.write(
                    _INSERT_DELIVERY,
                    each.id,
                    found.alert.id,
                    rule.id,
                    each.kind,
                    each.target,
                    each.event,
                    each.body,
                )
        return found.told


def _fires_at(rule: Rule, alert: Alert) -> datetime:
    return datetime.fromtimestamp(alert.opened_at.timestamp() + rule.for_s, alert.opened_at.tzinfo)


async def _change(changes: Subscription, within_s: float | None) -> Any:
    """The next change; None after the time."""
    with suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            return await anext(changes)
    return None
