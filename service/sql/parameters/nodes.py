"""Classify nodes of the tree: a clock, a part of a date, a length of time, or the nodes around a constant.

The lists here contain only nodes that cannot mean a period; every other node is suspect (see `rest`).
"""

import re
from typing import cast

from sqlglot import exp

from service.sql.parameters.bounds import bare, is_clock, unit_of
from service.sql.parameters.period import interval_lengths, number_of, text_lengths
from service.sql.words import OTHER_CLOCKS, words

Nodes = tuple[type[exp.Expr], ...]

COMPARISONS: Nodes = (exp.EQ, exp.NEQ, exp.LT, exp.LTE, exp.GT, exp.GTE, exp.NullSafeEQ, exp.NullSafeNEQ)
MATCHES: Nodes = (exp.Like, exp.ILike, exp.SimilarTo, exp.RegexpLike, exp.RegexpILike)
COMPARED: Nodes = (*COMPARISONS, *MATCHES, exp.In, exp.Between)
TEXTS: Nodes = (exp.Literal, exp.RawString, exp.National, exp.ByteString, exp.BitString, exp.UnicodeString)
SCALING: Nodes = (exp.Mul, exp.Div, exp.IntDiv, exp.Mod)
WRAPPERS: Nodes = (exp.Paren, exp.Cast, exp.Neg)
ROUNDING: Nodes = (exp.Paren, exp.Cast, exp.Round, exp.Abs, exp.Floor, exp.Ceil, exp.Coalesce)
AVERAGING: Nodes = (exp.Avg, exp.Min, exp.Max, exp.Filter, exp.Quantile, exp.PercentileCont)
AGES: Nodes = (
    *ROUNDING,
    *(exp.Alias, exp.Sub, exp.Extract, exp.Div, exp.Mul, exp.TimestampTrunc, exp.TimeToStr),
    *(exp.Avg, exp.Min, exp.Max),
)
CLOCK_NODES: Nodes = (exp.CurrentTime, exp.Localtime, exp.CurrentDatetime)
# Functions whose further arguments are positions and numbers of digits.
TEXT_CALLS: Nodes = (
    *(exp.Left, exp.Right, exp.Substring, exp.Pad, exp.SplitPart, exp.Round),
    exp.Trunc,
)
TEXT_CALL_NAMES = words("lpad rpad left right substr split_part overlay")
# Parts of a timestamp that recur within a week, so they cannot identify a period.
RECURRING = words("""
    HOUR MINUTE SECOND DOW ISODOW DAYOFWEEK DAYOFWEEKISO MILLISECOND MILLISECONDS MICROSECOND MICROSECONDS
    TIMEZONE TIMEZONE_HOUR TIMEZONE_MINUTE
""")
RECURRING_FORMAT = re.compile(r"(?:%-?[AaHIMSpuwLf]|D|ID|[^A-Za-z%])+")
DIGITS_PATTERN = re.compile(r"[%_^$./ -]*[0-9][0-9%_^$./ -]*")
CALENDAR_NAMES = words("""
    year yr month mon mth month_num month_number quarter qtr week week_number weeknum day day_of_month dom
    doy day_of_year yyyymm yyyymmdd year_month yearmonth period fiscal_year fiscal_month fiscal_quarter fy
    season isoyear iso_year iso_week date_key datekey date_id
""")
# Functions that return no date if their arguments contain none.
CONSTANT_CALLS = words("""
    random row_number rank dense_rank percent_rank cume_dist ntile count pi generate_series unnest coalesce
    nullif greatest least concat concat_ws lower upper initcap json_build_object jsonb_build_object
    json_build_array jsonb_build_array to_json to_jsonb json_object jsonb_object current_setting
    gen_random_uuid uuidv4 power sqrt floor ceil ceiling round trunc abs width_bucket exp ln log chr repeat
    replace trim btrim ltrim rtrim length char_length format string_to_array string_to_table array_length
    cardinality grouping generate_subscripts left right substring substr lpad rpad md5 mod sign split_part
    random_normal num_nulls num_nonnulls
""")
CONSTANT_NODES: Nodes = (
    *(exp.Array, exp.Rand, exp.Uuid, exp.Connector, exp.Case, exp.If, exp.Cast),
    *(exp.MakeInterval, exp.ExplodingGenerateSeries, exp.Exists, exp.AggFunc),
)


def is_special(text: str, node: exp.Expr) -> bool:
    """Whether Postgres reads a text as a special timestamp, because it is cast."""
    return text.strip().lower() in {"epoch", "allballs"} and isinstance(node.parent, exp.Cast)


def tells_time(node: exp.Expr) -> bool:
    if is_clock(node) or isinstance(node, CLOCK_NODES):
        return True
    if isinstance(node, exp.Anonymous):
        name = node.name.lower()
        return name in OTHER_CLOCKS or (name == "age" and len(node.expressions) == 1)
    return False


def context_of(node: exp.Expr) -> exp.Expr | None:
    """The nearest node around a constant that determines its meaning."""
    above = node.parent
    while isinstance(above, WRAPPERS):
        above = above.parent
    return above


def uncast(node: exp.Expr) -> exp.Expr:
    while isinstance(node, exp.Paren | exp.Cast | exp.Date):
        node = node.this
    return node


