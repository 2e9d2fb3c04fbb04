"""Store what a plan asks for: each metric by itself, with all checks of a metric that a caller creates."""

import sys
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import msgspec
from msgspec import Raw, Struct

from service.audit import Actor
from service.database.gateway import Database
from service.database.queries import SqlFile
from service.errors import DatabaseUnavailable, FieldError, InvalidInput, Problem
from service.http import bodies
from service.http.preconditions import ANY_STATE
from service.metrics.catalog import Catalog, Dashboard
from service.metrics.dashboards import change_tile, create_dashboard, put_layouts
from service.metrics.exchange.plan import Parameter, Plan, Query
from service.metrics.execute import Executor
from service.metrics.models import (
    DashboardId,
    DashboardPlace,
    Declarations,
    Metric,
    MetricChange,
    NewDashboard,
    NewMetric,
    Place,
    TileChange,
)
from service.metrics.store import Editor, drafted
from service.sql.parameters import Parameter as Known

State = Literal["added", "updated", "unchanged", "differs", "refused", "would add", "would update"]
REFUSED: Final = frozenset({"differs", "refused"})
SIZE: Final = "lg"
_TEXTS: Final = frozenset({"", "text", "varchar", "bpchar", "name", "unknown"})
_DIFFERS: Final = "the stored metric differs from the file: --replace takes the file's"
_Declared: TypeAlias = dict[str, dict[str, Any]]


class Outcome(Struct, frozen=True):
    """What became of one query, or of something else in the file."""

    state: State
    title: str
    id: str | None = None
    why: str | None = None
    notes: tuple[str, ...] = ()


class _Turn(Struct, frozen=True):
    turn: str


_TURN_S: Final = 600.0
"""How long a run waits for others. Storing a dashboard takes seconds."""
_TAKE_TURN: Final = SqlFile(Path(__file__).parents[1] / "queries.sql").rows("take_turn_to_add", _Turn)
_UNTRIED: Final = Outcome("refused", "")


class Options(Struct, frozen=True):
    """`dashboard` is the id of the dashboard, by default one made from its title."""

    dashboard: str | None = None
    replace: bool = False
    dry_run: bool = False


class _Draft(Struct, frozen=True):
    """A query that can be stored. `notes` tell what is not as in the other tool."""

    query: Query
    new: NewMetric
    notes: tuple[str, ...]


