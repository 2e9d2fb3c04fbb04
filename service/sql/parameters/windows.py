"""Date windows: locate in the text the bounds that `start_date`, `end_date` and `day_range` may replace.

Windows are adjustable if all windows of a statement agree: they have the same bounds, on any columns, in
subqueries and UNION branches too. Then all of them move together. Windows that differ are left unchanged,
because we cannot know which one a caller means. Before we replace a piece of text, we parse it alone and
check that it gives the expected node.
"""

from datetime import datetime, tzinfo
from itertools import pairwise
from typing import Literal

import sqlglot
from msgspec import Struct
from sqlglot import exp
from sqlglot.errors import SqlglotError

from service.sql.parameters.bounds import (
    LAST_SECOND,
    LITERAL,
    MIDNIGHT,
    Limit,
    WindowBound,
    bare,
    is_clock,
    unit_of,
    windows,
)
from service.sql.parameters.days import COMPARISONS, ENDS, SHIFTS, Slot, shift_for
from service.sql.parameters.lexer import Token, place
from service.sql.parameters.period import period_of
from service.sql.parameters.rest import suspect_of

START, END, RANGE = "start_date", "end_date", "day_range"
NAMES = (START, END, RANGE)
Mode = Literal["auto", "off"]
PARSES_LIMIT = 1000
SEARCH_DISTANCE = 60
SHOWN_LIMIT = 40
OPENERS = frozenset({"WHERE", "ON", "AND", "HAVING", "("})


NO_WINDOW = (
    "No condition that always holds bounds a date by a constant from below, such as day >= '2025-06-01'"
    " or day BETWEEN '2025-06-01' AND '2025-06-30'"
)
UNREAD = "An operator trusts this SQL unread, so its dates are not known"
SWITCHED_OFF = "Its window is switched off, as its dates are no reporting period"
HOW = (
    "To let callers choose the days, write `:start_date` and `:end_date` into the SQL wherever it speaks of"
    " them, such as `day >= :start_date AND day <= :end_date`."
)


class Window(Struct, frozen=True):
    """Whether callers may give `start_date`, `end_date` or `day_range`; if not, the reason and its place.

    `mode` is the metric's setting: `off` means that its dates are not a reporting period.
    """

    mode: Mode
    offered: bool
    why: str | None = None
    line: int | None = None
    column: int | None = None


class WindowSlots(Struct, frozen=True):
    """The slots of a statement's windows; `accepts` and `defaults` are by parameter name.

    `exact` names the parameters whose default, when given, changes nothing. If windows are not adjustable,
    `why_not` is the reason as a sentence, and `at` its offset in the text.
    """

    slots: tuple[Slot, ...] = ()
    defaults: dict[str, str | int] = {}
    exact: frozenset[str] = frozenset()
    accepts: tuple[str, ...] = ()
    why_not: str = ""
    at: int | None = None

    def described(self, sql: str, mode: Mode, *, offered: bool) -> Window:
        if offered:
            return Window(mode, offered=True)
        line, column = (None, None) if self.at is None else place(sql, self.at)
        return Window(mode, offered=False, why=self.why_not or NO_WINDOW, line=line, column=column)


class Unlocated(Exception):  # noqa: N818 (it names what happens)
    """The text of a bound was not found."""


