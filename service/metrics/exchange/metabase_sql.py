"""Rewrite Metabase's variables, field filters and optional parts in the SQL of a question."""

import re
from calendar import monthrange
from collections.abc import Iterator, Mapping
from typing import Final

from msgspec import Struct

from service.database.queries import quoted
from service.metrics.exchange.plan import Node, NotTaken, Parameter, ParameterKind
from service.metrics.exchange.templates import (
    Edit,
    Filling,
    Names,
    Reference,
    check_size,
    edited,
    rewrite,
    used_in,
)
from service.sql.lexer import mark_of, tokenize

_TAG: Final = re.compile(r"\{\{([^{}]*+)\}\}")
_DAY: Final = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
_ONE_DAY: Final = re.compile(_DAY)
_MONTH: Final = re.compile(r"([12][0-9]{3})-(0[1-9]|1[0-2])")
_QUARTER: Final = re.compile(r"Q([1-4])-([12][0-9]{3})")
_BETWEEN_DAYS: Final = re.compile(rf"({_DAY})?~({_DAY})?")
_PAST: Final = re.compile(r"past([0-9]{1,4})(day|week|month|quarter|year)s(~?)")
_THIS: Final = re.compile(r"this(day|week|month|quarter|year)")
_PLAIN: Final = re.compile(r'(?:[A-Za-z_][A-Za-z0-9_]*|"[^"]+")(?:\.(?:[A-Za-z_][A-Za-z0-9_]*|"[^"]+"))*')
_KINDS: Final[dict[str, ParameterKind]] = {"number": "number", "date": "date"}
_ONE_OF: Final = frozenset({"=", "category", "id", "city", "state", "zip_code", "country"})
_COMPARED: Final[dict[str, str]] = {
    "contains": "strpos(lower({0}), lower({1})) > 0",
    "does-not-contain": "strpos(lower({0}), lower({1})) = 0",
    "starts-with": "starts_with(lower({0}), lower({1}))",
    "ends-with": "right(lower({0}), length({1})) = lower({1})",
    ">=": "{0} >= {1}",
    "<=": "{0} <= {1}",
}
_SEVERAL: Final = {"!=": "<> ALL"} | dict.fromkeys(_ONE_OF, "= ANY")
_CONDITIONS: Final = frozenset({"and", "where", "having", "on"})
_BEGINNINGS: Final = _CONDITIONS | {"or", "limit", "offset"}
_BEFORE: Final = "... and"
"""What stands for the word of an optional part that ends with its AND, before the next condition."""


class Rewritten(Struct, frozen=True):
    sql: str
    parameters: tuple[Parameter, ...]
    notes: tuple[str, ...]


def rewritten(sql: str, tags: "Tags") -> Rewritten:
    """Raises `NotTaken`."""
    check_size(sql)
    tags.outside = _names_outside(sql)
    found = rewrite(_with_optional_parts(sql, tags), _scan, tags.fill)
    return Rewritten(found, used_in(found, list(tags.parameters.values())), tuple(tags.notes))


