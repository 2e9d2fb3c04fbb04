"""The one path on which stored SQL runs: metric -> judged, typed template -> bound values -> rows, bytes."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from hashlib import blake2b
from math import inf
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec
from msgspec import Struct

from service.database.stored_sql.reader import Description, Reader, Rows
from service.errors import FieldError, InvalidInput, QueryFailed
from service.metrics.answers.formats import MEDIA_TYPES, Format, Outcome, RecordMaker, record_maker, render
from service.metrics.catalog import Catalog
from service.metrics.judge import judge, parse
from service.metrics.models import Definition, Metric
from service.metrics.parameters import Bound, Template, analyse, declarations
from service.results.cache import Made, Wanted
from service.results.changes import Changes, Dependencies
from service.results.flights import Flights
from service.settings import Settings

# SQLSTATE class of names, types and rights: what was described is not what there is now.
_NO_LONGER_VALID: Final = "42"
# A window on a column that is no date: the windowed text fails to prepare, the metric runs without.
_NO_DATE: Final = "its window is not on a date or timestamp column"


class Prepared(Struct, frozen=True, kw_only=True):
    """A metric as our parser and Postgres understand it; `record` is what its rows become.

    `fingerprint` differs for every change of the metric that its results show.
    """

    metric: Metric
    template: Template
    description: Description
    record: RecordMaker
    dependencies: Dependencies
    fingerprint: bytes

    def definition(self) -> Definition:
        metric, description = self.metric, self.description
        return Definition(
            id=metric.id,
            title=metric.shown_title,
            query_id=metric.query_id,
            is_editable=metric.is_editable,
            sql=metric.sql,
            parameters=self.template.parameters,
            columns=description.columns,
            tables=self.dependencies.tables,
            estimated_cost=description.plan["Total Cost"],
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

    prepared: Prepared
    bound: Bound
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
    ) -> None:
        self._reader = reader
        self._catalog = catalog
        self._forgot = 0  # how often
        self._schemas = settings.database.data_schemas
        self._settings = settings.results
        self._changes = changes
        self._prepared: dict[UUID, Prepared] = {}
        self._understanding: Flights[Prepared] = Flights(clock)

    async def close(self) -> None:
        await self._understanding.close()

    async def prepare(self, metric: Metric) -> Prepared:
        """Understand a metric's SQL once for as long as its definition stands."""
        held = self._prepared.get(metric.id)
        if held is not None and held.metric is metric:
            return held
        if held is not None and held.metric == metric:
            held = msgspec.structs.replace(held, metric=metric)
        else:
            key = (fingerprint_of(metric), self._forgot)
            held, _ = await self._understanding.take(
                key, partial(self.understand, metric), lambda _departed: True, afresh=False
            )
            if key[1] != self._forgot:  # what it means has changed meanwhile
                return await self.prepare(metric)
        self._prepared[metric.id] = held
        return held

    def forget(self) -> None:
        """Understand everything anew when it is next asked for: what SQL means has changed."""
        self._forgot += 1
        self._prepared.clear()

    async def understand(self, metric: Metric) -> Prepared:
        """Judge, type and plan a metric's SQL, without running it.

        Raises `SqlRefused` when the judge or `QueryFailed` when Postgres will not have it.
        """
        tree = None
        if not metric.trusted:
            tree = parse(metric.sql)
            judge(metric.sql, schemas=self._schemas, tree=tree, functions=self._catalog.functions)
        template = analyse(metric.sql, tree, declarations(metric.parameters))
        if template.untyped:
            probe = template.probe()
            with _placed(lambda position: template.stored_position(position, typed=False)):
                types = await self._reader.parameter_types(probe.sql)
            template = template.with_types(dict(zip(probe.names, types, strict=True)))
        try:
            for trial in template.trials():
                await self._reader.parameter_types(trial)
        except QueryFailed:
            template = template.without_windows(_NO_DATE)
        with _placed(template.stored_position):
            description, dependencies = await self._described(metric, template.plain)
        return Prepared(
            metric=metric,
            template=template,
            description=description,
            record=record_maker(description.columns),
            dependencies=dependencies,
            fingerprint=fingerprint_of(metric),
        )

    async def _described(self, metric: Metric, plain: str) -> tuple[Description, Dependencies]:
        """What Postgres says of a statement, read once all that it depends on is followed."""
        while True:
            description = await self._reader.describe(plain)
            dependencies = await self._changes.dependencies(metric.sql, description)
            if dependencies.settled:
                return description, dependencies

    def understands(self, metric: Metric) -> bool:
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
    ) -> Wanted:
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
        return Wanted(
            key=(prepared.fingerprint, bound.key, form, excel, claims),
            owner=metric.id,
            tables=prepared.dependencies.followed,
            stale_for_s=_given(metric.stale_for_s, self._settings.stale_for_s),
            run=partial(self._make, run),
            shared=not prepared.description.per_caller,
        )

    async def first_rows(self, prepared: Prepared, rows: int) -> bytes:
        """Run what is not stored with its defaults and nobody's claims: JSON, cut after so many rows."""
        as_of = datetime.now(UTC)
        bound = prepared.template.bind([])
        runnable = prepared.description.runnable(bound.sql)
        limited = f"SELECT * FROM (\n{runnable}\n) AS tally LIMIT {rows + 1}"  # noqa: S608 (judged text)
        found = await self._reader.run(limited, bound.args)
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

    async def _make(self, run: _Run) -> Made:
        as_of = datetime.now(UTC)
        fresh_for_s, max_age = self._lifetime(run.prepared, run.bound, as_of)
        if run.forgot != self._forgot:  # what it hangs on, or who may see it, is another matter by now
            fresh_for_s, max_age = 0.0, 0
        outcome, waited_s, ran_s = await self._run(run.prepared, run.bound, run.claims, as_of)
        read = time.perf_counter()
        body = render(outcome, run.form, excel=run.excel)
        timings = Timings(run.parsed_s, waited_s, ran_s, time.perf_counter() - read)
        return Made(
            body=body,
            media_type=MEDIA_TYPES[run.form],
            alike=body.rindex(b',"as_of":') if run.form == "json" else len(body),
            timings=timings.header(),
            fresh_for_s=fresh_for_s,
            max_age=max_age,
        )

    def _lifetime(self, prepared: Prepared, bound: Bound, now: datetime) -> tuple[float, int]:
        """How long a run that begins now stays fresh if no table moves, and its `max-age`, in seconds."""
        own = prepared.metric.fresh_for_s
        usual = _given(own, self._settings.fresh_for_s)
        fresh_for_s = inf if own is None else float(own)
        if prepared.dependencies.timed or bound.clock:
            midnight = datetime.combine(now.date() + timedelta(days=1), datetime.min.time(), UTC)
            fresh_for_s = min(usual, (midnight - now).total_seconds())
        tables = prepared.dependencies.tables or prepared.dependencies.followed
        late = self._changes.max_age(tables) if tables else usual
        return fresh_for_s, int(min(late, fresh_for_s))

    async def _run(
        self, prepared: Prepared, bound: Bound, claims: str | None, as_of: datetime
    ) -> tuple[Outcome, float, float]:
        rows = None
        try:
            rows = await self._rows(prepared, bound, claims)
        except QueryFailed as problem:
            if not problem.members["sqlstate"].startswith(_NO_LONGER_VALID):
                raise
        if rows is None or not prepared.description.fits(rows):
            # A table changed since the statement was described: what we know of it is old.
            self._prepared.pop(prepared.metric.id, None)
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
        )
        return outcome, rows.waited_s, rows.ran_s

    async def _rows(self, prepared: Prepared, bound: Bound, claims: str | None) -> Rows:
        description = prepared.description
        try:
            return await self._reader.run(
                description.runnable(bound.sql),
                bound.args,
                claims=claims,
                spotless=description.built_in and not prepared.metric.trusted,
                twice=bool(description.odd),
            )
        except QueryFailed as problem:
            await self._refuse_wrong(prepared.template, bound)

            def place(position: int) -> int | None:
                own = position - len(description.head)
                inside = 0 < own <= len(bound.sql)
                return prepared.template.stored_position(own, bound.windows) if inside else None

            _place(problem, place)
            raise

    async def _refuse_wrong(self, template: Template, bound: Bound) -> None:
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


@contextmanager
def _placed(place: Callable[[int], int | None]) -> Generator[None]:
    """Let a failure say where in the stored text it is, or nothing where it is in none of it."""
    try:
        yield
    except QueryFailed as problem:
        _place(problem, place)
        raise


def _place(problem: QueryFailed, place: Callable[[int], int | None]) -> None:
    if (position := problem.members.pop("position", None)) is not None:
        stored = place(position)
        if stored is not None:
            problem.members["position"] = stored


def fingerprint_of(metric: Metric) -> bytes:
    return blake2b(msgspec.json.encode(metric), digest_size=16).digest()


def _given(own: int | None, usual: int) -> int:
    return usual if own is None else own