def find_windows(
    sql: str,
    tokens: list[Token],
    tree: exp.Query | None,
    *,
    taken: frozenset[str],
    mode: Mode,
    zone: tzinfo,
) -> WindowSlots:
    """Find the windows of a statement and the slots that move them.

    `tree` is sqlglot's unchanged tree of `sql`. `taken` are the names that placeholders use already. `zone`
    is the time zone of the statement's sessions.
    """
    if mode == "off":
        return WindowSlots(why_not=SWITCHED_OFF)
    if tree is None:
        return WindowSlots(why_not=UNREAD)
    found = windows(tree)
    if not found or taken & {*NAMES}:
        return WindowSlots()
    text = _Text(sql, tokens)
    try:
        if refusal := _refusal(text, tree, found, zone):
            return refusal
        slots = [slot for bounds in found for slot in _slots(text, bounds)]
    except Unlocated:
        return WindowSlots(
            why_not="Its date windows are written in a way that is not adjustable",
            at=text.place(found[0][0].operand),
        )
    first = _limits(found[0])
    ranged = any(RANGE in (slot.on or ()) for slot in slots if slot.name != END)
    if not ranged or any(_ends_earlier(bounds) for bounds in found):  # an end alone is not a range
        slots = [_without(slot, frozenset({RANGE})) for slot in slots]
    switched = frozenset[str]().union(*(slot.on or () for slot in slots))
    return WindowSlots(
        tuple(slots),
        {name: value for name, value in _defaults(first).items() if name in switched},
        switched.intersection(*(_exact(_limits(bounds)) for bounds in found)),
        tuple(name for name in NAMES if name in switched),
    )


def _refusal(
    text: "_Text", tree: exp.Query, found: list[list[WindowBound]], zone: tzinfo
) -> WindowSlots | None:
    """The reason why the windows are not adjustable, and its place; None if they are."""
    for bounds in found:
        if _identity(bounds) != _identity(found[0]):
            different = next(bound for bound in bounds if bound.limit)
            return WindowSlots(
                why_not="Its date windows differ from each other, so they are not adjustable",
                at=text.place(different.operand),
            )
        upper = next((bound for bound in bounds if bound.limit and bound.side == "upper"), None)
        lower = [bound for bound in bounds if bound.side == "lower"]
        if upper and not any(bound.limit or bound.operand.find(exp.Placeholder) for bound in lower):
            return WindowSlots(
                why_not='Its window has only an upper bound, which means "as of", so it is not adjustable',
                at=text.place(upper.operand),
            )
        if zoned := next(
            (bound for bound in bounds if bound.limit and _uses_other_zone(bound.operand, zone)), None
        ):
            return WindowSlots(
                why_not="Its date window is written in a time zone of its own, so it is not adjustable",
                at=text.place(zoned.operand),
            )
    replaced = {id(bound.operand) for bounds in found for bound in bounds if bound.limit}
    suspect = suspect_of(tree, period_of(found[0]), replaced)
    if suspect is None:
        return None
    at = text.place(suspect.node)
    return WindowSlots(
        why_not=f"Its date window is not adjustable: {suspect.description}{text.shown(at)} may speak of the"
        " same period and would stay as it is",
        at=at,
    )


def _uses_other_zone(operand: exp.Expr, zone: tzinfo) -> bool:
    """Whether a bound uses another zone; `now() AT TIME ZONE 'z'` is fine: it only gives the day there."""
    if any(not is_clock(bare(node.this)) for node in operand.find_all(exp.AtTimeZone)):
        return True
    return any(_is_other_offset(node.name, zone) for node in operand.find_all(exp.Literal))


def _is_other_offset(text: str, zone: tzinfo) -> bool:
    """Whether a text is the start or end of a day at a UTC offset that the zone does not have then."""
    found = LITERAL.fullmatch(text.strip())
    if found is None or not found[3] or not (MIDNIGHT.fullmatch(found[2]) or LAST_SECOND.match(found[2])):
        return False
    try:
        moment = datetime.fromisoformat(f"{found[1]}T{found[2]}{found[3]}")
        return moment.utcoffset() != moment.astimezone(zone).utcoffset()
    except (ValueError, OverflowError):
        return True


def _ends_earlier(bounds: list[WindowBound]) -> bool:
    """Whether a sliding window ends before yesterday: its interval is then longer than the window itself."""
    limits = _limits(bounds)
    lower, upper = limits.get("lower"), limits.get("upper")
    if not (lower and lower.back and upper and upper.clock):
        return False
    operand = next(bound.operand for bound in bounds if bound.side == "upper")
    if any(unit_of(trunc) != "DAY" for trunc in operand.find_all(exp.TimestampTrunc)):
        return True
    return operand.find(exp.Sub) is not None and (upper.days is None or upper.days > 1)


