"""Find in the syntax tree the conditions that bound a column by constant dates, and these dates.

Only conditions that must all be true count: the AND chains of WHERE, JOIN ... ON, HAVING and FILTER. So
replacing or adding a bound never changes the meaning of the rest of the statement.
"""

import re
from collections.abc import Iterator
from datetime import date, timedelta
from typing import Literal

from msgspec import Struct
from sqlglot import exp

from service.sql.parameters.days import COMPARISONS
from service.sql.words import CLOCK_CALLS

Side = Literal["lower", "upper"]

LITERAL = re.compile(
    r"(?P<day>[0-9]{4}(?P<dash>[-/]?)[0-9]{2}(?P=dash)[0-9]{2})"
    r"(?:[ T](?P<time>[0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,6})?)?)\s*(?P<zone>Z|[+-][0-9:]+)?)?"
)
MIDNIGHT = re.compile(r"[0:.]*")
LAST_SECOND = re.compile(r"23:59:59.*")
LAST_MOMENT = "23:59:59.999999"
INTERVAL = re.compile(r"\s*([0-9]{1,5})\s*(days?|weeks?)?\s*", re.IGNORECASE)
DAYS_IN = {"DAY": 1, "DAYS": 1, "WEEK": 7, "WEEKS": 7}
ONE_DAY = timedelta(days=1)
CLOCKS = (exp.CurrentDate, exp.CurrentTimestamp, exp.Localtimestamp)
OPERATORS: dict[type[exp.Expr], str] = {exp.LT: "<", exp.LTE: "<=", exp.GT: ">", exp.GTE: ">="}


class Limit(Struct, frozen=True):
    """A constant bound: the day shown as its default, and whether giving that day changes nothing (`exact`).

    A time within a day has no default, because its meaning depends on the column's type. `back` is the
    bound's `clock - offset`, whose offset `day_range` replaces; `days` is that offset in days.
    """

    identity: str
    default: str | None = None
    exact: bool = False
    clock: bool = False
    back: exp.Sub | None = None
    days: int | None = None


class WindowBound(Struct, frozen=True):
    """`subject operator operand` in any spelling; `limit` is None if the operand is not a constant date."""

    comparison: exp.Expr
    column: exp.Column
    subject: exp.Expr
    operator: str
    operand: exp.Expr
    limit: Limit | None

    @property
    def side(self) -> Side:
        return "lower" if self.operator in {">", ">="} else "upper"


def windows(tree: exp.Query) -> list[list[WindowBound]]:
    """The bounds of each column in each AND chain, if at least one of them is a constant date."""
    found: list[list[WindowBound]] = []
    for chain in _chains(tree):
        columns: dict[str, list[WindowBound]] = {}
        for condition in chain:
            for bound in _bounds(condition):
                columns.setdefault(_identity(bound.column), []).append(bound)
        found += [bounds for bounds in columns.values() if any(bound.limit for bound in bounds)]
    return found


def bare(node: exp.Expr) -> exp.Expr:
    while isinstance(node, exp.Paren):
        node = node.this
    return node


def _chains(tree: exp.Query) -> Iterator[list[exp.Expr]]:
    for node in tree.find_all(exp.Where, exp.Join, exp.Having):
        root = node.args.get("on") if isinstance(node, exp.Join) else node.this
        todo: list[exp.Expr] = [root] if isinstance(root, exp.Expr) else []
        chain: list[exp.Expr] = []
        while todo:
            condition = bare(todo.pop())
            if isinstance(condition, exp.And):
                todo += [condition.right, condition.left]
            else:
                chain.append(condition)
        yield chain


def _bounds(condition: exp.Expr) -> Iterator[WindowBound]:
    if isinstance(condition, exp.Between):
        column = _subject(condition.this)
        if column is not None and not condition.args.get("symmetric"):
            for operator, operand in ((">=", condition.args["low"]), ("<=", condition.args["high"])):
                limit = _limit(operand, operator, condition.this)
                yield WindowBound(condition, column, condition.this, operator, operand, limit)
    elif operator := OPERATORS.get(type(condition)):
        subject, operand = condition.this, condition.expression
        column = _subject(subject)
        if column is None:
            subject, operand, operator = operand, subject, COMPARISONS[operator]
            column = _subject(subject)
        if column is not None:
            yield WindowBound(
                condition, column, subject, operator, operand, _limit(operand, operator, subject)
            )


def _subject(node: exp.Expr) -> exp.Column | None:
    """The column of `c`, `DATE(c)`, `c::date`, `date_trunc('day', c)` and `c AT TIME ZONE 'z'`."""
    node = bare(node)
    if isinstance(node, exp.Column):
        return node
    if (isinstance(node, exp.Cast) and _is_moment_type(node)) or isinstance(node, exp.Date):
        return _subject(node.this)
    if isinstance(node, exp.AtTimeZone) and isinstance(node.args.get("zone"), exp.Literal):
        return _subject(node.this)
    if isinstance(node, exp.TimestampTrunc) and unit_of(node) == "DAY":
        return _subject(node.this)
    return None


def _is_day(node: exp.Expr) -> bool:
    node = bare(node)
    return isinstance(node, exp.Date) or (isinstance(node, exp.Cast) and node.is_type("date"))


def _whole_days(node: exp.Expr) -> bool:
    return _is_day(node) or isinstance(bare(node), exp.TimestampTrunc)


