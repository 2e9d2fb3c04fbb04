"""Rewrite Grafana's macros and variables in the SQL of a Postgres panel."""

import re
from collections.abc import Callable
from datetime import datetime
from typing import Final

from msgspec import Struct

from service.metrics.exchange.plan import Node, NotTaken, Parameter
from service.metrics.exchange.templates import (
    NUMBER,
    Edit,
    Filling,
    Names,
    Reference,
    check_size,
    edited,
    rewrite,
    used_in,
)
from service.sql.lexer import Lexeme, mark_of, tokenize

ALL: Final = "$__all"
_EPOCH: Final = "'1970-01-01 00:00:00+00'"
_POINTS: Final = 200
_NICE_S: Final = (1, 5, 10, 30, 60, 300, 600, 1800, 3600, 10_800, 21_600, 43_200, 86_400, 604_800)
_REFERENCE: Final = re.compile(
    r"""
      \$\{ (?P<braced>\w+) (?: :(?P<form>[^{}$]*+) )? \}
    | \$ (?P<bare>\w+)
    | \[\[ (?P<old>\w+) (?: :(?P<old_form>[^\[\]]*+) )? \]\]
    """,
    re.VERBOSE | re.ASCII,
)
_WIDTH: Final = re.compile(r"([0-9]{1,6})(ms|[smhdwMy])")
_UNITS: Final = {
    "ms": "milliseconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks",
    "M": "months", "y": "years",
}  # fmt: skip
_SECONDS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800, "M": 2.6e6, "y": 3.2e7}
_TRUNCATED: Final = {
    "s": "second",
    "m": "minute",
    "h": "hour",
    "d": "day",
    "w": "week",
    "M": "month",
    "y": "year",
}
_MOMENT: Final = re.compile(r"now(?:-([0-9]{1,6})([smhdwMy]))?(?:/([smhdwMy]))?")
_EPOCH_MS: Final = re.compile(r"[0-9]{10,14}")
_LISTED: Final = frozenset({"", "sqlstring", "singlequote"})
_QUOTED: Final = frozenset({"", "raw", "text"})


class Range(Struct, frozen=True):
    """The range of time that a panel shows at first, as Grafana writes it."""

    start: str
    end: str

    @property
    def seconds(self) -> float:
        found = _MOMENT.fullmatch(self.start)
        return float(found[1]) * _SECONDS[found[2]] if found and found[1] else 86_400.0


class Rewritten(Struct, frozen=True):
    sql: str
    parameters: tuple[Parameter, ...]
    notes: tuple[str, ...]


def rewritten(sql: str, variables: "Variables", shown: Range) -> Rewritten:
    """Raises `NotTaken`."""
    check_size(sql)
    macros = _Macros(variables.pasted(sql), variables, shown)
    sql = rewrite(macros.expanded(), variables.scan, lambda each: variables.fill(each, macros))
    own = [Parameter(f"{part}_date", "date", has_default=True) for part in ("start", "end")]
    own += list(variables.parameters.values())
    return Rewritten(sql, used_in(sql, own), tuple(dict.fromkeys([*macros.notes, *variables.notes])))