def _in_recursion(node: exp.Expr) -> bool:
    """Whether a node is inside a recursive CTE, where a bound controls the recursion."""
    around = node.find_ancestor(exp.With)
    while around is not None and not around.args.get("recursive"):
        around = around.find_ancestor(exp.With)
    return around is not None


def _limits(bounds: list[WindowBound]) -> dict[str, Limit | None]:
    return {bound.side: bound.limit for bound in bounds}


def _identity(bounds: list[WindowBound]) -> frozenset[tuple[str, str]]:
    """Windows with equal identities cover the same days."""
    return frozenset((bound.side, bound.limit.identity if bound.limit else "") for bound in bounds)


def _defaults(limits: dict[str, Limit | None]) -> dict[str, str | int]:
    values = {
        START: (lower := limits.get("lower")) and lower.default,
        END: (upper := limits.get("upper")) and upper.default,
        RANGE: lower and lower.days,
    }
    return {name: value for name, value in values.items() if value is not None}


def _exact(limits: dict[str, Limit | None]) -> set[str]:
    lower, upper = limits.get("lower"), limits.get("upper")
    exact = {START} if lower and lower.exact else set[str]()
    exact |= {END} if upper and upper.exact else set()
    return exact | ({RANGE} if lower and lower.days is not None else set())


def _without(slot: Slot, taken: frozenset[str]) -> Slot:
    return Slot(slot.start, slot.end, slot.name, (slot.on or frozenset()) - taken, slot.template)


def _slots(text: "_Text", bounds: list[WindowBound]) -> list[Slot]:
    limits = _limits(bounds)
    if len(_identity(bounds)) != len(limits) or any(_in_recursion(bound.comparison) for bound in bounds):
        raise Unlocated
    lower, upper = limits.get("lower"), limits.get("upper")
    slots = [slot for bound in bounds if bound.limit for slot in _replacing(text, bound, lower)]
    if "upper" not in limits and lower:
        slots.append(_adding(text, bounds[0], END, frozenset({END}), "<="))
    elif "lower" not in limits and upper:
        slots.append(_adding(text, bounds[0], START, frozenset({START, RANGE}), ">="))
    return slots


def _replacing(text: "_Text", bound: WindowBound, lower: Limit | None) -> list[Slot]:
    """Slots that replace a bound. `day_range` changes an interval's length; any other window ends today."""
    first, last = text.operand(bound)
    name = START if bound.side == "lower" else END
    template = SHIFTS[shift_for(name, bound.operator)]
    start, end = text.tokens[first].start, text.tokens[last - 1].end
    limit = bound.limit
    sliding = lower is not None and lower.back is not None
    if bound.side == "lower" and limit and limit.back:
        inner, stop = text.subtrahend(first, last, limit.back)
        length = "{}" if isinstance(bare(limit.back.expression), exp.Literal) else "make_interval(days => {})"
        return [
            Slot(start, end, name, frozenset({START}), template),
            Slot(text.tokens[inner].start, text.tokens[stop - 1].end, RANGE, frozenset({RANGE}), length),
        ]
    ranged = not (sliding and limit and limit.clock)
    return [Slot(start, end, name, frozenset({name, RANGE} if ranged else {name}), template)]


def _adding(text: "_Text", bound: WindowBound, name: str, on: frozenset[str], operator: str) -> Slot:
    subject = " ".join(token.text for token in text.subject(bound)).replace("{", "{{").replace("}", "}}")
    end = text.tokens[text.comparison(bound)[1] - 1].end
    return Slot(end, end, name, on, f" AND {subject} {operator} " + SHIFTS[shift_for(name, operator)])


