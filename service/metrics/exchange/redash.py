"""Read a dashboard or queries as Redash's API gives them."""

import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec
from msgspec import Struct

from service.metrics.exchange.plan import (
    Grid,
    LeftOut,
    Node,
    NotTaken,
    Parameter,
    ParameterKind,
    Place,
    Plan,
    Query,
    expect,
    limited,
    title_of,
)
from service.metrics.exchange.templates import (
    NUMBER,
    Filling,
    Names,
    Reference,
    rewrite,
    used_in,
    with_moving_defaults,
)
from service.metrics.models import Chart

ROW_PX: Final = 50
COLUMNS: Final = 6
WIDE_COLUMNS: Final = 12  # newer releases
_TEMPLATE: Final = re.compile(r"\{\{\{?&?([^{}'\"]*+)\}?\}\}")
_DAYS: Final = re.compile(r"d_last_([0-9]{1,4})_(day|month|hour)s?")
_KINDS: Final[dict[str, ParameterKind]] = {
    "number": "number",
    "date": "date",
    "datetime-local": "timestamp",
    "datetime-with-seconds": "timestamp",
    "date-range": "date",
    "datetime-range": "timestamp",
    "datetime-range-with-seconds": "timestamp",
}
PARTS: Final = ("start", "end")
_UNITS: Final = ("week", "month", "year")
_FRAGMENT: Final = "is pasted as a piece of SQL: put it in quotes, or give it the type Number, in Redash"
_CHARTS: Final[dict[str, Chart]] = {"line": "line", "area": "line", "scatter": "line", "column": "bar"}


class _Defined(Struct, frozen=True):
    """A parameter of a Redash query, as this widget uses it. `name` is its name here."""

    name: str
    type: str
    value: Any
    options: tuple[str, ...]
    joined: Node
    is_fixed: bool = False

    @property
    def kind(self) -> ParameterKind:
        return _KINDS.get(self.type, "text")

    @property
    def is_range(self) -> bool:
        return "-range" in self.type

    @property
    def is_list(self) -> bool:
        return bool(self.joined.fields)


def read(document: Node) -> Plan:
    """The plan of a dashboard, of a query, or of a list of queries. Raises `Stop` for anything else."""
    expect("redash", document)
    if "widgets" in document.fields:
        return _dashboard(document)
    listed = document["results"] if document["results"].is_list else document
    queries: list[Query] = []
    left_out: list[LeftOut] = []
    for each in limited(list(listed) if listed.is_list else [document], left_out):
        title = title_of(each["name"].text, f"Query {each['id'].text}")
        try:
            queries.append(_query(each, title, f"Redash: query {each['id'].text or title}", Node({})))
        except NotTaken as why:
            left_out.append(LeftOut(title, str(why)))
    return Plan("redash", "Queries from Redash", queries, left_out)


def _dashboard(document: Node) -> Plan:
    name = document["slug"].text or document["id"].text
    queries: list[Query] = []
    left_out: list[LeftOut] = []
    widgets = limited(list(document["widgets"]), left_out)
    positions = [widget["options"]["position"] for widget in widgets]
    widest = max((each["col"].number + each["sizeX"].number for each in positions), default=0)
    grid = Grid(WIDE_COLUMNS if widest > COLUMNS else COLUMNS, ROW_PX)
    for widget in widgets:
        drawn, query = widget["visualization"], widget["visualization"]["query"]
        title = title_of(query["name"].text, f"Query {query['id'].text}")
        if drawn["name"].text not in {"", "Table", "Chart", "Counter"}:
            title = title_of(f"{title}: {drawn['name'].text}", title)
        try:
            if not drawn:
                text = title_of(widget["text"].text, "A widget")
                title = title_of(f"{text[:60]}", "Text")
                _refuse("Tally's dashboards have no text tiles" if widget["text"] else "it shows no query")
            key = f"Redash: dashboard {name}, widget {widget['id'].text}, query {query['id'].text}"
            found = _query(query, title, key, widget["options"]["parameterMappings"])
            chart, notes = _chart(drawn)
            place = _place(grid, widget["options"]["position"])
            queries.append(_with(found, place, chart, notes))
        except NotTaken as why:
            left_out.append(LeftOut(title, str(why)))
    return Plan("redash", title_of(document["name"].text, "Dashboard from Redash"), queries, left_out)