class Tags:
    """The template tags of a question, and the parameters that they become.

    `fields` are the names of columns by id, `filters` the dashboard's filters by the tags that they set.
    """

    def __init__(self, tags: Node, fields: Mapping[str, str], filters: Mapping[str, Node]) -> None:
        self._tags = {name: Node(value) for name, value in tags.fields.items()}
        self._fields = fields
        self._filters = filters
        self._names = Names()
        self.outside: frozenset[str] = frozenset()
        """The tags that stand outside of optional parts, too: callers have to give them."""
        self.parameters: dict[str, Parameter] = {}
        self.notes: list[str] = []
        dates = [name for name in self._tags if self.is_field(name) and self._widget(name)[0] == "date"]
        ranges = [name for name in dates if self._widget(name)[1] != "single"]
        self._window = ranges[0] if len(ranges) == 1 else None
        for part in ("start", "end") if self._window else ():
            self._names.keep(f"{self._window}.{part}", f"{part}_date")

    def is_field(self, name: str) -> bool:
        """Whether a tag is a field filter: a whole condition, which may be none."""
        return self._tags.get(name, Node(None))["type"].text == "dimension"

    def fill(self, reference: Reference) -> Filling:
        name = reference.name
        tag = self._tags.get(name, Node(None))
        kind = tag["type"].text
        if name.startswith("#") or kind == "card":
            raise NotTaken(f"{{{{{name}}}}} is another question: write its SQL in its place")
        if name.lower().startswith("snippet:") or kind == "snippet":
            raise NotTaken(
                f"{{{{{name}}}}} is a snippet, which is not in this file: write its SQL in its place"
            )
        if kind not in {"", "text", "number", "date", "boolean", "dimension"}:
            raise NotTaken(f"{{{{{name}}}}} is a {kind} variable, which is not known here")
        if kind == "dimension":
            return Filling(self._condition(name, tag))
        own = self._names.of(self._shown(name))
        default = self._default(name, tag)
        several = [item.text for item in default if item.text]
        if len(several) > 1:  # they are pasted with commas between
            self._put(own, default=several, may_lack=name not in self.outside, array=True)
            return Filling(f":{own}", is_list=True)
        first = next(iter(default), default)
        text = first.text if not isinstance(first.value, bool) else str(first.value).lower()
        may_lack = name not in self.outside
        self._put(own, _KINDS.get(kind, "text"), text or None, may_lack=may_lack)
        return Filling(f":{own}", is_time=kind == "date")

    def _shown(self, name: str) -> str:
        """The name of the dashboard's filter, so that all tiles take one name."""
        return self._filters.get(name, Node(None))["slug"].text or name

    def _default(self, name: str, tag: Node) -> Node:
        given = self._filters.get(name, Node(None))["default"]
        return tag["default"] if given.value is None else given

    def _widget(self, name: str) -> tuple[str, str]:
        text = self._tags[name]["widget-type"].text
        group, _, operator = text.partition("/")
        return group, operator or group

    def _put(
        self,
        own: str,
        kind: ParameterKind = "text",
        default: str | list[str] | None = None,
        *,
        may_lack: bool,
        array: bool = False,
    ) -> None:
        self.parameters[own] = Parameter(
            own, kind, array, default=default, has_default=may_lack or default is not None
        )

    def _condition(self, name: str, tag: Node) -> str:
        group, operator = self._widget(name)
        column = self._column(name, tag)
        default = self._default(name, tag)
        if group == "date":
            return self._period(name, operator, column, default)
        own = self._names.of(self._shown(name))
        given = [item.text for item in default if item.text] or ([default.text] if default.text else [])
        if operator in _SEVERAL:
            self._put(own, default=given or None, may_lack=True, array=True)
            return f"(:{own} IS NULL OR {column} {_SEVERAL[operator]}(:{own}))"
        if operator in _COMPARED:
            self._put(own, default=next(iter(given), None), may_lack=True)
            return f"(:{own} IS NULL OR {_COMPARED[operator].format(column, f':{own}')})"
        raise NotTaken(
            f"{{{{{name}}}}} is a field filter of type {group}/{operator}, which is not known here"
        )

    def _period(self, name: str, operator: str, column: str, default: Node) -> str:
        if operator == "single":
            own = self._names.of(self._shown(name))
            self._put(own, "date", default.text or None, may_lack=True)
            return f"(:{own} IS NULL OR ({column} >= :{own} AND {column} < :{own} + 1))"
        if name == self._window:
            start, end = "start_date", "end_date"
        else:
            start, end = (self._names.of(f"{self._shown(name)}_{part}") for part in ("start", "end"))
        found = _days(default.text)
        first, last = found or (None, None)
        for own, day in ((start, first), (end, last)):
            self._put(own, "date", day, may_lack=True)
        moving = _moving(default.text)
        if moving:
            begin, until = f"coalesce(:{start}, {moving[0]})", f"coalesce(:{end}, {moving[1]})"
            return f"({column} >= {begin} AND {column} < {until} + 1)"
        if default.text and not found:
            self.notes.append(f"the default {default.text[:40]!r} of {{{{{name}}}}} is not kept")
        lower = f"(:{start} IS NULL OR {column} >= :{start})"
        return f"({lower} AND (:{end} IS NULL OR {column} < :{end} + 1))"

    def _column(self, name: str, tag: Node) -> str:
        """The column of a field filter, as far as the file names it. Raises `NotTaken`."""
        alias = tag["alias"].text
        if alias and _PLAIN.fullmatch(alias):
            return alias
        parts = [*tag["dimension"]]
        field = next((part for part in parts[1:] if not part.fields), Node(None))
        path = [part.text for part in field]
        found = path[-1] if path else self._fields.get(field.text, "")
        if not found and isinstance(field.value, str):
            found = field.value
        if not found or "\0" in found:
            raise NotTaken(f"{{{{{name}}}}} is a field filter whose column this file does not name")
        return quoted(found)


def _scan(sql: str, at: int) -> Reference | None:
    if not sql.startswith("{{", at):
        return None
    found = _TAG.match(sql, at)
    name = "" if found is None else found[1].strip()
    if found is None or not name:
        raise NotTaken(f"{sql[at : at + 30]!r} is no variable")
    if name.startswith("#"):
        raise NotTaken(f"{found[0][:60]} is another question: write its SQL in its place")
    if name.lower().startswith("snippet:"):
        raise NotTaken(f"{found[0][:60]} is a snippet, which is not in this file: write its SQL in its place")
    return Reference(at, found.end(), name)


def _optional_parts(sql: str) -> Iterator[tuple[int, int]]:
    """The first and the last index of the lexemes of each `[[ ... ]]`. Raises `NotTaken` without an end."""
    lexemes = tokenize(sql)

    def twice(at: int, mark: str) -> bool:
        near = lexemes[at : at + 2]
        return [each.text for each in near] == [mark, mark] and near[0].end == near[1].start

    at = 0
    while at < len(lexemes):
        if not twice(at, "["):
            at += 1
            continue
        last = next((i for i in range(at + 2, len(lexemes)) if twice(i, "]")), None)
        if last is None:
            raise NotTaken("an optional part, [[ ]], has no end")
        yield at, last + 1
        at = last + 2