class _Text:
    """The SQL's tokens, and the half-open token ranges of nodes of the tree."""

    def __init__(self, sql: str, tokens: list[Token]) -> None:
        self.sql = sql
        self.tokens = tokens
        self.index = {token.start: at for at, token in enumerate(tokens)}
        self.ranges: dict[int, tuple[int, int]] = {}
        self.parses_left = PARSES_LIMIT

    def place(self, node: exp.Expr) -> int | None:
        """The offset of a node, or of the nearest node around it that has one."""
        here: exp.Expr | None = node
        while here is not None:
            starts = [part.meta["start"] for part in here.walk() if "start" in part.meta]
            if starts:
                return min(starts)
            here = here.parent
        return None

    def shown(self, at: int | None) -> str:
        """The word or constant at that offset, after a blank and in brackets; empty if it is long."""
        token = self.tokens[self.index[at]] if at in self.index else None
        return f" ({token.text})" if token and len(token.text) <= SHOWN_LIMIT else ""

    def comparison(self, bound: WindowBound) -> tuple[int, int]:
        key = id(bound.comparison)
        if key not in self.ranges:
            self.ranges[key] = self._search(bound)
        return self.ranges[key]

    def operand(self, bound: WindowBound) -> tuple[int, int]:
        return self._sides(bound)[1]

    def subject(self, bound: WindowBound) -> list[Token]:
        first, last = self._sides(bound)[0]
        return self.tokens[first:last]

    def subtrahend(self, first: int, last: int, node: exp.Sub) -> tuple[int, int]:
        for minus in range(first, last):
            if self.tokens[minus].word == "-":
                for end in range(minus + 2, last + 1):
                    if self._parses_to(minus + 1, end, node.expression):
                        return minus + 1, end
        raise Unlocated

    def _search(self, bound: WindowBound) -> tuple[int, int]:
        anchor = self.index.get(bound.column.this.meta.get("start", -1))
        if anchor is None:
            raise Unlocated
        floor, roof = max(0, anchor - SEARCH_DISTANCE), min(len(self.tokens), anchor + SEARCH_DISTANCE)
        starts = [at for at in range(anchor, floor, -1) if self.tokens[at - 1].word in OPENERS]
        ends = [at for at in range(anchor + 1, roof + 1) if at == len(self.tokens) or self._ends(at)]
        for start in starts:
            for end in ends:
                if self._parses_to(start, end, bound.comparison):
                    return start, end
        raise Unlocated

    def _ends(self, at: int) -> bool:
        return self.tokens[at].word in ENDS

    def _sides(self, bound: WindowBound) -> tuple[tuple[int, int], tuple[int, int]]:
        """The ranges of the bound's subject and of its operand."""
        start, end = self.comparison(bound)
        level = self._level(start, end)
        operators = [at for at in level if self.tokens[at].word in {*COMPARISONS, "BETWEEN", "AND"}]
        cuts = [start - 1, *operators, end]
        parts = [(left + 1, right) for left, right in pairwise(cuts)]
        if isinstance(bound.comparison, exp.Between) and len(parts) == 3:  # noqa: PLR2004 (subject, low, high)
            subject, operand = parts[0], parts[1 if bound.side == "lower" else 2]
        elif len(parts) == 2:  # noqa: PLR2004 (left, right)
            subject, operand = parts if bound.comparison.this is bound.subject else (parts[1], parts[0])
        else:
            raise Unlocated
        if not (self._parses_to(*subject, bound.subject) and self._parses_to(*operand, bound.operand)):
            raise Unlocated
        return subject, operand

    def _level(self, start: int, end: int) -> list[int]:
        """The token indexes outside all brackets; empty if the brackets do not match."""
        level: list[int] = []
        depth = 0
        for at in range(start, end):
            word = self.tokens[at].word
            depth -= word in {")", "]"}
            if depth < 0:
                return []
            if depth == 0:
                level.append(at)
            depth += word in {"(", "["}
        return level if depth == 0 else []

    def _parses_to(self, start: int, end: int, node: exp.Expr) -> bool:
        if start >= end or not self._level(start, end):
            return False
        self.parses_left -= 1
        if self.parses_left < 0:
            raise Unlocated
        fragment = self.sql[self.tokens[start].start : self.tokens[end - 1].end]
        try:
            read: exp.Expr = sqlglot.parse_one(fragment, dialect="postgres", into=exp.Condition)
        except (SqlglotError, RecursionError):
            return False
        return read == node