class Taker:
    """Takes over dashboards. A run that is repeated, or goes on after a broken one, stores nothing twice.

    Runs on one database take turns, so that two of the same file store each metric once.
    """

    def __init__(
        self, database: Database, catalog: Catalog, executor: Executor, editor: Editor, actor: Actor
    ) -> None:
        self._database = database
        self._catalog = catalog
        self._executor = executor
        self._editor = editor
        self._actor = actor

    async def take(self, plan: Plan, options: Options) -> tuple[str | None, list[Outcome]]:
        """The id of the dashboard, None if there is none, and an outcome for each part of the file."""
        plan = msgspec.structs.replace(plan, queries=_distinct(plan.queries))
        outcomes: dict[str, Outcome] = {query.origin: _UNTRIED for query in plan.queries}
        drafts: list[_Draft] = []
        for query in plan.queries:
            try:
                drafts.append(await self._drafted(query))
            except DatabaseUnavailable:
                raise
            except Problem as problem:
                outcomes[query.origin] = _refused(query, problem)
        if options.dry_run:
            board_id = await self._store(plan, drafts, outcomes, options)
        else:
            async with self._database.transaction(timeout_s=_TURN_S) as tx:
                await tx.read(_TAKE_TURN)  # the transaction holds it: others wait until all is stored
                await self._catalog.load()  # with what those before have stored
                board_id = await self._store(plan, drafts, outcomes, options)
        left_out = [Outcome("refused", each.title, why=each.why) for each in plan.left_out]
        return board_id, [*outcomes.values(), *left_out]

    async def _store(
        self, plan: Plan, drafts: list[_Draft], outcomes: dict[str, Outcome], options: Options
    ) -> str | None:
        """Store the drafts and note their outcomes. Return the id of the dashboard, if there is one."""
        board = self._find(plan, _checked(options.dashboard))
        if drafts and board is None and not options.dry_run:
            new = NewDashboard(plan.title, options.dashboard)
            board = await create_dashboard(self._database, self._catalog, new, self._actor)
        known = {} if board is None else {_key(metric): metric for metric in board.metrics}
        below = 0 if known.keys() & _keys(plan) else _bottom(board)
        for draft in drafts:
            metric = known.get(draft.query.origin)
            try:
                if metric is not None:
                    outcome = await self._repeated(draft, metric, options)
                else:
                    outcome = await self._added(draft, board, below, options)
            except DatabaseUnavailable:
                raise
            except Problem as problem:
                outcome = _refused(draft.query, problem)
            outcomes[draft.query.origin] = outcome
        if board is not None and options.replace and not options.dry_run:
            await self._replace_places(board.id, plan)
        return None if board is None else board.id

    def _find(self, plan: Plan, wanted: str | None) -> Dashboard | None:
        """The dashboard of this id, or the one that holds metrics of this plan already."""
        boards = self._catalog.dashboards(None, sys.maxsize - 1)
        if wanted is not None:
            return next((board for board in boards if board.id == wanted), None)
        keys = _keys(plan)
        return next((board for board in boards if keys & {_key(metric) for metric in board.metrics}), None)

    async def _drafted(self, query: Query) -> _Draft:
        """Declare defaults with the types that Postgres finds, so that they mean what they meant pasted."""
        own = {
            each.name: {"type": each.kind}
            for each in query.parameters
            if each.kind != "date" and each.name in {"start_date", "end_date"}
        }
        known: dict[str, Known] = {}
        refusal: Problem | None = None
        try:
            known = await self._planned(query, own)
        except DatabaseUnavailable:
            raise
        except Problem as problem:
            refusal = problem
        tries: list[_Declared] = []
        if refusal is None:
            tries.append({each.name: _declared(each, known.get(each.name)) for each in query.parameters})
        tries.append({each.name: _declared(each, None) for each in query.parameters})
        tries.append({each.name: _declared(_without_default(each), None) for each in query.parameters})
        for declared in tries if query.parameters else []:
            needed = {name: each for name, each in (own | declared).items() if each}
            try:
                await self._planned(query, needed)
            except DatabaseUnavailable:
                raise
            except Problem as problem:
                refusal = refusal or problem
            else:
                return self._draft(query, needed)
        if refusal is not None and not known:
            raise refusal
        return self._draft(query, own)

    def _draft(self, query: Query, declared: _Declared) -> _Draft:
        notes = [
            f"the default of :{each.name} is not kept"
            for each in query.parameters
            if each.default is not None and declared.get(each.name, {}).get("default") is None
        ]
        return _Draft(query, _new(query, declared), (*query.notes, *notes))

    async def _planned(self, query: Query, declared: _Declared) -> dict[str, Known]:
        plan = await self._executor.plan_metric(drafted(_new(query, declared)))
        return {each.name: each for each in plan.template.parameters}

    async def _added(self, draft: _Draft, board: Dashboard | None, below: int, options: Options) -> Outcome:
        if options.dry_run:
            return Outcome("would add", draft.query.title, notes=draft.notes)
        assert board is not None, "it was created for the drafts"
        place = draft.query.place
        at = DashboardPlace(board.id)
        if place is not None:
            at = DashboardPlace(board.id, place.x, place.y + below, place.w, place.h)
        new = msgspec.structs.replace(draft.new, dashboards=(at,))
        metric, _, _ = await self._editor.create(new, self._actor)
        await self._draw(board.id, metric, draft.query)
        return Outcome("added", draft.query.title, str(metric.id), notes=draft.notes)

    async def _draw(self, board_id: str, metric: Metric, query: Query) -> None:
        if query.chart is not None:
            change = TileChange(query.chart)
            await change_tile(self._database, self._catalog, (board_id, metric.id), change, self._actor)

    async def _repeated(self, draft: _Draft, metric: Metric, options: Options) -> Outcome:
        """A metric that an earlier run stored."""
        title, new = draft.query.title, draft.new
        is_same = (metric.sql, metric.title) == (new.sql, new.title)
        if is_same and _decoded(metric.parameters) == _decoded(new.parameters):
            return Outcome("unchanged", title, str(metric.id), notes=draft.notes)
        if not options.replace:
            return Outcome("differs", title, str(metric.id), _DIFFERS)
        if options.dry_run:
            return Outcome("would update", title, str(metric.id), notes=draft.notes)
        assert new.sql is not None, "every draft has SQL"
        change = MetricChange(sql=new.sql, title=new.title, parameters=new.parameters)
        await self._editor.change(metric.id, change, if_match=ANY_STATE, actor=self._actor)
        return Outcome("updated", title, str(metric.id), notes=draft.notes)

    async def _replace_places(self, board_id: str, plan: Plan) -> None:
        """Give the plan's metrics the places and charts of the file. All others stay where they are."""
        board = self._catalog.dashboard(board_id)
        queries = {query.origin: query for query in plan.queries}
        wanted = {metric.id: queries[key] for metric in board.metrics if (key := _key(metric)) in queries}
        layouts: dict[str, list[Place]] = {}
        for item in board.places:
            place = Place(item.metric_id, item.x, item.y, item.w, item.h, item.static)
            found = wanted.get(item.metric_id)
            if item.breakpoint == SIZE and found is not None and (own := found.place) is not None:
                place = Place(item.metric_id, own.x, own.y, own.w, own.h, item.static)
            layouts.setdefault(item.breakpoint, []).append(place)
        await put_layouts(self._database, self._catalog, board_id, layouts, self._actor)
        for metric in board.metrics:
            if (query := wanted.get(metric.id)) and query.chart != board.charts.get(metric.id):
                await self._draw(board_id, metric, query)


