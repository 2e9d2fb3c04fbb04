"""The rest of a statement beside its window: whether anything in it could speak of the same period.

What can bring a date into a statement is a string, a number, an interval, the clock, or a function whose
inside is not known. Each of these is suspected unless it stands where it surely means no period: a threshold
on how long something took, a step of rounding, a position, a time of day.
"""

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from sqlglot import exp

from service.sql.parameters.bounds import bare
from service.sql.parameters.nodes import (
    AGES,
    CALENDAR_NAMES,
    COMPARED,
    COMPARISONS,
    CONSTANT_CALLS,
    CONSTANT_NODES,
    DIGITS_PATTERN,
    MATCHES,
    SCALING,
    TEXT_CALL_NAMES,
    TEXT_CALLS,
    TEXTS,
    context_of,
    derived,
    divisors,
    ends_own_unit,
    factor_of,
    holds,
    in_projections,
    is_calendar_part,
    is_duration,
    is_of_rows,
    is_special,
    ranks,
    tells_time,
    uncast,
)
from service.sql.parameters.period import Period, interval_lengths, is_coded, number_of
from service.sql.validation.lists import FUNCTIONS

# What turns seconds, minutes or hours into another unit.
CONVERSIONS: Final = frozenset({24.0, 60.0, 1000.0, 1440.0, 3600.0, 86_400.0, 604_800.0, 1e6, 3.6e6, 8.64e7})
UNKNOWN_CALL: Final = "a function that may know dates"
QUANTIFIERS: Final = frozenset({"all", "any", "some"})
LAST_HOUR: Final = 23  # of `generate_series(0, 23)`, the hours of a day
# What hands on a constant as it stands.
SHOWING: Final = (exp.Func, exp.Alias, exp.Select, exp.Tuple)
PERCENT: Final = frozenset({100.0, 1000.0})


# A table or partition whose name holds a year, as orders_2025_02.
PARTITION: Final = re.compile(r"(?<![0-9])(?:19|20)[0-9]{2}(?:0[1-9]|1[0-2]|[0-9]{4})?(?![0-9])")


class Suspect(NamedTuple):
    """A node that may speak of the period, and what it is, as a sentence's subject."""

    node: exp.Expr
    what: str


def suspect_of(tree: exp.Query, period: Period, moved: set[int]) -> Suspect | None:
    """The first thing beside the window that may speak of its period; `moved` are the window's own nodes."""
    return next(_Rest(tree, period).suspects(moved), None)


