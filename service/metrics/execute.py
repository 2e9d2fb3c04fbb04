"""The one path on which stored SQL runs: metric -> judged, typed template -> bound values -> rows, bytes."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo
from functools import partial
from hashlib import blake2b
from math import inf
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec
from msgspec import Struct

from service.database.stored_sql.limiter import Watch
from service.database.stored_sql.reader import Description, Reader, Rows
from service.errors import FieldError, InvalidInput, QueryFailed
from service.metrics.catalog import Catalog
from service.metrics.diagnosis import explained, placed, put_place, with_types
from service.metrics.formats import (
    MEDIA_TYPES,
    Format,
    Outcome,
    RecordMaker,
    parts,
    record_maker,
    render,
)
from service.metrics.models import Definition, Metric
from service.metrics.suspensions import Suspensions
from service.results.cache import CacheRequest, Computed
from service.results.changes import Changes, Dependencies
from service.results.single_flight import SingleFlight
from service.settings import Settings
from service.sql.parameters import BoundStatement, Template, declarations
from service.sql.statements import Submission, validate
from service.sql.validation import Unread
from service.sql.workers import Workers

# SQLSTATE class of names, types and rights: what was described is not what there is now.
_NO_LONGER_VALID: Final = "42"
# All that is understood of metrics, in about so many bytes; one column takes most of it where there are many.
_PREPARED_BYTES: Final = 64 << 20
_PREPARED_BYTES_EACH: Final = 16 << 10
_PREPARED_BYTES_PER_COLUMN: Final = 2 << 10
_PREPARED_BYTES_PER_CHARACTER: Final = 64
# A window on a column that is no date: the windowed text fails to prepare, the metric runs without.
_NO_DATE: Final = "Its window is not on a date or timestamp column, so it is not adjustable"


class QueryPlan(Struct, frozen=True, kw_only=True):
    """A metric as our parser and Postgres understand it; `record` is what its rows become.

    `fingerprint` differs for every change of the metric that its results show.
    """

    metric: Metric
    template: Template
    description: Description
    record: RecordMaker
    dependencies: Dependencies
    fingerprint: bytes

    @property
    def weight(self) -> int:
        """About how many bytes of memory it takes."""
        columns, text = len(self.description.columns), len(self.metric.sql)
        return (
            _PREPARED_BYTES_EACH + _PREPARED_BYTES_PER_COLUMN * columns + _PREPARED_BYTES_PER_CHARACTER * text
        )

    def definition(self) -> Definition:
        metric, description = self.metric, self.description
        return Definition(
            id=metric.id,
            title=metric.shown_title,
            query_id=metric.query_id,
            is_editable=metric.is_editable,
            sql=metric.sql,
            parameters=self.template.parameters,
            window=self.template.window,
            columns=description.columns,
            tables=self.dependencies.tables,
            estimated_cost=description.plan.cost,
            fresh_for_s=metric.fresh_for_s,
            stale_for_s=metric.stale_for_s,
            layouts=metric.layouts,
            version=metric.version,
            updated_at=metric.updated_at,
        )


class Timings(Struct, frozen=True):
    """Seconds spent: reading parameters, waiting for a connection, in Postgres, encoding."""

    parse: float
    wait: float
    run: float
    encode: float

    def header(self) -> str:
        """As a `Server-Timing` value, in milliseconds."""
        return (
            f"parse;dur={self.parse * 1000:.2f}, wait;dur={self.wait * 1000:.2f}, "
            f"run;dur={self.run * 1000:.2f}, encode;dur={self.encode * 1000:.2f}"
        )


class _Run(NamedTuple):
    """One execution; `claims` only where the rows depend on them."""

    prepared: QueryPlan
    bound: BoundStatement
    form: Format
    excel: bool
    claims: str | None
    parsed_s: float
    forgot: int


class Executor:
    """Knows what is wanted of a metric, and how to run it."""

    def __init__(
        self,
        reader: Reader,
        catalog: Catalog,
        settings: Settings,
        *,
        clock: Callable[[], float],
        changes: Changes,
        suspensions: Suspensions,
    ) -> None:
        self._reader = reader
        self._suspensions = suspensions
        self._catalog = catalog
        self._forgot = 0  # how often
        self._schemas = settings.database.data_schemas
        self._zone = settings.database.zone
        self._time_zone = settings.database.time_zone
        self._settings = settings.results
        self._bytes_limit = settings.database.result_bytes_limit
        self._changes = changes
        self._prepared: dict[UUID, QueryPlan] = {}
        self._prepared_bytes = 0
        self._understanding: SingleFlight[QueryPlan] = SingleFlight(clock)
        self._workers = Workers()

    async def close(self) -> None:
        await self._understanding.close()
        self._workers.close()

    async def prepare(self, metric: Metric) -> QueryPlan:
        """Understand a metric's SQL once for as long as its definition stands."""
        held = self._prepared.get(metric.id)
        if held is not None and held.metric is metric:
            return held
        if held is not None and held.metric == metric:
            held = msgspec.structs.replace(held, metric=metric)
        else:
            key = (fingerprint_of(metric), self._forgot)
            held, _ = await self._understanding.take(
                key, partial(self.plan_metric, metric), lambda _departed: True, afresh=False
            )
            if key[1] != self._forgot:  # what it means has changed meanwhile
                return await self.prepare(metric)
        self._hold(held)
        return held

    def _hold(self, prepared: QueryPlan) -> None:
        """Hold it for the next caller; the oldest make way for it."""
        self._drop(prepared.metric.id)
        self._prepared[prepared.metric.id] = prepared
        self._prepared_bytes += prepared.weight
        while self._prepared_bytes > _PREPARED_BYTES:
            self._drop(next(iter(self._prepared)))

    def _drop(self, metric_id: UUID) -> None:
        if (held := self._prepared.pop(metric_id, None)) is not None:
            self._prepared_bytes -= held.weight

    def forget(self) -> None:
        """Understand everything anew when it is next asked for: what SQL means has changed."""
        self._forgot += 1
        self._prepared.clear()
        self._prepared_bytes = 0

    async def plan_metric(self, metric: Metric) -> QueryPlan:
        """Judge, type and plan a metric's SQL, without running it.

        Raises `SqlRefused` when the judge or `QueryFailed` when Postgres will not have it, and
        `MetricSuspended` where planning it was set aside.
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
            description, dependencies = await self._described(metric, template.plain, watch)
        return QueryPlan(
            metric=metric,
            template=template,
            description=description.trimmed(),
            record=record_maker(description.columns),
            dependencies=dependencies,
            fingerprint=fingerprint_of(metric),
        )

    async def _validated(self, metric: Metric, watch: Watch) -> Template:
        """What the text alone shows. A text that is too much for our parser is shown to Postgres."""
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
        except Unread as gap:
            template = await self._read(msgspec.structs.replace(submission, trusted=True))
            raise await explained(gap, template, self._reader, watch) from None

    async def _read(self, submission: Submission) -> Template:
        if submission.is_small:
            return validate(submission)
        return await self._workers.read(submission)

    def check(self, sql: str) -> None:
        """Judge a text, in a thread of the caller's; raises `SqlRefused`."""
        submission = Submission(
            sql=sql, schemas=self._schemas, functions=self._catalog.functions, database=self._catalog.database
        )
        if submission.is_small:
            validate(submission)
        else:
            self._workers.submit(submission).result()

    async def _described(self, metric: Metric, plain: str, watch: Watch) -> tuple[Description, Dependencies]:
        """What Postgres says of a statement, read once all that it depends on is followed."""
        while True:
            description = await self._reader.describe(plain, watch)
            dependencies = await self._changes.dependencies(metric.sql, description)
            if dependencies.settled:
                return description, dependencies

    def has_plan(self, metric: Metric) -> bool:
        """Whether `wanted` need not ask Postgres what the metric is."""
        held = self._prepared.get(metric.id)
        return held is not None and held.metric == metric

    async def wanted(
        self,
        metric: Metric,
        given: list[tuple[str, str]] | dict[str, Any],
        form: Format = "json",
        *,
        claims: str | None = None,
        excel: bool = False,
    ) -> CacheRequest:
        """What a caller asks for who gave this: pairs of a query string, or decoded JSON values.

        `claims` are what policies read; without them these let nothing through.
        """
        started = time.perf_counter()
        prepared = await self.prepare(metric)
        forgot = self._forgot
        template = prepared.template
        bound = template.bind_json(given) if isinstance(given, dict) else template.bind(given)
        if not prepared.description.per_caller:
            claims = None
        run = _Run(prepared, bound, form, excel, claims, time.perf_counter() - started, forgot)
        return CacheRequest(
            key=(prepared.fingerprint, bound.key, form, excel, claims),
            owner=metric.id,
            tables=prepared.dependencies.followed,
            stale_for_s=_given(metric.stale_for_s, self._settings.stale_for_s),
            run=partial(self._make, run),
            shared=not prepared.description.per_caller,
        )

    async def first_rows(self, prepared: QueryPlan, rows: int) -> bytes:
        """Run what is not stored with its defaults and nobody's claims: JSON, cut after so many rows."""
        as_of = datetime.now(UTC)
        bound = prepared.template.bind([])
        runnable = prepared.description.runnable(bound.sql)
        limited = f"SELECT * FROM (\n{runnable}\n) AS tally LIMIT {rows + 1}"  # noqa: S608 (validated)
        watch = self._suspensions.watch(prepared.metric)
        found = await self._reader.run(limited, bound.args, watch=watch)
        outcome = Outcome(
            metric=prepared.metric,
            parameters=bound.parameters,
            columns=prepared.description.columns,
            record=prepared.record,
            rows=found.records[:rows],
            truncated=len(found.records) > rows,
            as_of=as_of,
        )
        return render(outcome, "json")

    async def _make(self, run: _Run) -> Computed:
        as_of = datetime.now(UTC)
        fresh_for_s, max_age = self._lifetime(run.prepared, run.bound, as_of)
        if run.forgot != self._forgot:  # what it hangs on, or who may see it, is another matter by now
            fresh_for_s, max_age = 0.0, 0
        outcome, waited_s, ran_s = await self._run(run.prepared, run.bound, run.claims, as_of)
        read = time.perf_counter()
        body = await self._render(outcome, run)
        timings = Timings(run.parsed_s, waited_s, ran_s, time.perf_counter() - read)
        return Computed(
            body=body,
            media_type=MEDIA_TYPES[run.form],
            comparable_bytes=body.rindex(b',"as_of":') if run.form == "json" else len(body),
            timings=timings.header(),
            fresh_for_s=fresh_for_s,
            max_age=max_age,
        )

    async def _render(self, outcome: Outcome, run: _Run) -> bytes:
        """Write a result within its limit, and let other callers go on between its parts."""
        made: list[bytes] = []
        for part in parts(outcome, run.form, excel=run.excel, limit=self._bytes_limit):
            made.append(part)
            if len(made) > 1:
                await asyncio.sleep(0)
        return made[0] if len(made) == 1 else b"".join(made)

    def _lifetime(self, prepared: QueryPlan, bound: BoundStatement, now: datetime) -> tuple[float, int]:
        """How long a run that begins now stays fresh if no table moves, and its `max-age`, in seconds."""
        own = prepared.metric.fresh_for_s
        usual = _given(own, self._settings.fresh_for_s)
        fresh_for_s = inf if own is None else float(own)
        if prepared.dependencies.timed or bound.clock:
            fresh_for_s = min(usual, until_midnight_s(now, self._zone))
        tables = prepared.dependencies.tables or prepared.dependencies.followed
        late = self._changes.max_age(tables) if tables else usual
        return fresh_for_s, int(min(late, fresh_for_s))

    async def _run(
        self, prepared: QueryPlan, bound: BoundStatement, claims: str | None, as_of: datetime
    ) -> tuple[Outcome, float, float]:
        rows = None
        try:
            rows = await self._rows(prepared, bound, claims)
        except QueryFailed as problem:
            if not problem.members["sqlstate"].startswith(_NO_LONGER_VALID):
                raise
        if rows is None or not prepared.description.fits(rows):
            # A table changed since the statement was described: what we know of it is old.
            self._drop(prepared.metric.id)
            prepared = await self.prepare(prepared.metric)
            rows = await self._rows(prepared, bound, claims)
        outcome = Outcome(
            metric=prepared.metric,
            parameters=bound.parameters,
            columns=prepared.description.columns,
            record=prepared.record,
            rows=rows.records,
            truncated=rows.truncated,
            as_of=as_of,
            received=rows.received,
        )
        return outcome, rows.waited_s, rows.ran_s

    async def _rows(self, prepared: QueryPlan, bound: BoundStatement, claims: str | None) -> Rows:
        description = prepared.description
        try:
            return await self._reader.run(
                description.runnable(bound.sql),
                bound.args,
                claims=claims,
                skip_reset=description.built_in and not prepared.metric.trusted,
                twice_the_bytes=bool(description.json_columns),
                weight=description.plan.weight,
                watch=self._suspensions.watch(prepared.metric),
            )
        except QueryFailed as problem:
            await self._refuse_wrong(prepared.template, bound)

            def place(position: int) -> int | None:
                own = position - len(description.head)
                inside = 0 < own <= len(bound.sql)
                return prepared.template.stored_position(own, bound.windows) if inside else None

            put_place(problem, prepared.template.sql, place)
            raise

    async def _refuse_wrong(self, template: Template, bound: BoundStatement) -> None:
        """Raise `InvalidInput` that names each value which Postgres cannot read, if there is one."""
        wrong: list[FieldError] = []
        for name, wanted, sql, value in template.value_trials(bound):
            try:
                await self._reader.run(sql, [value])
            except QueryFailed as problem:
                if "position" not in problem.members:  # else it is the cast that Postgres cannot read
                    wrong.append(FieldError(name, f"{name} must be {wanted}: {problem.errors[0].message}"))
        if wrong:
            raise InvalidInput(f"{wrong[0].message}.", errors=tuple(wrong))


def until_midnight_s(now: datetime, zone: tzinfo) -> float:
    """Seconds until the zone's day ends: not always a whole number of hours, as clocks are put forward."""
    tomorrow = now.astimezone(zone).date() + timedelta(days=1)
    midnight = datetime.combine(tomorrow, datetime.min.time(), zone)
    return (midnight.astimezone(UTC) - now).total_seconds()


def fingerprint_of(metric: Metric) -> bytes:
    return blake2b(msgspec.json.encode(metric), digest_size=16).digest()


def _given(own: int | None, usual: int) -> int:
    return usual if own is None else own