def _refuse(why: str) -> None:
    raise NotTaken(why)


def _with(found: Query, place: Place | None, chart: Chart | None, notes: tuple[str, ...]) -> Query:
    return msgspec.structs.replace(found, place=place, chart=chart, notes=(*found.notes, *notes))


def _place(grid: Grid, position: Node) -> Place | None:
    if not position:
        return None
    size = position["sizeX"].number or COLUMNS // 2, position["sizeY"].number or 3
    return grid.place(position["col"].number, position["row"].number, *size)


def _chart(drawn: Node) -> tuple[Chart | None, tuple[str, ...]]:
    kind = drawn["type"].text
    if kind in {"TABLE", "PIVOT", "DETAILS"}:
        return "table", ()
    if kind == "COUNTER":
        return "number", ()
    series = drawn["options"]["globalSeriesType"].text
    if kind == "CHART" and series == "column" and drawn["options"]["series"]["stacking"].text:
        return "stacked", ()
    if kind == "CHART" and series in _CHARTS:
        return _CHARTS[series], ()
    return None, (f"drawn by the shape of its result, not as {(series or kind or 'chart').lower()}",)


def _query(query: Node, title: str, key: str, mappings: Node) -> Query:
    """Raises `NotTaken`."""
    sql = query["query"].text
    if not sql.strip():
        raise NotTaken("it has no SQL text in this file: export it as a user who may see the query")
    defined = {
        name: _defined(each, name, mappings[name])
        for each in query["options"]["parameters"]
        if (name := each["name"].text)
    }
    filled = _Filled(defined)
    sql = with_moving_defaults(rewrite(sql, _scan, filled.fill), filled.moving, filled.days)
    return Query(
        key=key,
        title=title,
        description=query["description"].text,
        sql=sql,
        parameters=used_in(sql, list(filled.parameters.values())),
        notes=tuple(dict.fromkeys(filled.notes)),
    )


def _defined(each: Node, name: str, mapping: Node) -> _Defined:
    options = tuple(line.strip() for line in each["enumOptions"].text.splitlines() if line.strip())
    value: Any = each["value"].value
    if mapping["value"].value is not None:
        value = mapping["value"].value
    shown = mapping["mapTo"].text if mapping["type"].text == "dashboard-level" else ""
    is_fixed = mapping["type"].text == "static-value"
    return _Defined(shown or name, each["type"].text, value, options, each["multiValuesOptions"], is_fixed)


def _scan(sql: str, at: int) -> Reference | None:
    if not sql.startswith("{{", at):
        return None
    found = _TEMPLATE.match(sql, at)
    name = "" if found is None else found[1].strip()
    if found is None or name[:1] in {"", "#", "^", "/", "!", ">"}:
        raise NotTaken(f"{sql[at : at + 30]!r} is a template block, not a parameter")
    return Reference(at, found.end(), name)