def _limit(operand: exp.Expr, operator: str, subject: exp.Expr) -> Limit | None:
    literal = bare(operand)
    as_day = _is_day(subject)  # Postgres reads a bare literal as the subject's type
    if isinstance(literal, exp.Date) or (isinstance(literal, exp.Cast) and _is_moment_type(literal)):
        as_day = _is_day(literal)
        literal = bare(literal.this)
    if isinstance(literal, exp.Literal) and literal.is_string:
        return _literal_limit(str(literal.this), operator, as_day=as_day, whole_days=_whole_days(subject))
    if not _is_moment(operand):
        return None
    clock = any(is_clock(node) for node in operand.walk())
    back = _back(operand)
    return Limit(
        identity=f"{operator} {operand.sql('postgres')}",
        clock=clock,
        back=back,
        days=None if back is None else _days(bare(back.expression)),
    )


def day_in(text: str) -> date | None:
    """The day of a date or timestamp in a text, as Postgres reads it; None if it is not certainly one."""
    found = LITERAL.fullmatch(text.strip())
    try:
        return date.fromisoformat(found["day"].replace("/", "-")) if found else None
    except ValueError:
        return None


def _literal_limit(text: str, operator: str, *, as_day: bool, whole_days: bool) -> Limit | None:
    found, day = LITERAL.fullmatch(text.strip()), day_in(text)
    if found is None or day is None:
        return None
    time, zone = ("", "") if as_day else (found["time"] or "", found["zone"] or "")
    try:
        default, exact = _default(day, time, operator, whole_days=whole_days)
    except OverflowError:
        return None
    if zone:
        default, exact = None, False
    return Limit(identity=default or f"{operator} {day} {time} {zone}", default=default, exact=exact)


def _default(day: date, time: str, operator: str, *, whole_days: bool) -> tuple[str | None, bool]:
    """The inclusive day that a literal bound means, if any, and whether the bound covers that day exactly."""
    midnight = MIDNIGHT.fullmatch(time) is not None
    match operator:
        case ">=" if midnight:
            return day.isoformat(), True
        case ">" if midnight:
            return (day + ONE_DAY if whole_days else day).isoformat(), whole_days
        case "<" if midnight:
            return (day - ONE_DAY).isoformat(), True
        case "<=" if midnight or LAST_SECOND.fullmatch(time):
            return day.isoformat(), whole_days or time == LAST_MOMENT
        case _:
            return None, False


def _is_moment(node: exp.Expr) -> bool:
    """Whether a node is a date or timestamp made only of clocks, date literals, intervals and numbers."""
    node = bare(node)
    if is_clock(node):
        return True
    if isinstance(node, exp.Add | exp.Sub):
        return _is_moment(node.this) and _is_offset(node.expression)
    if isinstance(node, exp.AtTimeZone):
        return _is_moment(node.this) and isinstance(node.args.get("zone"), exp.Literal)
    if isinstance(node, exp.Date | exp.TimestampTrunc) or (
        isinstance(node, exp.Cast) and _is_moment_type(node)
    ):
        inner = bare(node.this)
        dated = isinstance(inner, exp.Literal) and inner.is_string and LITERAL.fullmatch(str(inner.this))
        return bool(dated) or _is_moment(inner)
    return False


def is_clock(node: exp.Expr) -> bool:
    named = isinstance(node, exp.Anonymous) and str(node.this).lower() in CLOCK_CALLS
    return isinstance(node, CLOCKS) or named


def _is_offset(node: exp.Expr) -> bool:
    node = bare(node)
    if isinstance(node, exp.Interval):
        return isinstance(node.this, exp.Literal)
    if isinstance(node, exp.MakeInterval):
        return all(isinstance(each, exp.Kwarg) and _is_number(each.expression) for each in node.args.values())
    if isinstance(node, exp.Cast):
        return node.is_type("interval") and isinstance(node.this, exp.Literal)
    if isinstance(node, exp.Mul):
        return _is_offset(node.this) and _is_offset(node.expression)
    return _is_number(node)


def _is_number(node: object) -> bool:
    return isinstance(node, exp.Literal) and not node.is_string


def _back(operand: exp.Expr) -> exp.Sub | None:
    """The `clock - offset` of a bound, if nothing but casts and truncations to days is around it."""
    node = operand
    while isinstance(node, exp.Paren | exp.Cast | exp.Date | exp.TimestampTrunc):
        if isinstance(node, exp.TimestampTrunc) and unit_of(node) != "DAY":
            return None
        node = node.this
    if not isinstance(node, exp.Sub):
        return None
    clock = node.this
    while isinstance(clock, exp.Paren | exp.Cast | exp.Date | exp.AtTimeZone | exp.TimestampTrunc):
        if isinstance(clock, exp.TimestampTrunc) and unit_of(clock) != "DAY":
            return None
        clock = clock.this
    return node if is_clock(clock) else None


def _days(offset: exp.Expr) -> int | None:
    """The days of `INTERVAL '30' DAY`, `'2 weeks'::interval` and `30`; None for months, hours and sums."""
    if isinstance(offset, exp.Literal):
        return int(offset.this) if not offset.is_string and str(offset.this).isdecimal() else None
    if isinstance(offset, exp.MakeInterval) and [*offset.args] == ["day"]:
        return _days(offset.args["day"].expression)
    if not isinstance(offset, exp.Interval | exp.Cast) or not isinstance(offset.this, exp.Literal):
        return None
    found = INTERVAL.fullmatch(str(offset.this.this))
    unit = (found[2] if found else None) or (unit_of(offset) if isinstance(offset, exp.Interval) else "")
    return int(found[1]) * DAYS_IN[unit.upper()] if found and unit.upper() in DAYS_IN else None


def unit_of(node: exp.Expr) -> str:
    unit = node.args.get("unit")
    return unit.name.upper() if isinstance(unit, exp.Expr) else ""


def _is_moment_type(node: exp.Cast) -> bool:
    return node.is_type("date", "timestamp", "timestamptz")


def _identity(column: exp.Column) -> str:
    return ".".join(
        f'"{part.name}"' if part.args.get("quoted") else part.name.lower() for part in column.parts
    )
