"""Check the statement outside its window: may any part of it refer to the same period?

A date can enter a statement as a string, a number, an interval, the clock, or a function whose body is
unknown. Each of these is suspect unless its position rules a period out: a threshold for a duration, a step
of rounding, a position, a time of day.
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
    depends_on_rows,
    derived,
    divisors,
    ends_own_unit,
    factor_of,
    holds,
    in_projections,
    is_calendar_part,
    is_duration,
    is_special,
    ranks,
    tells_time,
    uncast,
)
from service.sql.parameters.period import Period, interval_lengths, is_coded, number_of
from service.sql.words import FUNCTIONS

# Factors that convert seconds, minutes or hours to another unit.
CONVERSIONS: Final = frozenset({24.0, 60.0, 1000.0, 1440.0, 3600.0, 86_400.0, 604_800.0, 1e6, 3.6e6, 8.64e7})
UNKNOWN_CALL: Final = "a function that may know dates"
QUANTIFIERS: Final = frozenset({"all", "any", "some"})
LAST_HOUR: Final = 23  # of `generate_series(0, 23)`, the hours of a day
# Nodes that pass a constant on unchanged.
SHOWING: Final = (exp.Func, exp.Alias, exp.Select, exp.Tuple)
PERCENT: Final = frozenset({100.0, 1000.0})


# A table or partition with a year in its name, such as orders_2025_02.
PARTITION: Final = re.compile(r"(?<![0-9])(?:19|20)[0-9]{2}(?:0[1-9]|1[0-2]|[0-9]{4})?(?![0-9])")


class Suspect(NamedTuple):
    """A node that may refer to the period, and its description as a sentence's subject."""

    node: exp.Expr
    description: str


def suspect_of(tree: exp.Query, period: Period, replaced: set[int]) -> Suspect | None:
    """The first node outside the window that may refer to its period; `replaced` are the window's nodes."""
    return next(_Rest(tree, period).suspects(replaced), None)