def holds(part: object, node: exp.Expr) -> bool:
    """Whether a node is inside a part of the tree, or is that part."""
    beside = part.parent if isinstance(part, exp.Expr) else None
    above: exp.Expr | None = node
    while above is not None and above is not part and above is not beside:
        above = above.parent
    return part is not None and above is part


def in_projections(node: exp.Expr, select: exp.Select) -> bool:
    return any(holds(part, node) for part in select.expressions)


def factor_of(around: exp.Expr, node: exp.Expr) -> float | None:
    return number_of(around.this if holds(around.expression, node) else around.expression)


def depends_on_rows(node: exp.Expr) -> bool:
    return node.find(exp.Column, exp.Star, exp.Subquery, exp.Select, exp.Placeholder) is not None


def is_duration(node: object) -> bool:
    """Whether a node is a single duration in seconds or another unit, not a sum of durations."""
    if isinstance(node, exp.Extract):
        return is_elapsed_time(node.expression)
    if isinstance(node, exp.Div | exp.Mul):
        return is_duration(node.this) and number_of(node.expression) is not None
    if isinstance(node, exp.WithinGroup):
        ordered = node.expression.expressions
        return bool(ordered) and is_duration(ordered[0].this)
    return isinstance(node, (*ROUNDING, *AVERAGING)) and is_duration(node.this)


def is_age_part(node: exp.Expr) -> bool:
    return any(part.name.lower() == "age" for part in node.find_all(exp.Anonymous))


def is_calendar_part(node: exp.Expr) -> bool:
    if isinstance(node, exp.Extract):
        return node.name.upper() not in RECURRING and not is_elapsed_time(node.expression)
    if isinstance(node, exp.TimeToStr):
        return not (node.args["format"].is_string and RECURRING_FORMAT.fullmatch(node.args["format"].name))
    if isinstance(node, exp.Left | exp.Right | exp.Substring | exp.SplitPart):
        return isinstance(bare(node.this), exp.Cast)
    named = isinstance(node, exp.Anonymous) and node.name.lower() in {"to_char", "date_part"}
    return named or isinstance(node, exp.Year | exp.Month | exp.Day | exp.Quarter | exp.Week | exp.ToChar)


def is_elapsed_time(node: exp.Expr) -> bool:
    """Whether a node contains a difference of two timestamps, not a timestamp shifted by an interval."""
    subs = [sub for sub in node.find_all(exp.Sub) if interval_lengths(sub.expression) is None]
    return any(number_of(sub.expression) is None for sub in subs) or is_age_part(node)


def derived(tree: exp.Query) -> tuple[frozenset[str], frozenset[str]]:
    """Names that the statement gives to parts of dates, and to all other computed expressions."""
    calendar, computed = set(CALENDAR_NAMES), set[str]()
    for select in tree.find_all(exp.Select):
        outer = column_names(select)
        for at, part in enumerate(cast("list[exp.Expr]", select.expressions)):
            names = {part.alias_or_name.lower(), *(outer[at : at + 1])} - {""}
            inner = part.unalias()
            if any(is_calendar_part(each) for each in inner.walk()):
                calendar |= names
            if not isinstance(uncast(inner), exp.Column):
                computed |= names
    return frozenset(calendar), frozenset(computed)


def column_names(select: exp.Select) -> list[str]:
    """The names that a CTE or a subquery lists for its columns."""
    above = select.parent
    while isinstance(above, exp.SetOperation):
        above = above.parent
    alias = above.args.get("alias") if isinstance(above, exp.CTE | exp.Subquery) else None
    return [column.name.lower() for column in alias.columns] if isinstance(alias, exp.TableAlias) else []


def ranks(query: object) -> bool:
    """Whether a limited query ranks by an aggregate, such as the ten best sellers."""
    order = query.args.get("order") if isinstance(query, exp.Query) else None
    if not isinstance(query, exp.Select) or order is None:
        return False
    first = bare(order.expressions[0].this)
    parts = cast("list[exp.Expr]", query.expressions)
    if isinstance(first, exp.Literal) and first.name.isdecimal() and 0 < int(first.name) <= len(parts):
        first = parts[int(first.name) - 1]
    named = [part for part in parts if isinstance(first, exp.Column) and part.alias == first.name]
    return any(part.find(exp.AggFunc) is not None for part in (first, *named))


def divisors(node: exp.Expr) -> float:
    """The product of the numbers that a node already divides by: 7 in `count(*) / 7 / 4`."""
    product = 1.0
    node = bare(node)
    while isinstance(node, exp.Div):
        product *= number_of(node.expression) or 1.0
        node = bare(node.this)
    return product


def ends_own_unit(node: exp.Expr, around: exp.Expr | None) -> bool:
    """Whether an interval gives the end of a row's own unit: `date_trunc('month', c) + '1 month'`."""
    while isinstance(around, exp.Add | exp.Sub) and not isinstance(around.this, exp.TimestampTrunc):
        if interval_lengths(node) != [1.0]:
            return False
        around = bare(around.this)
    start = around.this if isinstance(around, exp.Add | exp.Sub) else None
    if not isinstance(start, exp.TimestampTrunc) or not isinstance(uncast(start.this), exp.Column):
        return False
    return interval_lengths(node) in ([1.0], text_lengths(f"1 {unit_of(start)}"))
