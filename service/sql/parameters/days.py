"""Locate `:start_date` and `:end_date` in a text, and shift them so that the day counts as a whole.

This needs no tree, so it works for SQL that only Postgres can parse. Days are in the session's time zone.
"""

from typing import Literal

from msgspec import Struct

from service.sql.parameters.lexer import Token

Shift = Literal["none", "last", "next", "before"]
SHIFTS: dict[Shift, str] = {
    "none": "{}",
    "last": "({} + time '23:59:59.999999')",
    "next": "({} + 1)",
    "before": "({} - interval '1 microsecond')",
}
COMPARISONS = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
DAY_TYPES = frozenset({"DATE", "TIMESTAMP", "TIMESTAMPTZ"})
ENDS = frozenset(
    {"", ")", ",", ";", "AND", "OR", "THEN", "WHEN", "ELSE", "END", "GROUP", "HAVING", "ORDER"}
) | {
    *{"LIMIT", "OFFSET", "FETCH", "FOR", "WINDOW", "UNION", "EXCEPT", "INTERSECT", "WHERE", "AS", "IS"},
    *{"JOIN", "LEFT", "RIGHT", "FULL", "INNER", "CROSS", "NATURAL", "RETURNING"},
}
STARTS = frozenset({"(", "AND", "OR", "NOT", "WHERE", "ON", "HAVING", "WHEN", "SELECT", ","})


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


def day_slot(tokens: list[Token], at: int) -> Slot:
    """The slot of the day placeholder at that index.

    Compared directly (also as `:end_date::date`, `CAST(:end_date AS date)`, `DATE(:end_date)`) the operand
    covers the whole given day. In any larger expression the author's arithmetic is unchanged.
    """
    name = tokens[at].text[1:]
    first, last = _operand(tokens, at)
    shift = shift_for(name, _operator(tokens, first, last))
    if shift == "none":
        first = last = at
    return Slot(tokens[first].start, tokens[last].end, name, template=SHIFTS[shift])


def _word(tokens: list[Token], at: int) -> str:
    return tokens[at].word if 0 <= at < len(tokens) else ""


def _operand(tokens: list[Token], at: int) -> tuple[int, int]:
    """Extend a placeholder by the casts to a date or timestamp and the brackets that contain nothing else."""
    first = last = at
    while True:
        before, after = _word(tokens, first - 1), _word(tokens, last + 1)
        if after == "::" and _word(tokens, last + 2) in DAY_TYPES:
            last = _end_of_type(tokens, last + 2)
        elif before == "(" and after == ")":
            caller = _word(tokens, first - 2)
            if caller != "DATE" and caller not in STARTS | {*COMPARISONS, "BETWEEN"}:
                return first, last
            first, last = first - (2 if caller == "DATE" else 1), last + 1
        elif before == "(" and after == "AS" and _word(tokens, first - 2) == "CAST":
            end = _end_of_type(tokens, last + 2)
            if _word(tokens, last + 2) not in DAY_TYPES or _word(tokens, end + 1) != ")":
                return first, last
            first, last = first - 2, end + 1
        else:
            return first, last


def _end_of_type(tokens: list[Token], at: int) -> int:
    phrase = [_word(tokens, at + step) for step in (1, 2, 3)]
    return at + 3 if phrase in (["WITH", "TIME", "ZONE"], ["WITHOUT", "TIME", "ZONE"]) else at


def _operator(tokens: list[Token], first: int, last: int) -> str:
    """The comparison whose right side the operand is (mirrored if it is the left side); empty if none."""
    before, after = _word(tokens, first - 1), _word(tokens, last + 1)
    if after in COMPARISONS:
        return COMPARISONS[after] if before in STARTS else ""
    if before == "BETWEEN":
        return ">=" if after == "AND" else ""
    if after not in ENDS:
        return ""
    if before in COMPARISONS:
        return before
    return "<=" if before == "AND" and _closes_between(tokens, first - 1) else ""


def _closes_between(tokens: list[Token], at: int) -> bool:
    depth = 0
    for index in range(at - 1, -1, -1):
        word = tokens[index].word
        depth += (word in {")", "]"}) - (word in {"(", "["})
        if depth < 0 or (depth == 0 and word in {"AND", "OR", "WHERE", "ON", "WHEN"}):
            return False
        if depth == 0 and word == "BETWEEN":
            return _word(tokens, index + 1) != "SYMMETRIC"
    return False