class _Rest:
    def __init__(self, tree: exp.Query, period: Period) -> None:
        self.tree = tree
        self.period = period
        self.calendar, self.counted = derived(tree)
        self.named = {cte.alias for cte in tree.find_all(exp.CTE)}

    def suspects(self, moved: set[int]) -> Iterator[Suspect]:
        todo: list[exp.Expr] = [self.tree]
        while todo:
            node = todo.pop()
            if id(node) in moved:
                continue
            what = self.validate_sql(node)
            if what:
                yield Suspect(node, what)
            if what is None:
                todo += reversed([*node.iter_expressions()])

    def validate_sql(self, node: exp.Expr) -> str | None:
        """What a suspect is; empty for what is harmless with all its parts; None: its parts decide."""
        what: str | None = None
        if isinstance(node, exp.DataType):
            what = ""
        elif isinstance(node, exp.Table) and node.name not in self.named and PARTITION.search(node.name):
            what = "the table of a period"
        elif tells_time(node):
            what = "" if self.is_age(node) else "the clock"
        elif (lengths := interval_lengths(node)) is not None or isinstance(node, exp.Interval):
            what = self.judge_interval(node, lengths)
        elif number_of(node) is not None:
            what = self.judge_number(node)
        elif isinstance(node, TEXTS) or (isinstance(node, exp.Var) and re.search("[0-9]", node.name)):
            what = self.judge_text(node)  # sqlglot keeps the origin of date_bin as a Var
        elif isinstance(node, exp.Dot) and isinstance(node.expression, exp.Func):
            what = UNKNOWN_CALL
        elif isinstance(node, exp.Func) and not isinstance(node, exp.Connector):
            what = self.judge_call(node)
        return what

    # -- the clock

    def is_age(self, node: exp.Expr) -> bool:
        """Beside a window of literals, `now() - created_at` is an age that no window moves."""
        if not self.period.fixed:
            return False
        above = node.parent
        while isinstance(above, AGES) or (isinstance(above, exp.Anonymous) and above.name.lower() == "age"):
            if isinstance(above, exp.Div) and holds(above.expression, node):
                return False
            above = above.parent
        return isinstance(above, exp.Select) and in_projections(node, above)

    # -- intervals

    def judge_interval(self, node: exp.Expr, lengths: list[float] | None) -> str:
        if lengths is None:
            return "an interval"
        around = context_of(node)
        if isinstance(around, COMPARISONS) and self.is_elapsed(around, node):
            return ""
        if isinstance(around, exp.ExplodingGenerateSeries) and lengths in ([1.0], [7.0]):
            return ""  # a step of days or weeks
        if ends_own_unit(node, around):
            return ""
        if isinstance(around, exp.Mul) and (factor := factor_of(around, node)) is not None:
            lengths = [*lengths, *(factor * each for each in lengths)]
        return "an interval" if self.period.lasts(lengths) else ""

    def is_elapsed(self, comparison: exp.Expr, node: exp.Expr) -> bool:
        """Whether the interval is compared with the time between two columns: how long something took."""
        other = bare(comparison.this if holds(comparison.expression, node) else comparison.expression)
        ends = (other.this, other.expression) if isinstance(other, exp.Sub) else ()
        return bool(ends) and all(isinstance(uncast(end), exp.Column) for end in ends)

    # -- numbers

    def judge_number(self, node: exp.Expr) -> str:
        value = abs(number_of(node) or 0)
        parts = [abs(number_of(part) or 0) for part in node.find_all(exp.Literal)]
        around = context_of(node)
        if self.is_harmless_number(node, around):
            return ""
        if isinstance(around, SCALING):
            bad = self.scales(value, parts, around, node)
        elif isinstance(around, exp.ExplodingGenerateSeries):
            hours = value == LAST_HOUR and around.args["start"].name == "0"
            measured = self.period.counts if hours else self.period.measures
            bad = any(measured(each) for each in (value, value + 1, *parts))
        elif others := self.compared_with(node, around):
            bad = self.is_compared(value, others)
        elif isinstance(around, exp.Limit | exp.Fetch):
            bad = value in self.period.lengths and value > 1 and not ranks(around.parent)
        else:
            bad = any(self.period.counts(each) for each in (value, *parts))
            bad = bad or (isinstance(around, SHOWING) and self.period.names_year(value))
            bad = bad or (isinstance(around, exp.Alias) and around.alias.lower() in CALENDAR_NAMES)
        return "a number that may count the period" if bad or is_coded(value) else ""

    def is_harmless_number(self, node: exp.Expr, around: exp.Expr | None) -> bool:
        if isinstance(around, exp.Group | exp.Ordered | exp.DataTypeParam | exp.Offset):
            return True
        if isinstance(around, exp.Tuple) and isinstance(around.parent, exp.Group | exp.GroupingSets):
            return True
        named = isinstance(around, exp.Anonymous) and around.name.lower() in TEXT_CALL_NAMES
        if isinstance(around, TEXT_CALLS) or named:
            return node is not getattr(around, "this", None)
        return isinstance(around, exp.Bracket)

    def scales(self, value: float, parts: list[float], around: exp.Expr, node: exp.Expr) -> bool:
        other = around.this if holds(around.expression, node) else around.expression
        if isinstance(uncast(other), exp.Interval | exp.MakeInterval):
            lengths = interval_lengths(other)
            return lengths is None or self.period.counts(value)
        if is_duration(other) and all(each in CONVERSIONS for each in (parts or [value])):
            return False
        if value == 1 and isinstance(around, exp.Div | exp.IntDiv):
            return 1 in self.period.lengths and holds(around.expression, node)
        if value in PERCENT:
            return value in self.period.lengths
        return any(self.period.measures(each) for each in (value, *parts, value * divisors(other)))

    def compared_with(self, node: exp.Expr, around: exp.Expr | None) -> list[exp.Expr]:
        """What a constant is compared with, also as `CASE subject WHEN constant`."""
        if isinstance(around, exp.If) and isinstance(case := around.parent, exp.Case):
            subject = case.this if holds(around.this, node) else None
            return [subject] if isinstance(subject, exp.Expr) else []
        if not isinstance(around, COMPARED):
            return []
        if isinstance(around, exp.In) and not holds(around.this, node):
            return [around.this]
        return [part for part in around.iter_expressions() if not holds(part, node)]

    def is_compared(self, value: float, others: list[exp.Expr]) -> bool:
        if self.period.names_year(value) or any(self.is_calendar(other) for other in others):
            return True
        return self.period.counts(value) and not all(self.is_stored(other) for other in others)

    def is_stored(self, node: exp.Expr) -> bool:
        """A column that no part of the statement reckons, or another constant."""
        node = uncast(node)
        if isinstance(node, exp.Column):
            return node.name.lower() not in self.counted
        return number_of(node) is not None or isinstance(
            node, exp.Literal | exp.Null | exp.Boolean | exp.Tuple
        )

    def is_calendar(self, node: exp.Expr) -> bool:
        """Whether it holds a year, a month or a day of some date (not of a time that has passed)."""
        for part in node.walk():
            if isinstance(part, exp.Column) and part.name.lower() in self.calendar:
                return True
            if is_calendar_part(part):
                return True
        return False

    # -- texts

    def judge_text(self, node: exp.Expr) -> str:
        around, text = context_of(node), str(node.this)
        if isinstance(around, exp.DateBin):
            return self.judge_bin(node, around)
        if isinstance(around, exp.AtTimeZone | exp.TimeToStr) and node is not around.this:
            return ""  # a zone, a format
        digits = isinstance(around, MATCHES) and DIGITS_PATTERN.fullmatch(text)
        if digits or any(self.is_calendar(other) for other in self.compared_with(node, around)):
            return "a part of a date"
        bad = isinstance(node, exp.BitString) or self.period.is_in_text(text) or is_special(text, node)
        return "a date" if bad else ""

    def judge_bin(self, node: exp.Expr, around: exp.DateBin) -> str:
        """The stride and the origin of `date_bin`, which cannot mean the period from outside of it."""
        text = str(node.this)
        if holds(around.this, node):
            return "an interval" if self.period.is_in_text(text) else ""
        return "" if self.period.is_outside(text) else "a date"

    # -- functions

    def judge_call(self, node: exp.Func) -> str | None:
        if isinstance(node, exp.Anonymous):
            name = node.name.lower()
            if name in QUANTIFIERS:
                return None
            if name not in FUNCTIONS:
                return UNKNOWN_CALL
        else:
            name = node.sql_name().lower()
        if isinstance(node, CONSTANT_NODES) or name in CONSTANT_CALLS or is_of_rows(node):
            return None
        return "a function of constants"
