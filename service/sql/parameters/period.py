"""The period of a window: its length, and which numbers, intervals and words may refer to it.

In doubt every check here returns true: a number that equals the length only by chance counts as the length.
"""

import re
from collections.abc import Iterable
from datetime import date
from itertools import product

from msgspec import Struct
from sqlglot import exp

from service.sql.parameters.bounds import WindowBound, bare, day_in, unit_of

DAYS_IN = {
    **dict.fromkeys(("day", "d"), 1.0),
    **dict.fromkeys(("week", "w"), 7.0),
    **dict.fromkeys(("hour", "hr", "h"), 1 / 24),
    **dict.fromkeys(("minute", "min", "m"), 1 / 1440),
    **dict.fromkeys(("second", "sec", "s"), 1 / 86_400),
    **dict.fromkeys(("millisecond", "msec", "ms"), 1 / 86_400_000),
}
MONTHS_IN = {
    "month": 1,
    "mon": 1,
    "quarter": 3,
    "year": 12,
    "yr": 12,
    "y": 12,
    "decade": 120,
    "century": 1200,
}
QUANTITY = re.compile(r"([-+]?[0-9]+(?:\.[0-9]+)?)\s*-?([a-z]+)")
CLOCK_TIME = re.compile(r"[-+]?([0-9]{1,4}):([0-9]{2})(?::([0-9]{2}(?:\.[0-9]+)?))?")
COMMON_COUNTS = frozenset(
    {7, 12, 14, 21, 28, 29, 30, 31, 52, 60, 90, 91, 92, 180, 181, 182, 183, 184, 364, 365, 366}
)
YEAR_COUNTS = frozenset({365.0, 365.25, 366.0})
MOMENT_COUNTS = (24.0, 1440.0, 86_400.0, 86_400_000.0)
WEEK, MONTH, YEAR = 7, 30.4375, 365.25
A_MONTH = range(28, 32)
WEEKS_OF_YEAR, MONTHS_OF_YEAR = 52, 12
LONG = 7
"""From this many days on, one day more or less is the same period: a count may exclude the last day."""

ROUGHLY = 0.03
"""Tolerance of divisors: 90 means a quarter of 92 days, 360 means a year."""

MONTH_NAMES = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
    "jan",
    "feb",
    "mar",
    "apr",
    "jun",
    "jul",
    "aug",
    "sep",
    "sept",
    "oct",
    "nov",
    "dec",
]
MONTHS = "|".join(sorted(MONTH_NAMES, key=len, reverse=True))
UNITS = "days?|weeks?|months?|quarters?|years?|hours?|mins?|minutes?|secs?|seconds?|mons?|yrs?"
DATE_WORDS = re.compile(
    rf"(?:{MONTHS}|{UNITS}|mon|tue|wed|thu|fri|sat|sun|[a-z]+day|am|pm|ad|bc|utc|gmt|z|t|q|w|h|j|of)"
)
DATED = re.compile(
    rf"(?<![0-9])(?:19|20)[0-9]{{2}}(?![0-9])|[0-9]{{1,4}}[-/][0-9]{{1,2}}[-/][0-9]{{1,4}}"
    r"|(?<![0-9.])[0-9]{1,2}\.[0-9]{1,2}\.(?:[0-9]{2}|[0-9]{4})(?![0-9.])"
    rf"|(?<![0-9])(?:19|20)[0-9]{{2}}(?:0[1-9]|1[0-2])(?:[0-3][0-9])?(?![0-9])|\b(?:{MONTHS})\b|\bq[1-4]\b"
    r"|\bj[0-9]{6,7}\b"
)
NAMED_MONTH = re.compile(rf"\b(?:{MONTHS})\b\.?,?\s*[0-9']|[0-9](?:st|nd|rd|th)?\s+(?:of\s+)?(?:{MONTHS})\b")
WHOLE_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
CALLED = re.compile(
    r"\b(?:last|past|this|current|previous|prior|trailing|recent|next|since|until|till|as of)\b.*"
    r"\b(?:day|week|month|quarter|year|hour|date)"
)
NOW = frozenset({"now", "today", "yesterday", "tomorrow", "mtd", "ytd", "qtd", "wtd", "to date"})
YEAR_TOKEN = re.compile(r"(?<![0-9])(?:19|20)[0-9]{2}(?![0-9])")
PLAIN_NUMBER = re.compile(r"[-+]?[0-9]+(?:\.[0-9]+)?")
FIRST_SENTINEL, LAST_SENTINEL = 1970, 2100


