"""The one path on which stored SQL runs: metric -> judged, typed template -> bound values -> rows, bytes."""

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, Final
from uuid import UUID

import msgspec
from msgspec import Struct

from service.database.reader import Description, Reader, Rows
from service.errors import QueryFailed
from service.metrics.catalog import Catalog
from service.metrics.formats import MEDIA_TYPES, Format, Outcome, record_type, render
from service.metrics.judge import judge, parse
from service.metrics.models import Definition, Metric
from service.metrics.parameters import Bound, Declared, Template, analyse

# A window on a column that is no date: the windowed text fails to prepare, the metric runs without.
_NO_DATE: Final = "its window is not on a date or timestamp column"


class Prepared(Struct, frozen=True):
    """A metric as our parser and Postgres understand it; `record` is the Struct that its rows become."""

    metric: Metric
    template: Template
    description: Description
    record: type[Struct]

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
            tables=tables_of(description.plan),
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
        names = ("parse", "wait", "run", "encode")
        return ", ".join(f"{name};dur={getattr(self, name) * 1000:.2f}" for name in names)


class Answer(Struct, frozen=True):
    """A finished answer: `etag` is strong and belongs to these bytes."""

    body: bytes
    media_type: str
    etag: str
    timings: Timings


class Executor:
    def __init__(self, reader: Reader, catalog: Catalog, schemas: tuple[str, ...]) -> None:
        self._reader = reader
        self._catalog = catalog
        self._schemas = schemas
        self._prepared: dict[UUID, Prepared] = {}

    async def prepare(self, metric: Metric) -> Prepared:
        """Understand a metric's SQL once for as long as its definition stands."""
        held = self._prepared.get(metric.id)
        if held is None or held.metric is not metric:
            if held is not None and held.metric == metric:
                held = msgspec.structs.replace(held, metric=metric)
            else:
                held = await self.understand(metric)
            self._prepared[metric.id] = held
        return held

    async def understand(self, metric: Metric) -> Prepared:
        """Judge, type and plan a metric's SQL, without running it.

        Raises `SqlRefused` when the judge or `QueryFailed` when Postgres will not have it.
        """
        tree = None
        if not metric.trusted:
            tree = parse(metric.sql)
            judge(metric.sql, schemas=self._schemas, tree=tree, functions=self._catalog.functions)
        declared = msgspec.convert(metric.parameters, dict[str, Declared])
        template = analyse(metric.sql, tree, declared)
        if template.untyped:
            probe = template.probe()
            types = await self._reader.parameter_types(probe.sql)
            template = template.with_types(dict(zip(probe.names, types, strict=True)))
        try:
            for trial in template.trials():
                await self._reader.parameter_types(trial)
        except QueryFailed:
            template = template.without_windows(_NO_DATE)
        description = await self._reader.describe(template.plain)
        return Prepared(metric, template, description, record_type(description.columns))

    async def answer(
        self,
        metric: Metric,
        given: Sequence[tuple[str, str]] | Mapping[str, Any],
        form: Format = "json",
        *,
        claims: str | None = None,
        excel: bool = False,
    ) -> Answer:
        """Run a metric with what a caller gave: pairs of a query string, or decoded JSON values.

        `claims` says who asks; without them a table's policies let nothing through.
        """
        started = time.perf_counter()
        prepared = await self.prepare(metric)
        template = prepared.template
        bound = template.bind_json(given) if isinstance(given, Mapping) else template.bind(given)
        parsed = time.perf_counter()
        outcome, waited, ran = await self._run(prepared, bound, claims)
        read = time.perf_counter()
        body = render(outcome, form, excel=excel)
        timings = Timings(parsed - started, waited, ran, time.perf_counter() - read)
        return Answer(body, MEDIA_TYPES[form], etag_of(body), timings)

    async def _run(
        self, prepared: Prepared, bound: Bound, claims: str | None
    ) -> tuple[Outcome, float, float]:
        as_of = datetime.now(UTC)
        rows = await self._rows(prepared, bound, claims)
        if rows.records and len(rows.records[0]) != len(prepared.description.columns):
            # A table changed under `SELECT *`: what we know of the statement is old.
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
        own = claims if description.per_caller else None
        return await self._reader.run(description.runnable(bound.sql), bound.args, claims=own)


def tables_of(plan: Mapping[str, Any]) -> tuple[str, ...]:
    """The relations that a plan reads, as `schema.table`, sorted."""
    found: set[str] = set()
    nodes = [plan]
    while nodes:
        node = nodes.pop()
        nodes += node.get("Plans", [])
        if "Relation Name" in node:
            found.add(f"{node['Schema']}.{node['Relation Name']}")
    return tuple(sorted(found))


def etag_of(body: bytes) -> str:
    return f'"{blake2b(body, digest_size=16).hexdigest()}"'