def _names_outside(sql: str) -> frozenset[str]:
    lexemes = tokenize(sql)
    parts = [(lexemes[first].start, lexemes[last].end, "") for first, last in _optional_parts(sql)]
    return frozenset(_names_in(edited(sql, parts)))


def _names_in(sql: str) -> list[str]:
    """The tags of a text, each once. Those in comments are none."""
    pieces: list[str] = []
    at = 0
    for lexeme in tokenize(sql):
        gap = sql[at : lexeme.start]
        pieces += [gap if gap.isspace() else " " * bool(gap), sql[lexeme.start : lexeme.end]]
        at = lexeme.end
    return list(dict.fromkeys(found[1].strip() for found in _TAG.finditer("".join(pieces))))


def _with_optional_parts(sql: str, tags: Tags) -> str:
    """The text with each optional part as a condition that holds while its variables are null."""
    lexemes = tokenize(sql)
    edits: list[Edit] = []
    for first, last in _optional_parts(sql):
        inner = lexemes[first + 2 : last - 1]
        if not inner:
            raise NotTaken("an optional part, [[ ]], is empty")
        word = mark_of(inner, 0)
        begin, end = inner[0].end, inner[-1].end  # without comments around, which would hide what follows
        if word not in _BEGINNINGS and mark_of(inner, len(inner) - 1) == "and" and len(inner) > 1:
            word, begin, end = _BEFORE, inner[0].start, inner[-2].end
        text = sql[begin:end]
        used = _names_in(text)
        variables = [name for name in used if not tags.is_field(name)]
        if not used:
            raise NotTaken("an optional part, [[ ]], has no variable")
        depth = 0
        for at in range(len(inner)):
            mark = mark_of(inner, at)
            if mark == "[" and mark_of(inner, at + 1) == "[" and inner[at].end == inner[at + 1].start:
                raise NotTaken("an optional part, [[ ]], stands in another one")
            depth += (mark in {"(", "["}) - (mark in {")", "]"})
            if at and depth == 0 and mark == "or":
                raise NotTaken("an optional part, [[ ]], has OR in it: put its condition in parentheses")
        edits.append((lexemes[first].start, lexemes[last].end, _optional(word, text, variables, used)))
    return edited(sql, edits)


def _optional(word: str, text: str, variables: list[str], used: list[str]) -> str:
    condition = text.strip()
    missing = "".join(f"{{{{{name}}}}} IS NULL OR " for name in variables)
    if word == _BEFORE:
        return f"({missing}({condition})) AND" if missing else f"{condition} AND"
    if word in _CONDITIONS:
        return f"{word.upper()} ({missing}({condition}))" if missing else f"{word.upper()} {condition}"
    if word == "or" and variables == used:
        present = "".join(f"{{{{{name}}}}} IS NOT NULL AND " for name in variables)
        return f"OR ({present}({condition}))"
    if word in {"limit", "offset"} and _TAG.fullmatch(condition):
        return f"{word.upper()} {condition}"  # null means none
    raise NotTaken(f"an optional part, [[ ]], that begins with {word or 'no word'!r} is not known here")


def _days(text: str) -> tuple[str | None, str | None] | None:
    """The first and the last day of a fixed period: days, a month, or a quarter (`Q2-2025`)."""
    if found := _BETWEEN_DAYS.fullmatch(text):
        return found[1], found[2]
    if found := _ONE_DAY.fullmatch(text):
        return text, text
    if found := _MONTH.fullmatch(text):
        year, first, last = found[1], int(found[2]), int(found[2])
    elif found := _QUARTER.fullmatch(text):
        year, last = found[2], int(found[1]) * 3
        first = last - 2
    else:
        return None
    return f"{year}-{first:02}-01", f"{year}-{last:02}-{monthrange(int(year), last)[1]:02}"


def _moving(text: str) -> tuple[str, str] | None:
    """The first and the last day of a period that moves with the clock, such as `past30days`."""
    if found := _THIS.fullmatch(text):
        first = f"date_trunc('{found[1]}', CURRENT_DATE)"
        return f"CAST({first} AS date)", f"CAST({first} + {_interval(1, found[1])} AS date) - 1"
    if not (found := _PAST.fullmatch(text)):
        return None
    first = f"date_trunc('{found[2]}', CURRENT_DATE)"
    last = "CURRENT_DATE" if found[3] else f"CAST({first} AS date) - 1"
    return f"CAST({first} - {_interval(int(found[1]), found[2])} AS date)", last


def _interval(count: int, unit: str) -> str:
    return f"interval '{count * 3} months'" if unit == "quarter" else f"interval '{count} {unit}s'"
