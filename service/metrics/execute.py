"""The only path on which stored SQL runs: metric -> validated template -> bound values -> rows -> bytes."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from contextlib import nullcontext
from datetime import UTC, datetime
from functools import partial
from math import inf
from typing import Any, Final
from uuid import UUID

import msgspec

from service.database.stored_sql.describing import Description
from service.database.stored_sql.limiter import Watch
from service.database.stored_sql.reader import Reader, Rows
from service.database.stored_sql.sessions import NO_CLAIMS
from service.errors import Problem, QueryFailed
from service.metrics.catalog import Catalog
from service.metrics.diagnosis import explain_run, explained, placed, with_types
from service.metrics.file_names import disposition
from service.metrics.formats import (
    CSV,
    MEDIA_TYPES,
    Encoder,
    Format,
    Outcome,
    parts,
    record_maker,
    render,
)
from service.metrics.models import Metric
from service.metrics.planning import Planning
from service.metrics.plans import (
    QueryPlan,
    ResultKey,
    fingerprint_of,
    timings,
    until_midnight_s,
)
from service.metrics.suspensions import Suspensions
from service.observe.events import Observe, QueryRun
from service.observe.trace import UNTRACED, Traces
from service.results.changes import Changes, Dependencies
from service.results.requests import REFRESH_EVERY_S, CacheRequest, Computed, Share
from service.results.single_flight import SingleFlight
from service.settings import Settings
from service.sql.parameters import BoundStatement, Template, declarations
from service.sql.statements import Submission, is_small, validate
from service.sql.validation import UnknownCall, Unread
from service.sql.workers import Workers

# SQLSTATE class of names, types and rights: the schema changed after the statement was described.
_NO_LONGER_VALID: Final = "42"
# Approximate memory of all query plans.
_PLAN_BYTES: Final = 64 << 20
# If the window is not on a date column, the windowed SQL fails to prepare: the metric has no window then.
_NO_DATE: Final = "Its window is not on a date or timestamp column, so it is not adjustable"


class MetricRequest(CacheRequest, frozen=True, kw_only=True, gc=False):
    """A lookup of a metric's result. `claims` is set only if the rows depend on them.

    `generation` is the executor's when it was planned, `parsed_s` what reading its parameters took.
    """

    executor: "Executor"
    plan: QueryPlan
    bound: BoundStatement
    form: Format
    excel: bool
    claims: str | None
    generation: int
    parsed_s: float

    def run(self, *, afresh: bool) -> Awaitable[Computed]:
        return self.executor.run(self, afresh=afresh)

    def refuse(self) -> None:
        self.executor.refuse(self.owner)


def _nothing(_metric: UUID) -> bool:
    return False


class Executor:
    """Plans metrics, builds their cache requests and runs them."""

    def __init__(
        self,
        reader: Reader,
        catalog: Catalog,
        settings: Settings,
        *,
        clock: Callable[[], float],
        changes: Changes,
        suspensions: Suspensions,
        observe: Observe,
        holds: Callable[[UUID], bool] = _nothing,
        share_key: bytes | None = None,
        traces: Traces = UNTRACED,
        arrow: Encoder | None = None,
    ) -> None:
        """`holds`: whether there is a result of a metric.

        `share_key` stands for all settings that results depend on; None if nodes do not share results.
        `arrow` writes results as Arrow; None without the extra of that name.
        """
        self.arrow = arrow
        self._observe = observe
        self._traces = traces
        self._reader = reader
        self._suspensions = suspensions
        self._catalog = catalog
        self._generation = 0  # rises with each `forget`
        self._schemas = settings.database.data_schemas
        self._zone = settings.database.zone
        self._time_zone = settings.database.time_zone
        self._settings = settings.results
        self._bytes_limit = settings.database.result_bytes_limit
        self._changes = changes
        self._share_key = share_key
        self._plans: dict[UUID, QueryPlan] = {}
        self._plan_bytes = 0
        self._places = Planning(reader, settings.database.reader_queue_limit, holds)
        self._reading = asyncio.Lock()
        self._planning: SingleFlight[QueryPlan] = SingleFlight(clock)
        self._workers = Workers()

    async def close(self) -> None:
        await self._planning.close()
        self._workers.close()

    async def prepare(self, metric: Metric) -> QueryPlan:
        """Plan a metric once per definition."""
        plan = self._plans.get(metric.id)
        if plan is not None and plan.metric is metric:
            return plan
        if plan is not None and plan.metric == metric:
            plan = msgspec.structs.replace(plan, metric=metric)
        else:
            key = (fingerprint_of(metric), self._generation)
            with nullcontext() if self._planning.runs(key) else self._places.place(metric.id):
                plan, _ = await self._planning.take(
                    key, partial(self._plan_in_turn, metric), lambda _departed: True, afresh=False
                )
            if key[1] != self._generation:  # the plan is outdated already
                return await self.prepare(metric)
        self._store(plan)
        return plan

    async def _plan_in_turn(self, metric: Metric) -> QueryPlan:
        """Plan a metric of a caller. One that is read by a process of its own keeps no other waiting."""
        async with self._places.turn(metric.id) if is_small(metric.sql) else nullcontext():
            return await self.plan_metric(metric)

    def _store(self, plan: QueryPlan) -> None:
        """Cache a plan and evict the oldest plans."""
        self._drop(plan.metric.id)
        self._plans[plan.metric.id] = plan
        self._plan_bytes += plan.weight
        while self._plan_bytes > _PLAN_BYTES:
            self._drop(next(iter(self._plans)))

    def _drop(self, metric_id: UUID) -> None:
        if (plan := self._plans.pop(metric_id, None)) is not None:
            self._plan_bytes -= plan.weight

    def forget(self) -> None:
        """Drop all plans after functions, tables or rights changed. Metrics are planned again on next use."""
        self._generation += 1
        self._plans.clear()
        self._plan_bytes = 0

    async def redefined(self) -> None:
        """Plan on new sessions. A session's prepared statements keep what they first resolved."""
        self.forget()
        await self._reader.retire()

    async def locked_out(self) -> None:
        """Make all results suspect and leave the reader's sessions, because its login is refused."""
        self._changes.renew()
        await self._reader.retire()

    async def plan_metric(self, metric: Metric) -> QueryPlan:
        """Validate, type and plan a metric's SQL without running it.

        Raises `SqlRefused` if validation refuses the SQL, `QueryFailed` if Postgres refuses it, and
        `MetricSuspended` if planning it is suspended.
        """
        watch = self._suspensions.watch(metric, planning=True)
        template = await self._validated(metric, watch)
        if template.untyped:
            template = await with_types(template, self._reader, watch)
        try:
            for trial in template.trials():
                await self._reader.parameter_types(trial, watch)
        except QueryFailed:
            template = template.without_windows(_NO_DATE)
        with placed(template.sql, template.stored_position):
            description, dependencies = await self._described(template.plain, watch)
        return QueryPlan(
            metric=metric,
            template=template,
            description=description.trimmed(),
            record=record_maker(description.columns),
            dependencies=dependencies,
            fingerprint=fingerprint_of(metric),
            watch=self._suspensions.watch(metric),
        )

    async def _validated(self, metric: Metric, watch: Watch) -> Template:
        """Validate the SQL text. Ask Postgres about what we cannot read, and about unknown functions."""
        submission = Submission(
            sql=metric.sql,
            trusted=metric.trusted,
            declared=declarations(metric.parameters),
            window=metric.window,
            time_zone=self._time_zone,
            schemas=self._schemas,
            functions=frozenset() if metric.trusted else self._catalog.functions,
            database="" if metric.trusted else self._catalog.database,
        )
        try:
            return await self._read(submission)
        except (Unread, UnknownCall) as gap:
            template = await self._read(msgspec.structs.replace(submission, trusted=True))
            raise await explained(gap, template, self._reader, watch) from None

    async def _read(self, submission: Submission) -> Template:
        if not submission.is_small:
            return await self._workers.read(submission)
        async with self._reading:  # one in each turn of the event loop, so that others are served between
            template = validate(submission)
            await asyncio.sleep(0)
        return template

    def check(self, sql: str) -> None:
        """Validate SQL text in the calling thread. Raises `SqlRefused`."""
        submission = Submission(
            sql=sql, schemas=self._schemas, functions=self._catalog.functions, database=self._catalog.database
        )
        if submission.is_small:
            validate(submission)
        else:
            self._workers.submit(submission).result()

    async def _described(self, plain: str, watch: Watch) -> tuple[Description, Dependencies]:
        """Describe a statement after all its dependencies are followed, so that no change is missed."""
        while True:
            description = await self._reader.describe(plain, watch)
            dependencies = await self._changes.dependencies(description)
            if dependencies.settled:
                return description, dependencies

    def planned(self, metric: Metric) -> QueryPlan | None:
        """The plan of a metric, if `cache_request` needs no query to make it."""
        plan = self._plans.get(metric.id)
        return plan if plan is not None and plan.metric == metric else None

    async def cache_request(
        self,
        metric: Metric,
        given: list[tuple[str, str]] | dict[str, Any],
        form: Format = "json",
        *,
        claims: str | None = None,
        excel: bool = False,
    ) -> MetricRequest:
        """Build the cache request for given parameters: pairs of a query string, or decoded JSON values.

        Row policies read `claims`. Without claims these policies let no row through.
        """
        started = time.perf_counter()
        plan = await self.prepare(metric)
        generation = self._generation
        template = plan.template
        bound = template.bind_json(given) if isinstance(given, dict) else template.bind(given)
        claims = (claims or NO_CLAIMS) if plan.description.per_caller else None
        key = ResultKey(plan.fingerprint, bound.key, form, excel, claims)
        return MetricRequest(
            key=key,
            owner=metric.id,
            tables=plan.dependencies.followed,
            stale_for_s=_given(metric.stale_for_s, self._settings.stale_for_s),
            shared=not plan.description.per_caller,
            refresh_every_s=REFRESH_EVERY_S if metric.refresh_every_s is None else metric.refresh_every_s,
            share=self._share(plan, key),
            executor=self,
            plan=plan,
            bound=bound,
            form=form,
            excel=excel,
            claims=claims,
            generation=generation,
            parsed_s=time.perf_counter() - started,
        )

    def _share(self, plan: QueryPlan, key: ResultKey) -> Share | None:
        """How nodes share the result. One that depends on claims stays on its node."""
        if self._share_key is None or plan.description.per_caller:
            return None
        digest = partial(self._changes.digest, plan.dependencies.watched)
        return Share(msgspec.msgpack.encode((self._share_key, *key[:-1])), digest)

    async def first_rows(self, plan: QueryPlan, rows: int) -> bytes:
        """Run a metric that is not stored, with defaults and no claims. Return up to `rows` rows as JSON."""
        as_of = datetime.now(UTC)
        bound = plan.template.bind([])
        runnable = plan.description.runnable(bound.sql)
        limited = f"SELECT * FROM (\n{runnable}\n) AS tally LIMIT {rows + 1}"  # noqa: S608 (validated)
        claims = NO_CLAIMS if plan.description.per_caller else None
        found = await self._reader.run(limited, bound.args, claims=claims, watch=plan.watch)
        outcome = Outcome(
            metric=plan.metric,
            parameters=bound.parameters,
            columns=plan.description.columns,
            record=plan.record,
            rows=found.records[:rows],
            truncated=len(found.records) > rows,
            as_of=as_of,
        )
        return render(outcome, "json")

    def refuse(self, metric_id: Hashable) -> None:
        """Raise `Busy` if a run of the metric would be refused at once."""
        self._reader.refuse(metric_id)

    async def run(self, request: MetricRequest, *, afresh: bool) -> Computed:
        """Run a statement; `afresh` on the primary, which shows what was committed a moment ago."""
        started = time.perf_counter()
        plan, bound = request.plan, request.bound
        metric = plan.metric
        with self._traces.span("execute", "client") as span:
            span.note(db_system_name="postgresql", tally_metric_id=metric.id, tally_query_id=metric.query_id)
            as_of = datetime.now(UTC)
            fresh_for_s, max_age = self._lifetime(plan, bound, as_of)
            if request.generation != self._generation:  # dependencies or rights may have changed
                fresh_for_s, max_age = 0.0, 0
            try:
                outcome, rows = await self._run(plan, bound, request.claims, as_of, afresh=afresh)
                read = time.perf_counter()
                body = await self._render(outcome, request)
            except (Problem, asyncio.CancelledError) as error:
                code = error.code if isinstance(error, Problem) else "cancelled"
                span.fail(code)
                self._observe(QueryRun(metric.id, time.perf_counter() - started, problem=code))
                raise
            ended = time.perf_counter()
            done = QueryRun(metric.id, ended - started, rows.waited_s, len(outcome.rows), len(body))
            span.note(tally_rows=done.rows, tally_bytes=done.bytes, tally_waited__s=done.waited)
            self._observe(done)
        return Computed(
            body=body,
            media_type=MEDIA_TYPES[request.form],
            comparable_bytes=body.rindex(b',"as_of":') if request.form == "json" else len(body),
            timings=timings(request.parsed_s, rows.waited_s, rows.ran_s, ended - read),
            fresh_for_s=fresh_for_s,
            max_age=max_age,
            seen=rows.seen,
            disposition=_disposition(outcome) if request.form in CSV else "",
            truncated=outcome.truncated,
        )

    async def _render(self, outcome: Outcome, request: MetricRequest) -> bytes:
        """Encode a result within its size limit. Between parts the event loop serves other requests."""
        encoded: list[bytes] = []
        form = request.form
        encoder = self.arrow if form == "arrow" else None
        for part in parts(outcome, form, excel=request.excel, limit=self._bytes_limit, encoder=encoder):
            encoded.append(part)
            if len(encoded) > 1:
                await asyncio.sleep(0)
        return encoded[0] if len(encoded) == 1 else b"".join(encoded)

    def _lifetime(self, plan: QueryPlan, bound: BoundStatement, now: datetime) -> tuple[float, int]:
        """How long a result computed now stays fresh if no table changes, and its `max-age`, in seconds."""
        own = plan.metric.fresh_for_s
        usual = _given(own, self._settings.fresh_for_s)
        fresh_for_s = inf if own is None else float(own)
        if plan.dependencies.timed or bound.clock:
            fresh_for_s = min(usual, until_midnight_s(now, self._zone))
        tables = plan.dependencies.tables or plan.dependencies.followed
        late = self._changes.max_age(tables) if tables else usual
        return fresh_for_s, int(min(late, fresh_for_s))

    async def _run(
        self, plan: QueryPlan, bound: BoundStatement, claims: str | None, as_of: datetime, *, afresh: bool
    ) -> tuple[Outcome, Rows]:
        rows = None
        try:
            rows = await self._rows(plan, bound, claims, afresh=afresh)
        except QueryFailed as problem:
            await explain_run(problem, plan.template, bound, self._reader, len(plan.description.head))
            if not problem.members["sqlstate"].startswith(_NO_LONGER_VALID):
                raise
        if rows is None or not plan.description.fits(rows.shape):
            # A table changed after the statement was described, so the plan is outdated.
            self._drop(plan.metric.id)
            plan = await self.prepare(plan.metric)
            try:
                rows = await self._rows(plan, bound, claims, afresh=True)
            except QueryFailed as problem:
                await explain_run(problem, plan.template, bound, self._reader, len(plan.description.head))
                raise
        outcome = Outcome(
            metric=plan.metric,
            parameters=bound.parameters,
            columns=plan.description.columns,
            record=plan.record,
            rows=rows.records,
            truncated=rows.truncated,
            as_of=as_of,
            received=rows.received,
        )
        return outcome, rows

    def _rows(
        self, plan: QueryPlan, bound: BoundStatement, claims: str | None, *, afresh: bool
    ) -> Awaitable[Rows]:
        description = plan.description
        return self._reader.run(
            description.runnable(bound.sql),
            bound.args,
            claims=claims,
            skip_reset=description.dependencies.built_in and not plan.metric.trusted,
            twice_the_bytes=bool(description.json_columns),
            weight=description.plan.weight,
            watch=plan.watch,
            with_seen=self._share_key is not None and claims is None and self._changes.is_proving,
            comment=self._traces.comment(),
            needs=None if afresh else partial(self._changes.requirement, plan.dependencies),
        )


def _disposition(outcome: Outcome) -> str:
    first_rows = len(outcome.rows) if outcome.truncated else None
    return disposition(outcome.metric.shown_title, outcome.parameters, outcome.as_of, first_rows=first_rows)


def _given(own: int | None, usual: int) -> int:
    return usual if own is None else own