class Period(Struct, frozen=True):
    """`lengths` are the possible lengths in days, empty if unknown; `first` and `last` are its literal days.

    `fixed` means that both ends are literals, so the period does not depend on the clock.
    """

    lengths: tuple[float, ...]
    first: date | None = None
    last: date | None = None
    fixed: bool = False

    def counts(self, number: float) -> bool:
        """Whether a number may be the period's length, in days or in smaller units."""
        return number > 1 and any(
            self._about(number, length) or any(number == round(length * each, 6) for each in MOMENT_COUNTS)
            for length in self.lengths
        )

    def measures(self, number: float) -> bool:
        """Whether a divisor or factor may convert the period to days, weeks, months or a year, or back."""
        if number <= 1:
            return False
        if not self.lengths:
            return number in COMMON_COUNTS | YEAR_COUNTS
        if self.counts(number) or number in YEAR_COUNTS:
            return True
        return any(_divides(number, length) for length in self.lengths)

    def lasts(self, lengths: Iterable[float]) -> bool:
        """Whether an interval of one of these lengths in days may be as long as the period."""
        return any(self._about(abs(one), other) for one, other in product(lengths, self.lengths))

    def names_year(self, number: float) -> bool:
        years = [day.year for day in (self.first, self.last) if day]
        return any(abs(number - year) <= 1 for year in years)

    def is_outside(self, text: str) -> bool:
        """Whether a date is outside of the window: an origin, or a sentinel that means "no date"."""
        day = day_in(text)
        if day is None:
            return False
        if self.first is None and self.last is None:
            return True
        return bool((self.first and day < self.first) or (self.last and day > self.last))

    def is_in_text(self, text: str) -> bool:
        """Whether a string may refer to the period, or to any other date except a sentinel."""
        words = " ".join(text.lower().split())
        if PLAIN_NUMBER.fullmatch(words):
            return self.counts(float(words)) or self.names_year(float(words)) or is_coded(float(words))
        if words in NOW or CALLED.search(words) or NAMED_MONTH.search(words):
            return True
        if any(self.names_year(int(year)) for year in YEAR_TOKEN.findall(words)):
            return True
        if _is_date(words):
            return not (_is_sentinel(words) and self.is_outside(words))
        return self.lasts(_phrases(words))

    def _about(self, number: float, length: float) -> bool:
        return abs(number - length) <= (1 if length >= LONG else 1e-6)


def period_of(bounds: list[WindowBound]) -> Period:
    """The period of a window with these bounds."""
    offsets: dict[str, list[float]] = {"lower": [], "upper": []}
    days: dict[str, date | None] = {"lower": None, "upper": None}
    units: list[float] = []
    for bound in bounds:
        if bound.limit is None:
            continue
        offsets[bound.side] += _offsets(bound.operand)
        units += _units(bound.operand)
        days[bound.side] = _day(bound) or days[bound.side]
    first, last = days["lower"], days["upper"]
    lengths = [*units, *offsets["lower"], *offsets["upper"]]
    lengths += [one - other for one, other in product(offsets["lower"], offsets["upper"])]
    lengths += [(last - first).days + 1] if first and last else []
    fixed = bool(first and last) and not any(bound.limit and bound.limit.clock for bound in bounds)
    return Period(tuple(sorted({abs(length) for length in lengths if length})), first, last, fixed)


def interval_lengths(node: exp.Expr) -> list[float] | None:
    """The possible lengths in days of a constant interval; None if it is not one or cannot be parsed."""
    node = bare(node)
    interval = isinstance(node, exp.Interval) or (isinstance(node, exp.Cast) and node.is_type("interval"))
    if interval and isinstance(node.this, exp.Literal):
        unit = unit_of(node) if isinstance(node, exp.Interval) else ""
        return text_lengths(f"{node.this.name} {unit}" if unit else node.this.name)
    return _made_lengths(node) if isinstance(node, exp.MakeInterval) else None


def _made_lengths(node: exp.MakeInterval) -> list[float] | None:
    """The lengths of `make_interval(days => 30)`; None if a part is not a number or has no name."""
    parts: list[str] = []
    for name, part in node.args.items():
        number = number_of(part.expression) if isinstance(part, exp.Kwarg) else None
        if number is None:
            return None
        parts.append(f"{number} {name}")
    return text_lengths(" ".join(parts))


def text_lengths(text: str) -> list[float] | None:
    """The possible lengths in days of `30 days`, `1 month 2 days`, `04:00:00`."""
    words = " ".join(text.lower().removeprefix("@").split())
    lengths = [0.0]
    for amount, unit in QUANTITY.findall(words):
        one = _lengths(float(amount), unit)
        if one is None:
            return None
        lengths = [sum(pair) for pair in product(lengths, one)][:100]
    rest = QUANTITY.sub("", words)
    if found := CLOCK_TIME.search(rest):
        hours, minutes, seconds = int(found[1]), int(found[2]), float(found[3] or 0)
        lengths = [each + (hours * 3600 + minutes * 60 + seconds) / 86400 for each in lengths]
        rest = CLOCK_TIME.sub("", rest)
    bare_number = PLAIN_NUMBER.fullmatch(rest.strip())  # seconds
    if bare_number:
        return [each + float(rest) / 86400 for each in lengths]
    return lengths if rest.strip() in {"", "ago", "and"} else None