class _Filled:
    """The parameters of one query, as its placeholders ask for them."""

    def __init__(self, defined: dict[str, _Defined]) -> None:
        self._defined = defined
        self._names = Names()
        self.parameters: dict[str, Parameter] = {}
        self.moving: dict[str, str] = {}
        self.notes: list[str] = []
        ranges = [name for name, each in defined.items() if each.is_range]
        self._window = ranges[0] if len(ranges) == 1 else None
        for part in PARTS if self._window else ():
            self._names.keep(f"{self._window}.{part}", f"{part}_date")

    @property
    def days(self) -> frozenset[str]:
        """The window's parameters that are days."""
        names = (f"{part}_date" for part in PARTS)
        return frozenset(
            each for each in names if each in self.moving and self.parameters[each].kind == "date"
        )

    def fill(self, reference: Reference) -> Filling:
        name, _, part = reference.name.rpartition(".")
        if reference.name not in self._defined and part in PARTS and (found := self._defined.get(name)):
            return self._range(name, part, found)
        each = self._defined.get(reference.name, _Defined(reference.name, "text", None, (), Node(None)))
        if each.is_range:
            raise NotTaken(f"{{{{ {reference.name} }}}} is a range: it needs .start or .end")
        if each.is_fixed:
            self.notes.append(
                f"{{{{ {reference.name} }}}} is fixed in this widget there; callers may change it here"
            )
        if each.is_list:
            return self._list(each)
        return self._single(each)

    def _range(self, name: str, part: str, each: _Defined) -> Filling:
        own = f"{part}_date" if name == self._window else self._names.of(f"{each.name}_{part}")
        start_and_end = Node(each.value)
        if start_and_end.fields:
            self._put(own, each.kind, start_and_end[part].text)
        else:
            moving = _moving_range(str(each.value), part, each.kind)
            self._put(own, each.kind, None, moving)
        return Filling(f":{own}", is_time=True)

    def _single(self, each: _Defined) -> Filling:
        own = self._names.of(each.name)
        text = Node(each.value).text
        if each.kind in {"date", "timestamp"}:
            self._put(own, each.kind, text if not text.startswith("d_") else None, _moving(text, each.kind))
            return Filling(f":{own}", is_time=True)
        if each.kind == "number":
            self._put(own, "number", text if NUMBER.fullmatch(text) else None)
            return Filling(f":{own}")
        values = [text, *each.options] if text else [*each.options]
        if each.type == "query":
            self.notes.append(f":{own} takes any value: the list of a query's results is not taken")
        if values and all(NUMBER.fullmatch(value) for value in values):
            self._put(own, "text", text or None, values=each.options)
            return Filling(f":{own}")
        self._put(own, "text", text or None, values=each.options)
        return Filling(f":{own}", bare=_FRAGMENT)

    def _list(self, each: _Defined) -> Filling:
        own = self._names.of(each.name)
        quote = each.joined["prefix"].text
        given = [item.text for item in Node(each.value)] or ([Node(each.value).text] if each.value else [])
        is_numeric = all(NUMBER.fullmatch(item) for item in [*given, *each.options])
        if quote not in {"", "'"} or (not quote and not (is_numeric and [*given, *each.options])):
            raise NotTaken(
                f"{{{{ {each.name} }}}} pastes several values without quotes: choose quotation marks there"
            )
        self.parameters[own] = Parameter(
            own, "text", array=True, values=each.options, default=given, has_default=bool(given)
        )
        return Filling(f":{own}", is_list=True)

    def _put(
        self,
        own: str,
        kind: ParameterKind,
        default: str | None,
        moving: str = "",
        values: tuple[str, ...] = (),
    ) -> None:
        if moving:
            self.moving[own] = moving
        text = default.replace(" ", "T") if default and kind == "timestamp" else default
        self.parameters[own] = Parameter(
            own, kind, values=values, default=text or None, has_default=bool(text or moving)
        )


def _moving(value: str, kind: ParameterKind) -> str:
    """The SQL of a default that moves with the clock; empty for any other value."""
    if value == "d_now":
        return "CURRENT_DATE" if kind == "date" else "LOCALTIMESTAMP"
    return "CURRENT_DATE - 1" if value == "d_yesterday" else ""


def _moving_range(value: str, part: str, kind: ParameterKind) -> str:
    found = _DAYS.fullmatch("d_last_1_hour" if value == "d_last_hour" else value)
    if found and found[2] == "hour":
        return f"LOCALTIMESTAMP - interval '{found[1]} hours'" if part == "start" else "LOCALTIMESTAMP"
    days = dict(_moving_days())
    if found:
        past = f"CURRENT_DATE - {found[1]}"
        if found[2] == "month":
            past = f"CAST(CURRENT_DATE - interval '{found[1]} months' AS date)"
        days[value] = (past, "CURRENT_DATE")
    if value not in days:
        return ""
    start, end = days[value]
    if part == "start":
        return start
    return end if kind == "date" else f"({end} + time '23:59:59.999999')"


def _moving_days() -> Iterator[tuple[str, tuple[str, str]]]:
    """The first and the last day of the periods that Redash has a name for."""
    yield "d_today", ("CURRENT_DATE", "CURRENT_DATE")
    yield "d_yesterday", ("CURRENT_DATE - 1", "CURRENT_DATE - 1")
    for unit in _UNITS:
        first = f"date_trunc('{unit}', CURRENT_DATE)"
        this = f"CAST({first} AS date)", f"CAST({first} + interval '1 {unit}' AS date) - 1"
        last = f"CAST({first} - interval '1 {unit}' AS date)", f"CAST({first} AS date) - 1"
        yield f"d_this_{unit}", this
        yield f"d_last_{unit}", last
