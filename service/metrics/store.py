"""Changes of metrics. Each change and its audit row are one transaction."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final, TypeVar
from uuid import UUID, uuid4

import msgspec
from msgspec import UNSET, Struct, UnsetType

from service import audit
from service.audit import CLI, Actor
from service.database.gateway import Database, Transaction
from service.errors import Conflict, FieldError, InvalidInput, NotEditable, NotFound, PreconditionFailed
from service.http.preconditions import Precondition
from service.metrics.catalog import SQL, Catalog, LayoutItem
from service.metrics.dashboards import place_on, place_on_default
from service.metrics.execute import Executor, QueryPlan, fingerprint_of
from service.metrics.models import Layout, Metric, MetricChange, MetricDraft, NewMetric, Version
from service.metrics.suspensions import DRAFT
from service.sql.parameters import Mode


class Written(Struct, frozen=True):
    """The plan of a metric written from a prompt. `generator` is `rules` or `model:<name>`."""

    plan: QueryPlan
    generator: str


PREVIEW_ROWS: Final = 500

Write = Callable[[str, bool, Mode], Awaitable[Written]]
"""Writes a metric with this window mode for a prompt, with or without fallback to the rules."""


class _Id(Struct, frozen=True):
    id: UUID


class _Count(Struct, frozen=True):
    n: int


_HOLD_METRIC: Final = SQL.rows("hold_metric", _Id)
_LOCK_METRIC: Final = SQL.rows("lock_metric", Metric)
_LIST_LAYOUTS: Final = SQL.rows("list_layout_items_of", LayoutItem)
_INSERT_QUERY: Final = SQL.command("insert_query")
_INSERT_METRIC: Final = SQL.rows("insert_metric", _Id)
_UPDATE_METRIC: Final = SQL.command("update_metric")
_UPDATE_QUERY: Final = SQL.command("update_query")
_TRUST_QUERY: Final = SQL.command("trust_query")
_PUT_TRUSTED: Final = SQL.command("put_trusted_query")
_COUNT_METRICS: Final = SQL.rows("count_metrics_of_query", _Count)
_DELETE_METRIC: Final = SQL.command("delete_metric")
_DELETE_UNUSED_QUERY: Final = SQL.command("delete_unused_query")
_LIST_VERSIONS: Final = SQL.rows("list_versions", Version)
_DELETE_LAYOUTS_OF: Final = SQL.command("delete_layout_items_of")
_INSERT_ORIGIN: Final = SQL.command("insert_origin")
# How often a change is tried. After that, concurrent changes of the same metric win.
_TRIES: Final = 4
_PROMPTED: Final = frozenset({"prompt", "fallback"})
_VERSIONED: Final = (
    "title", "sql", "is_editable", "fresh_for_s", "stale_for_s", "parameters", "window", "refresh_every_s",
)  # fmt: skip


def tag(metric: Metric) -> str:
    """Strong ETag of a definition, for `If-Match`. It covers every field that a PATCH can change."""
    return f'"v{metric.version}-{_hash(metric)[:24]}"'


class Editor:
    """Changes metrics: validate and plan, store with an audit row, then reload the catalogue.

    Raises `NotFound`, `NotEditable`, `PreconditionFailed` if `if_match` names another state, and the problems
    of `Executor.plan_metric`.
    """

    def __init__(self, database: Database, catalog: Catalog, executor: Executor, write: Write) -> None:
        self._database = database
        self._catalog = catalog
        self._executor = executor
        self._write = write

    async def create(self, new: NewMetric, actor: Actor) -> tuple[Metric, QueryPlan, str]:
        """Store a metric with a query of its own. The last value returned tells what wrote its SQL."""
        written = await self._written(new, new.window)
        new = _filled(new, written)
        plan = written.plan if written else await self._executor.plan_metric(drafted(new))
        query_id = str(uuid4())
        async with self._database.transaction() as tx:
            await tx.write(_INSERT_QUERY, query_id, new.sql)
            row = await tx.read_one(
                _INSERT_METRIC,
                query_id,
                new.title,
                new.is_editable,
                new.fresh_for_s,
                new.stale_for_s,
                new.parameters,
                new.window,
                new.refresh_every_s,
            )
            assert row is not None, "RETURNING gives the row"
            await place_on_default(tx, row.id, new.layouts)
            await place_on(tx, row.id, new.dashboards)
            metric = await _read(tx, row.id)
            await _put_origin(tx, metric, new.prompt, written, actor)
            await audit.record(tx, actor, "metrics.create", str(metric.id), after=_hash(metric))
        await self._catalog.load()
        return metric, plan, written.generator if written else "sql"

    async def change(
        self, metric_id: UUID, change: MetricChange, *, if_match: Precondition, actor: Actor
    ) -> QueryPlan:
        """Change a metric. If other metrics share its query, the new SQL becomes a query of its own.

        Only a planned definition is stored. If another caller changes the metric meanwhile, it is planned
        again. Raises `Conflict` after several such changes.
        """
        metric = self._catalog.get(metric_id)
        written = None
        if change.prompt:
            if not metric.is_editable:
                raise NotEditable
            written = await self._written(change, change.window or metric.window)
        change = _filled(change, written)
        plan = written.plan if written else None
        for _ in range(_TRIES):
            async with self._database.transaction() as tx:
                metric = await _editable(tx, metric_id, if_match)
                after = _applied(metric, change)
                if plan and _meaning(after) == _meaning(plan.metric):
                    changed = await _put(tx, metric, after, change.layouts)
                    await _put_origin(tx, changed, change.prompt or None, written, actor)
                    before, after = _hash(metric), _hash(changed)
                    await audit.record(
                        tx, actor, "metrics.change", str(metric.id), before=before, after=after
                    )
                    break
            plan = await self._executor.plan_metric(after)
        else:
            raise Conflict("Others change this metric at the same time: try again.")
        await self._catalog.load()
        return msgspec.structs.replace(plan, metric=changed, fingerprint=fingerprint_of(changed))

    async def _written(self, given: NewMetric | MetricChange, window: Mode) -> Written | None:
        """Turn a prompt into a planned metric. None if the caller wrote the SQL."""
        if bool(given.prompt) == bool(given.sql):
            raise InvalidInput(errors=(FieldError("sql", "give either `sql` or `prompt`"),))
        if not given.prompt:
            return None
        if given.parameters:
            raise InvalidInput(errors=(FieldError("parameters", "a prompt declares its own"),))
        return await self._write(given.prompt, given.fallback, window)

    async def restore(
        self, metric_id: UUID, version: int, *, if_match: Precondition, actor: Actor
    ) -> QueryPlan:
        """Restore an old version as a new version."""
        found = await self.versions(metric_id)
        for old in found:
            if old.version == version:
                change = MetricChange(**{name: getattr(old, name) for name in _VERSIONED})
                return await self.change(metric_id, change, if_match=if_match, actor=actor)
        known = ", ".join(str(old.version) for old in found)
        raise NotFound(f"There is no version {version}; there are: {known}.")

    async def versions(self, metric_id: UUID) -> list[Version]:
        """All versions of a metric, newest first."""
        metric = self._catalog.get(metric_id)
        now = Version(
            metric.version, **{name: getattr(metric, name) for name in _VERSIONED}, replaced_at=None
        )
        return [now, *await self._database.read(_LIST_VERSIONS, metric_id)]

    async def delete(self, metric_id: UUID, *, if_match: Precondition, actor: Actor) -> None:
        """Delete a metric and its layouts. Delete its query too if no other metric uses it."""
        async with self._database.transaction() as tx:
            metric = await _editable(tx, metric_id, if_match)
            await tx.write(_DELETE_METRIC, metric.id)
            await tx.write(_DELETE_UNUSED_QUERY, metric.query_id)
            await audit.record(tx, actor, "metrics.delete", str(metric.id), before=_hash(metric))
        await self._catalog.load()


async def preview(executor: Executor, draft: MetricDraft) -> bytes:
    """The result of SQL that is not stored, with its defaults and a few rows, as JSON."""
    new = NewMetric(sql=draft.sql, title=draft.title, parameters=draft.parameters, window=draft.window)
    return await executor.first_rows(await executor.plan_metric(drafted(new)), PREVIEW_ROWS)


async def trust(database: Database, query_id: str, sql: str | None = None) -> None:
    """Let a query run without validation. `sql` replaces its text or creates the query.

    Raises `NotFound` for an unknown query without `sql`.
    """
    async with database.transaction() as tx:
        if sql is None:
            await _set_trust(tx, query_id, trusted=True)
        else:
            await tx.write(_PUT_TRUSTED, query_id, sql)
        await audit.record(tx, CLI, "queries.trust", query_id)


async def distrust(database: Database, query_id: str) -> None:
    """Validate a query again from now on. Raises `NotFound`."""
    async with database.transaction() as tx:
        await _set_trust(tx, query_id, trusted=False)
        await audit.record(tx, CLI, "queries.distrust", query_id)


async def _set_trust(tx: Transaction, query_id: str, *, trusted: bool) -> None:
    if await tx.write(_TRUST_QUERY, query_id, trusted) == 0:
        raise NotFound(f"There is no query {query_id!r}; store its SQL with `--file`.")


async def _editable(tx: Transaction, metric_id: UUID, if_match: Precondition) -> Metric:
    # Lock the metric alone first: a join that waits for the lock finds no row if the query changed meanwhile.
    await tx.read_one(_HOLD_METRIC, metric_id)
    metric = await _read(tx, metric_id)
    if not metric.is_editable:
        raise NotEditable
    if not if_match.allows(tag(metric)):
        raise PreconditionFailed
    return metric


async def _read(tx: Transaction, metric_id: UUID) -> Metric:
    """Read a metric with its layouts and lock it until the transaction ends."""
    row = await tx.read_one(_LOCK_METRIC, metric_id)
    if row is None:
        raise NotFound(f"There is no metric {metric_id}.")
    items = await tx.read(_LIST_LAYOUTS, metric_id)
    return msgspec.structs.replace(row, layouts=tuple(item.layout() for item in items))


def _hash(metric: Metric) -> str:
    """SHA-256 of the fields that a PATCH can change."""
    state = [
        metric.sql,
        metric.title,
        metric.is_editable,
        metric.fresh_for_s,
        metric.stale_for_s,
        metric.parameters,
        metric.window,
        metric.refresh_every_s,
        metric.layouts,
    ]
    return audit.digest(state)


def _meaning(metric: Metric) -> tuple[object, ...]:
    """The fields that decide whether and how a metric can run."""
    return metric.sql, metric.trusted, metric.parameters, metric.window


async def _put(
    tx: Transaction, before: Metric, after: Metric, layouts: tuple[Layout, ...] | UnsetType
) -> Metric:
    """Store a locked metric. Return the stored row."""
    await tx.write(
        _UPDATE_METRIC,
        before.id,
        await _put_sql(tx, before, after.sql),
        after.title,
        after.is_editable,
        after.fresh_for_s,
        after.stale_for_s,
        after.parameters,
        after.window,
        after.refresh_every_s,
    )
    if layouts is not UNSET:
        await tx.write(_DELETE_LAYOUTS_OF, before.id)
        await place_on_default(tx, before.id, layouts)
    return await _read(tx, before.id)


async def _put_sql(tx: Transaction, metric: Metric, sql: str) -> str:
    """Store changed SQL. Return the id of the metric's query."""
    if sql == metric.sql:
        return metric.query_id
    used = await tx.read_one(_COUNT_METRICS, metric.query_id)
    if used is not None and used.n > 1:
        query_id = str(uuid4())
        await tx.write(_INSERT_QUERY, query_id, sql)
        return query_id
    await tx.write(_UPDATE_QUERY, metric.query_id, sql)
    return metric.query_id