def _new(query: Query, declared: _Declared) -> NewMetric:
    parameters = {name: Raw(bodies.encode(each)) for name, each in declared.items()}
    return NewMetric(sql=query.commented, title=query.title, parameters=parameters)


def _declared(each: Parameter, known: Known | None) -> dict[str, Any]:
    """The declaration of a parameter; empty if it needs none, or if its type cannot be declared."""
    if not each.has_default and not each.values and not each.array:
        return {} if known or each.kind == "text" else {"type": each.kind}
    array = each.array or (known is not None and known.array)
    default: dict[str, Any] = {"default": each.default} if each.has_default else {}
    further = default | ({"array": True} if array else {})
    if each.values:
        return {"type": "enum", "values": list(dict.fromkeys(each.values))} | further
    if known is None:
        return {"type": each.kind} | further
    is_text = known.postgres_type.removesuffix("[]") in _TEXTS
    if known.type == "text" and not is_text:  # such as an interval
        return {}
    return {"type": each.kind if is_text else known.type} | further


def _distinct(queries: list[Query]) -> list[Query]:
    """Number those of the same origin, such as panels without an id, so that a second run finds each."""
    seen: dict[str, int] = {}
    found: list[Query] = []
    for query in queries:
        seen[query.origin] = number = seen.get(query.origin, 0) + 1
        found.append(query if number == 1 else msgspec.structs.replace(query, key=f"{query.key} ({number})"))
    return found


def _without_default(each: Parameter) -> Parameter:
    """Callers have to give it, unless it may be null."""
    return each if each.default is None else msgspec.structs.replace(each, default=None, has_default=False)


def _checked(dashboard_id: str | None) -> str | None:
    try:
        return msgspec.convert(dashboard_id, DashboardId | None)
    except msgspec.ValidationError:
        wrong = "has 1 to 64 of the characters a-z, 0-9 and -"
        raise InvalidInput(f"The id of a dashboard {wrong}.", errors=(FieldError("id", wrong),)) from None


def _refused(query: Query, problem: Problem) -> Outcome:
    wrong = "; ".join(each.message for each in problem.errors)
    is_general = problem.detail == type(problem).__doc__
    return Outcome("refused", query.title, why=wrong if wrong and is_general else problem.detail)


def _key(metric: Metric) -> str:
    """The first line of the SQL, which names the origin of a metric that was taken over."""
    return metric.sql.partition("\n")[0]


def _keys(plan: Plan) -> set[str]:
    return {query.origin for query in plan.queries}


def _bottom(board: Dashboard | None) -> int:
    places = () if board is None else board.places
    return max((each.y + each.h for each in places if each.breakpoint == SIZE), default=0)


def _decoded(declared: Declarations) -> dict[str, Any]:
    return {name: bodies.decode_exact(bytes(each)) for name, each in declared.items()}