class _Rest:
    def __init__(self, tree: exp.Query, period: Period) -> None:
        self.tree = tree
        self.period = period
        self.calendar, self.computed = derived(tree)
        self.named = {cte.alias for cte in tree.find_all(exp.CTE)}

    def suspects(self, replaced: set[int]) -> Iterator[Suspect]:
        todo: list[exp.Expr] = [self.tree]
        while todo:
            node = todo.pop()
            if id(node) in replaced:
                continue
            description = self.describe(node)
            if description:
                yield Suspect(node, description)
            if description is None:
                todo += reversed([*node.iter_expressions()])

    def describe(self, node: exp.Expr) -> str | None:
        """Describe a suspect; empty if the whole node is harmless, None if its parts must be checked."""
        description: str | None = None
        if isinstance(node, exp.DataType):
            description = ""
        elif isinstance(node, exp.Table) and node.name not in self.named and PARTITION.search(node.name):
            description = "the table of a period"
        elif tells_time(node):
            description = "" if self.is_age(node) else "the clock"
        elif (lengths := interval_lengths(node)) is not None or isinstance(node, exp.Interval):
            description = self.describe_interval(node, lengths)
        elif number_of(node) is not None:
            description = self.describe_number(node)
        elif isinstance(node, TEXTS) or (isinstance(node, exp.Var) and re.search("[0-9]", node.name)):
            description = self.describe_text(node)  # sqlglot keeps the origin of date_bin as a Var
        elif isinstance(node, exp.Dot) and isinstance(node.expression, exp.Func):
            description = UNKNOWN_CALL
        elif isinstance(node, exp.Func) and not isinstance(node, exp.Connector):
            description = self.describe_call(node)
        return description

    # -- the clock

    def is_age(self, node: exp.Expr) -> bool:
        """Whether the clock only gives an age, such as `now() - created_at` beside a window of literals."""
        if not self.period.fixed:
            return False
        above = node.parent
        while isinstance(above, AGES) or (isinstance(above, exp.Anonymous) and above.name.lower() == "age"):
            if isinstance(above, exp.Div) and holds(above.expression, node):
                return False
            above = above.parent
        return isinstance(above, exp.Select) and in_projections(node, above)

    # -- intervals

    def describe_interval(self, node: exp.Expr, lengths: list[float] | None) -> str:
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
        """Whether the interval is compared with the time between two columns, so it is a duration."""
        other = bare(comparison.this if holds(comparison.expression, node) else comparison.expression)
        ends = (other.this, other.expression) if isinstance(other, exp.Sub) else ()
        return bool(ends) and all(isinstance(uncast(end), exp.Column) for end in ends)

    # -- numbers

    def describe_number(self, node: exp.Expr) -> str:
        value = abs(number_of(node) or 0)
        parts = [abs(number_of(part) or 0) for part in node.find_all(exp.Literal)]
        around = context_of(node)
        if self.is_harmless_number(node, around):
            return ""
        if isinstance(around, SCALING):
            suspect = self.scales(value, parts, around, node)
        elif isinstance(around, exp.ExplodingGenerateSeries):
            hours = value == LAST_HOUR and around.args["start"].name == "0"
            measured = self.period.counts if hours else self.period.measures
            suspect = any(measured(each) for each in (value, value + 1, *parts))
        elif others := self.compared_with(node, around):
            suspect = self.is_compared(value, others)
        elif isinstance(around, exp.Limit | exp.Fetch):
            suspect = value in self.period.lengths and value > 1 and not ranks(around.parent)
        else:
            suspect = any(self.period.counts(each) for each in (value, *parts))
            suspect = suspect or (isinstance(around, SHOWING) and self.period.names_year(value))
            suspect = suspect or (isinstance(around, exp.Alias) and around.alias.lower() in CALENDAR_NAMES)
        return "a number that may count the period" if suspect or is_coded(value) else ""

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
        """The expressions that a constant is compared with, also in `CASE subject WHEN constant`."""
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
        """Whether a node is a constant, or a column that the statement does not compute."""
        node = uncast(node)
        if isinstance(node, exp.Column):
            return node.name.lower() not in self.computed
        return number_of(node) is not None or isinstance(
            node, exp.Literal | exp.Null | exp.Boolean | exp.Tuple
        )

    def is_calendar(self, node: exp.Expr) -> bool:
        """Whether a node contains a year, a month or a day of a date (not of a duration)."""
        for part in node.walk():
            if isinstance(part, exp.Column) and part.name.lower() in self.calendar:
                return True
            if is_calendar_part(part):
                return True
        return False

    # -- texts

    def describe_text(self, node: exp.Expr) -> str:
        around, text = context_of(node), str(node.this)
        if isinstance(around, exp.DateBin):
            return self.describe_bin(node, around)
        if isinstance(around, exp.AtTimeZone | exp.TimeToStr) and node is not around.this:
            return ""  # a zone, a format
        digits = isinstance(around, MATCHES) and DIGITS_PATTERN.fullmatch(text)
        if digits or any(self.is_calendar(other) for other in self.compared_with(node, around)):
            return "a part of a date"
        suspect = isinstance(node, exp.BitString) or self.period.is_in_text(text) or is_special(text, node)
        return "a date" if suspect else ""

    def describe_bin(self, node: exp.Expr, around: exp.DateBin) -> str:
        """The stride and the origin of `date_bin`; an origin outside the period cannot refer to it."""
        text = str(node.this)
        if holds(around.this, node):
            return "an interval" if self.period.is_in_text(text) else ""
        return "" if self.period.is_outside(text) else "a date"

    # -- functions

    def describe_call(self, node: exp.Func) -> str | None:
        if isinstance(node, exp.Anonymous):
            name = node.name.lower()
            if name in QUANTIFIERS:
                return None
            if name not in FUNCTIONS:
                return UNKNOWN_CALL
        else:
            name = node.sql_name().lower()
        if isinstance(node, CONSTANT_NODES) or name in CONSTANT_CALLS or depends_on_rows(node):
            return None
        return "a function of constants"