async def _put_origin(
    tx: Transaction, metric: Metric, prompt: str | None, written: Written | None, actor: Actor
) -> None:
    if written is not None:
        await tx.write(_INSERT_ORIGIN, metric.id, metric.version, prompt, written.generator, actor.name)


_Given = TypeVar("_Given", NewMetric, MetricChange)


def _filled(given: _Given, written: Written | None) -> _Given:
    """Fill in what was written for the prompt. The caller's own title wins."""
    if written is None:
        return given
    metric = written.plan.metric
    title = given.title or metric.title
    return msgspec.structs.replace(given, sql=metric.sql, title=title, parameters=metric.parameters)


def drafted(new: NewMetric) -> Metric:
    """A new metric before it is stored, to be validated."""
    return Metric(
        id=DRAFT,
        query_id="",
        sql=new.sql or "",
        trusted=False,
        title=new.title,
        is_editable=new.is_editable,
        fresh_for_s=new.fresh_for_s,
        stale_for_s=new.stale_for_s,
        parameters=new.parameters,
        window=new.window,
        refresh_every_s=new.refresh_every_s,
        version=1,
        updated_at=datetime.now(UTC),
    )


def _applied(metric: Metric, change: MetricChange) -> Metric:
    """The metric with the change applied. Changed SQL is not trusted."""
    fields = {
        name: value
        for name in change.__struct_fields__
        if name not in _PROMPTED and (value := getattr(change, name)) is not UNSET
    }
    trusted = metric.trusted and fields.get("sql", metric.sql) == metric.sql
    return msgspec.structs.replace(metric, **fields, trusted=trusted)