class Variables:
    """The variables of a dashboard, and the parameters that one query makes of them."""

    def __init__(self, defined: Node) -> None:
        self._defined = {each["name"].text: each for each in defined if each["name"].text}
        self._names = Names()
        for name in ("start_date", "end_date", "interval"):
            self._names.keep(f"__{name}", name)
        self.parameters: dict[str, Parameter] = {}
        self.notes: list[str] = []

    def pasted(self, sql: str) -> str:
        """The text with constants in their places, as Grafana pastes them everywhere."""
        constants = {name for name, each in self._defined.items() if each["type"].text == "constant"}

        def paste(found: re.Match[str]) -> str:
            name = found["braced"] or found["bare"] or found["old"]
            return self._value(self._defined[name]) if name in constants else found[0]

        return _REFERENCE.sub(paste, sql) if constants else sql

    def scan(self, sql: str, at: int) -> Reference | None:
        found = _REFERENCE.match(sql, at)
        if found is None:
            return None
        name = found["braced"] or found["bare"] or found["old"]
        if name not in self._defined and not name.startswith("__"):
            return None  # Grafana leaves it, too
        return Reference(at, found.end(), name, found["form"] or found["old_form"] or "")

    def fill(self, reference: Reference, macros: "_Macros") -> Filling:
        name, form = reference.name, reference.form
        each = self._defined.get(name)
        if each is None:
            return macros.built_in(name, form)
        kind = each["type"].text
        if kind in {"datasource", "adhoc"}:
            raise NotTaken(f"${name} is a variable of type {kind}")
        if kind == "interval":
            return Filling(f"CAST(:{self.interval(name)} AS text)")
        if each["multi"].value is True or each["includeAll"].value is True:
            return self._list(name, form, each)
        own = self._names.of(name)
        value, options = self._value(each), self._options(each)
        self._put(Parameter(own, values=options, default=value or None, has_default=bool(value)))
        if form in {"sqlstring", "singlequote"}:
            return Filling(f":{own}")
        if form not in _QUOTED:
            raise NotTaken(f"${{{name}:{form}}} has a form that is not known here")
        known = [*options, *([value] if value else [])]
        if known and all(NUMBER.fullmatch(each) for each in known):
            return Filling(f":{own}")
        return Filling(f":{own}", bare="is pasted as a piece of SQL: put it in quotes, or use :sqlstring")

    def interval(self, name: str) -> str:
        """The parameter of an interval variable, with values that Postgres reads."""
        each, own = self._defined[name], self._names.of(name)
        texts = [option["value"].text for option in each["options"]] or each["query"].text.split(",")
        values = [width for text in texts if (width := _postgres_width(text.strip()))]
        if lost := [text.strip() for text in texts if not _postgres_width(text.strip())]:
            self.notes.append(f":{own} does not offer {', '.join(lost)}")
        current = _postgres_width(self._value(each)) or next(iter(values), None)
        self._put(Parameter(own, values=tuple(values), default=current, has_default=current is not None))
        return own

    def kind(self, name: str) -> str:
        each = self._defined.get(name)
        return "" if each is None else each["type"].text

    def named(self, text: str) -> str:
        """The variable that a text is, alone; empty for any other text."""
        found = _REFERENCE.fullmatch(text)
        return (found["braced"] or found["bare"] or found["old"]) if found else ""

    def put_interval(self, default: str) -> str:
        self._put(Parameter("interval", default=default, has_default=True))
        return "interval"

    def _put(self, parameter: Parameter) -> None:
        self.parameters[parameter.name] = parameter

    def _list(self, name: str, form: str, each: Node) -> Filling:
        own = self._names.of(name)
        given = [item.text for item in each["current"]["value"]] or [self._value(each)]
        options = self._options(each)
        chosen = [item for item in given if item and item != ALL]
        takes_all = each["includeAll"].value is True
        if takes_all and each["allValue"].text:
            raise NotTaken(f"${name} pastes {each['allValue'].text[:40]!r} for All, a piece of SQL")
        numeric = [*chosen, *options]
        if form not in _LISTED and not (form == "csv" and numeric and all(map(NUMBER.fullmatch, numeric))):
            raise NotTaken(f"${{{name}:{form}}} has a form that is not known here for several values")
        default = chosen or None
        self._put(
            Parameter(own, array=True, values=options, default=default, has_default=takes_all or bool(chosen))
        )
        return Filling(f":{own}", is_list=True, all_if_null=takes_all)

    def _value(self, each: Node) -> str:
        current = each["current"]["value"]
        text = next((item.text for item in current), "") if current.is_list else current.text
        if not text and each["type"].text in {"constant", "textbox"}:
            return each["query"].text
        return "" if text == ALL else text

    def _options(self, each: Node) -> tuple[str, ...]:
        """The values that a list offers. Those of a query are not its definition."""
        if each["type"].text != "custom":
            return ()
        found = (option["value"].text for option in each["options"])
        return tuple(text for text in found if text and text != ALL)


