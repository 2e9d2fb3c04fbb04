"""Locate `:start_date` and `:end_date` in a text, and shift them so that the day counts as a whole.

This needs no tree, so it works for SQL that only Postgres can parse. Days are in the session's time zone.
"""

from typing import Literal

from msgspec import Struct

from service.sql.lexer import Lexeme, mark_of

Shift = Literal["none", "last", "next", "before"]
SHIFTS: dict[Shift, str] = {
    "none": "{}",
    "last": "({} + time '23:59:59.999999')",
    "next": "({} + 1)",
    "before": "({} - interval '1 microsecond')",
}
COMPARISONS = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
DAY_TYPES = frozenset({"date", "timestamp", "timestamptz"})
ENDS = frozenset(
    {"", ")", ",", ";", "and", "or", "then", "when", "else", "end", "group", "having", "order"}
) | {
    *{"limit", "offset", "fetch", "for", "window", "union", "except", "intersect", "where", "as", "is"},
    *{"join", "left", "right", "full", "inner", "cross", "natural", "returning"},
}
STARTS = frozenset({"(", "and", "or", "not", "where", "on", "having", "when", "select", ","})


class Slot(Struct, frozen=True):
    """A piece of the SQL's text that a bound value replaces.

    The slot is used if a parameter of `on` is given; None means always. `template` has a place for the value.
    """

    start: int
    end: int
    name: str
    on: frozenset[str] | None = None
    template: str = "{}"


def shift_for(name: str, operator: str) -> Shift:
    """How to shift the bound day so that `column <operator> day` includes the whole day."""
    if name == "end_date":
        return "last" if operator == "<=" else "next" if operator == "<" else "none"
    return "before" if operator == ">" else "none"


def day_slot(lexemes: list[Lexeme], at: int) -> Slot:
    """The slot of the day placeholder at that index.

    Compared directly (also as `:end_date::date`, `CAST(:end_date AS date)`, `DATE(:end_date)`) the operand
    covers the whole given day. In any larger expression the author's arithmetic is unchanged.
    """
    name = lexemes[at].text[1:]
    first, last = _operand(lexemes, at)
    shift = shift_for(name, _operator(lexemes, first, last))
    if shift == "none":
        first = last = at
    return Slot(lexemes[first].start, lexemes[last].end, name, template=SHIFTS[shift])


def _operand(lexemes: list[Lexeme], at: int) -> tuple[int, int]:
    """Extend a placeholder by the casts to a date or timestamp and the brackets that contain nothing else."""
    first = last = at
    while True:
        before, after = mark_of(lexemes, first - 1), mark_of(lexemes, last + 1)
        if after == "::" and mark_of(lexemes, last + 2) in DAY_TYPES:
            last = _end_of_type(lexemes, last + 2)
        elif before == "(" and after == ")":
            caller = mark_of(lexemes, first - 2)
            if caller != "date" and caller not in STARTS | {*COMPARISONS, "between"}:
                return first, last
            first, last = first - (2 if caller == "date" else 1), last + 1
        elif before == "(" and after == "as" and mark_of(lexemes, first - 2) == "cast":
            end = _end_of_type(lexemes, last + 2)
            if mark_of(lexemes, last + 2) not in DAY_TYPES or mark_of(lexemes, end + 1) != ")":
                return first, last
            first, last = first - 2, end + 1
        else:
            return first, last


def _end_of_type(lexemes: list[Lexeme], at: int) -> int:
    phrase = [mark_of(lexemes, at + step) for step in (1, 2, 3)]
    return at + 3 if phrase in (["with", "time", "zone"], ["without", "time", "zone"]) else at


def _operator(lexemes: list[Lexeme], first: int, last: int) -> str:
    """The comparison whose right side the operand is (mirrored if it is the left side); empty if none."""
    before, after = mark_of(lexemes, first - 1), mark_of(lexemes, last + 1)
    if after in COMPARISONS:
        return COMPARISONS[after] if before in STARTS else ""
    if before == "between":
        return ">=" if after == "and" else ""
    if after not in ENDS:
        return ""
    if before in COMPARISONS:
        return before
    return "<=" if before == "and" and _closes_between(lexemes, first - 1) else ""


def _closes_between(lexemes: list[Lexeme], at: int) -> bool:
    depth = 0
    for index in range(at - 1, -1, -1):
        word = mark_of(lexemes, index)
        depth += (word in {")", "]"}) - (word in {"(", "["})
        if depth < 0 or (depth == 0 and word in {"and", "or", "where", "on", "when"}):
            return False
        if depth == 0 and word == "between":
            return mark_of(lexemes, index + 1) != "symmetric"
    return False