def number_of(node: exp.Expr) -> float | None:
    """The value of a number, or of a sum or product of numbers alone."""
    node = bare(node)
    if isinstance(node, exp.Literal) and not node.is_string:
        return _float(node.name)
    if isinstance(node, exp.HexString):
        return float(int(str(node.this), 16))
    if isinstance(node, exp.Neg | exp.Cast):
        value = number_of(node.this)
        return None if value is None else -value if isinstance(node, exp.Neg) else value
    if isinstance(node, exp.Add | exp.Sub | exp.Mul | exp.Div):
        right = number_of(node.expression)  # first, because chains nest on the left
        left = None if right is None else number_of(node.this)
        return None if left is None or right is None else _evaluate(node, left, right)
    return None


def _evaluate(node: exp.Expr, left: float, right: float) -> float | None:
    if isinstance(node, exp.Add | exp.Sub):
        return left + right if isinstance(node, exp.Add) else left - right
    if isinstance(node, exp.Mul):
        return left * right
    return left / right if right else None


def _float(text: str) -> float | None:
    try:
        return float(text.replace("_", ""))
    except ValueError:
        pass
    try:
        return float(int(text.replace("_", ""), 0))
    except ValueError:
        return None


def _lengths(amount: float, unit: str) -> list[float] | None:
    for word in (unit, unit.removesuffix("s")):
        if word in DAYS_IN:
            return [amount * DAYS_IN[word]]
        if word in MONTHS_IN:
            return month_lengths(amount * MONTHS_IN[word])
    return None


def month_lengths(months: float) -> list[float]:
    """The possible lengths of that many months in days: 28 to 31 for one, 89 to 93 for three."""
    if abs(months) == 1:
        return [months * days for days in (28, 29, 30, 31)]
    low, high = int(abs(months) * 30.4) - 2, int(abs(months) * 30.6) + 2
    sign = -1 if months < 0 else 1
    return [float(sign * days) for days in {*range(low, min(high, low + 400)), int(abs(months) * 30)}]


def _offsets(operand: exp.Expr) -> list[float]:
    found: list[float] = []
    for node in operand.walk():
        found += interval_lengths(node) or []
        if isinstance(node, exp.Add | exp.Sub):
            number = number_of(node.expression)
            found += [] if number is None else [number]
        elif isinstance(node, exp.Mul):
            found += _product(node)
    return found


def _product(node: exp.Mul) -> list[float]:
    for one, other in ((node.this, node.expression), (node.expression, node.this)):
        number, lengths = number_of(one), interval_lengths(other)
        if number is not None and lengths:
            return [number * length for length in lengths]
    return []


def _units(operand: exp.Expr) -> list[float]:
    found: list[float] = []
    for node in operand.find_all(exp.TimestampTrunc):
        found += _lengths(1, unit_of(node).lower()) or []
    return found


def _day(bound: WindowBound) -> date | None:
    if bound.limit and bound.limit.default:
        return date.fromisoformat(bound.limit.default)
    for node in bound.operand.find_all(exp.Literal):
        if node.is_string and (day := day_in(node.name)):
            return day
    return None


def _divides(number: float, length: float) -> bool:
    """Whether a number may count the days, working days, weeks, months or years in `length` days."""
    monthly = length in A_MONTH
    return (
        _near(number, length, within=length * ROUGHLY)
        or (monthly and A_MONTH.start <= number < A_MONTH.stop)
        or _near(number, length / WEEK, within=0.45 if monthly else 0.35 if length > A_MONTH.start else 0.06)
        or _near(number, length * 5 / WEEK, within=1.5 if length > WEEK else 0.1)
        or _near(number, length / MONTH, within=0.06)
        or _near(number, length / YEAR, within=0.06)
        or number == (WEEKS_OF_YEAR if length == WEEK else MONTHS_OF_YEAR if monthly else 0)
    )


def _near(number: float, count: float, *, within: float) -> bool:
    return count > 1.5 and abs(number - count) <= within  # noqa: PLR2004 (a count of one means nothing)


def _phrases(words: str) -> list[float]:
    """The lengths of all quantities in a text: `30 days`, `1-7 days`, `90d`."""
    found: list[float] = []
    for amount, unit in QUANTITY.findall(words):
        found += _lengths(abs(float(amount)), unit) or []
    return found


def _is_date(words: str) -> bool:
    """Whether a text is only a date, a part of a date, or a pattern for one."""
    names = re.findall(r"[a-z]+", words)
    return bool(DATED.search(words)) and all(DATE_WORDS.fullmatch(name) for name in names)


def _is_sentinel(words: str) -> bool:
    found = WHOLE_DATE.match(words)
    return found is not None and not FIRST_SENTINEL < int(found[0][:4]) < LAST_SENTINEL


def is_coded(number: float) -> bool:
    """Whether a number may encode a date: 202502, 20250201, seconds or milliseconds since 1970."""
    if number != int(number):
        return False
    digits = str(int(abs(number)))
    if len(digits) in (6, 8) and digits[:2] in {"19", "20"}:
        return 1 <= int(digits[4:6]) <= 12 and (len(digits) == 6 or 1 <= int(digits[6:]) <= 31)  # noqa: PLR2004
    return any(631_152_000 <= number / scale < 4_102_444_800 for scale in (1, 1000))  # noqa: PLR2004