class _Macros:
    """Expands `$__timeFilter(column)` and its like in a text that the lexer has read."""

    def __init__(self, sql: str, variables: Variables, shown: Range) -> None:
        self._sql = sql
        self._variables = variables
        self._shown = shown
        self._lexemes = tokenize(sql)
        self.notes: list[str] = []

    def expanded(self) -> str:
        edits: list[Edit] = []
        at = 0
        while at < len(self._lexemes) - 2:
            word = self._lexemes[at + 1]
            name = self._sql[word.start : word.end]
            is_macro = self._lexemes[at].text == "$" and name.startswith("__") and word.kind == "word"
            if not (is_macro and mark_of(self._lexemes, at + 2) == "("):
                at += 1
                continue
            last, arguments = self._arguments(at + 2)
            end = self._lexemes[last].end
            expand = _EXPANDED.get(name)
            if expand is None:
                raise NotTaken(f"the macro ${name} is not known here")
            if name == "__timeGroup" and self._sql.startswith(",", end):
                expand = _EXPANDED["__timeGroupAlias"]  # Grafana does so, for old dashboards
            edits.append((self._lexemes[at].start, end, expand(self, arguments)))
            at = last + 1
        return edited(self._sql, edits)

    def _arguments(self, opening: int) -> tuple[int, list[str]]:
        """The index of the closing parenthesis, and the texts between the commas, no comments around."""
        depth = 0
        inner: list[Lexeme] = []
        found: list[str] = []
        for index in range(opening, len(self._lexemes)):
            mark = mark_of(self._lexemes, index)
            depth += (mark in {"(", "["}) - (mark in {")", "]"})
            if depth == 0 or (depth == 1 and mark == ","):
                found.append(self._sql[inner[0].start : inner[-1].end] if inner else "")
                inner = []
            elif index > opening:
                inner.append(self._lexemes[index])
            if depth == 0:
                return index, found
        raise NotTaken("a macro's parenthesis is not closed")

    @property
    def start(self) -> str:
        return f"coalesce(:start_date, {_moment(self._shown.start, is_end=False)})"

    @property
    def end(self) -> str:
        """The end of the range, which is in it: the last day counts as a whole."""
        last = "coalesce(:end_date + time '23:59:59.999999', "
        return f"{last}{_moment(self._shown.end, is_end=True)})"

    def epoch(self, moment: str, factor: str = "") -> str:
        return f"CAST(floor(extract(epoch FROM {moment}){factor}) AS bigint)"

    def built_in(self, name: str, form: str) -> Filling:
        """`$__interval`, `$__from` and `$__to`."""
        if name == "__interval" and not form:
            return Filling(f"CAST(:{self._own_interval()} AS text)")
        if name in {"__from", "__to"}:
            moment = self.start if name == "__from" else self.end
            if form in {"date", "date:iso"}:
                return Filling(moment, is_time=True)
            if form in {"", "date:seconds"}:
                return Filling(self.epoch(moment, "" if form else " * 1000"))
        raise NotTaken(f"${name} is not known here" + (f" in the form {form}" if form else ""))

    def _own_interval(self) -> str:
        wanted = self._shown.seconds / _POINTS
        width = next((each for each in _NICE_S if each >= wanted), _NICE_S[-1])
        return self._variables.put_interval(f"{width} seconds")

    def group(self, arguments: list[str]) -> str:
        column, width = self._grouped(arguments)
        if width in {"1M", "1y"}:
            return f"date_trunc('{_TRUNCATED[width[1]]}', {column})"
        return f"date_bin({self._width(width)}, {column}, {_EPOCH})"

    def epoch_group(self, arguments: list[str]) -> str:
        column, width = self._grouped(arguments)
        seconds = f"extract(epoch FROM {self._width(width)})"
        return f"(floor(({column}) / {seconds}) * {seconds})"

    def _grouped(self, arguments: list[str]) -> tuple[str, str]:
        column, width, *fill = [*_needed(arguments, 2), *arguments[2:]]
        if fill:
            self.notes.append("gaps are not filled: the page shows them as gaps")
        return column, width.strip("'")

    def _width(self, width: str) -> str:
        name = self._variables.named(width)
        if name == "__interval":
            return f"CAST(CAST(:{self._own_interval()} AS text) AS interval)"
        if name and self._variables.kind(name) == "interval":
            return f"CAST(CAST(:{self._variables.interval(name)} AS text) AS interval)"
        if postgres := _postgres_width(width):
            return f"interval '{postgres}'"
        raise NotTaken(f"the width {width[:40]!r} of a time group is not known here")


def _needed(arguments: list[str], count: int) -> list[str]:
    if len(arguments) < count or not all(arguments[:count]):
        raise NotTaken("a macro lacks an argument")
    return arguments[:count]


def _postgres_width(text: str) -> str:
    """A width such as `5m` as Postgres writes it; empty for months, years and any other text."""
    found = _WIDTH.fullmatch(text)
    if found is None or found[2] in {"M", "y"} or not int(found[1]):
        return ""
    return f"{int(found[1])} {_UNITS[found[2]]}"


def _moment(text: str, *, is_end: bool) -> str:
    """A moment such as `now-6h` or `now/d` in SQL. Raises `NotTaken`."""
    if not text:
        return "now()" if is_end else "now() - interval '6 hours'"
    if _EPOCH_MS.fullmatch(text):
        return f"to_timestamp({text} / 1000.0)"
    found = _MOMENT.fullmatch(text)
    if found is None:
        return f"timestamptz '{_absolute(text)}'"
    moment = f"now() - interval '{int(found[1])} {_UNITS[found[2]]}'" if found[1] else "now()"
    if not found[3]:
        return moment
    unit = _TRUNCATED[found[3]]
    begin = f"date_trunc('{unit}', {moment})"
    return f"{begin} + interval '1 {unit}' - interval '1 millisecond'" if is_end else begin


def _absolute(text: str) -> str:
    try:
        return datetime.fromisoformat(text).isoformat()
    except ValueError:
        raise NotTaken(f"the dashboard's time {text[:40]!r} is not known here") from None


def _time_filter(macros: _Macros, arguments: list[str]) -> str:
    (column,) = _needed(arguments, 1)
    return f"({column} >= {macros.start} AND {column} <= {macros.end})"


def _epoch_filter(factor: str) -> Callable[[_Macros, list[str]], str]:
    def expand(macros: _Macros, arguments: list[str]) -> str:
        (column,) = _needed(arguments, 1)
        start, end = (macros.epoch(each, factor) for each in (macros.start, macros.end))
        return f"({column} >= {start} AND {column} <= {end})"

    return expand


_NANO: Final = " * 1000000000"
_EXPANDED: Final[dict[str, Callable[[_Macros, list[str]], str]]] = {
    "__time": lambda _, given: f'{_needed(given, 1)[0]} AS "time"',
    "__timeEpoch": lambda _, given: f'extract(epoch FROM {_needed(given, 1)[0]}) AS "time"',
    "__timeFilter": _time_filter,
    "__timeFrom": lambda macros, _: macros.start,
    "__timeTo": lambda macros, _: macros.end,
    "__timeGroup": lambda macros, given: macros.group(given),
    "__timeGroupAlias": lambda macros, given: f'{macros.group(given)} AS "time"',
    "__unixEpochFilter": _epoch_filter(""),
    "__unixEpochNanoFilter": _epoch_filter(_NANO),
    "__unixEpochFrom": lambda macros, _: macros.epoch(macros.start),
    "__unixEpochTo": lambda macros, _: macros.epoch(macros.end),
    "__unixEpochNanoFrom": lambda macros, _: macros.epoch(macros.start, _NANO),
    "__unixEpochNanoTo": lambda macros, _: macros.epoch(macros.end, _NANO),
    "__unixEpochGroup": lambda macros, given: macros.epoch_group(given),
    "__unixEpochGroupAlias": lambda macros, given: f'{macros.epoch_group(given)} AS "time"',
}
