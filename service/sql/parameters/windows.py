"""Date windows: locate in the text the bounds that `start_date`, `end_date` and `day_range` may replace.

Windows are adjustable if all windows of a statement agree: they have the same bounds, on any columns, in
subqueries and UNION branches too. Then all of them move together. Windows that differ are left unchanged,
because we cannot know which one a caller means. `edits` checks what their slots make of the statement.
"""

from datetime import datetime, tzinfo
from typing import Literal

from msgspec import Struct
from sqlglot import exp

from service.sql.lexer import place
from service.sql.parameters.bounds import (
    LAST_SECOND,
    LITERAL,
    MIDNIGHT,
    Limit,
    WindowBound,
    bare,
    day_in,
    is_clock,
    unit_of,
    windows,
)
from service.sql.parameters.days import SHIFTS, Slot, shift_for
from service.sql.parameters.period import period_of
from service.sql.parameters.rest import suspect_of
from service.sql.validation.dialect import span_of
from service.sql.validation.parsing import Statement, UnparsedStatement

START, END, RANGE = "start_date", "end_date", "day_range"
NAMES = (START, END, RANGE)
Mode = Literal["auto", "off"]
SHOWN_LIMIT = 40
ADDED = " AND "


NO_WINDOW = (
    "No condition that always holds bounds a date by a constant from below, such as day >= '2025-06-01'"
    " or day BETWEEN '2025-06-01' AND '2025-06-30'"
)
NOT_ADJUSTABLE = "Its date windows are written in a way that is not adjustable"
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
    """A bound cannot be replaced."""


def find_windows(
    statement: Statement | UnparsedStatement, *, taken: frozenset[str], mode: Mode, zone: tzinfo
) -> WindowSlots:
    """Find the windows of a statement and the slots that move them.

    `taken` are the names that placeholders use already. `zone` is the time zone of the statement's sessions.
    """
    if mode == "off":
        return WindowSlots(why_not=SWITCHED_OFF)
    if statement.tree is None:
        return WindowSlots(why_not=UNREAD)
    found = windows(statement.tree)
    if not found or taken & {*NAMES}:
        return WindowSlots()
    if refusal := _refusal(statement, found, zone):
        return refusal
    try:
        slots = [slot for bounds in found for slot in _slots(statement, bounds)]
    except Unlocated:
        return WindowSlots(why_not=NOT_ADJUSTABLE, at=_place(found[0][0].operand))
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


def _refusal(statement: Statement, found: list[list[WindowBound]], zone: tzinfo) -> WindowSlots | None:
    """The reason why the windows are not adjustable, and its place; None if they are."""
    for bounds in found:
        if _identity(bounds) != _identity(found[0]):
            different = next(bound for bound in bounds if bound.limit)
            return WindowSlots(
                why_not="Its date windows differ from each other, so they are not adjustable",
                at=_place(different.operand),
            )
        upper = next((bound for bound in bounds if bound.limit and bound.side == "upper"), None)
        lower = [bound for bound in bounds if bound.side == "lower"]
        if upper and not any(bound.limit or bound.operand.find(exp.Placeholder) for bound in lower):
            return WindowSlots(
                why_not='Its window has only an upper bound, which means "as of", so it is not adjustable',
                at=_place(upper.operand),
            )
        if zoned := next(
            (bound for bound in bounds if bound.limit and _uses_other_zone(bound.operand, zone)), None
        ):
            return WindowSlots(
                why_not="Its date window is written in a time zone of its own, so it is not adjustable",
                at=_place(zoned.operand),
            )
    replaced = {id(bound.operand) for bounds in found for bound in bounds if bound.limit}
    suspect = suspect_of(statement.tree, period_of(found[0]), replaced)
    if suspect is None:
        return None
    at = _place(suspect.node)
    said = f"{suspect.description}{_shown(statement, at)}"
    return WindowSlots(
        why_not=f"Its date window is not adjustable: {said} may speak of the same period and would stay as"
        " it is",
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
    day = day_in(text)
    if found is None or day is None or not found["zone"]:
        return False
    if not (MIDNIGHT.fullmatch(found["time"]) or LAST_SECOND.match(found["time"])):
        return False
    try:
        moment = datetime.fromisoformat(f"{day}T{found['time']}{found['zone']}")
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


def _slots(statement: Statement, bounds: list[WindowBound]) -> list[Slot]:
    limits = _limits(bounds)
    if len(_identity(bounds)) != len(limits) or any(_in_recursion(bound.comparison) for bound in bounds):
        raise Unlocated
    lower, upper = limits.get("lower"), limits.get("upper")
    slots = [slot for bound in bounds if bound.limit for slot in _replacing(bound, lower)]
    if "upper" not in limits and lower:
        slots.append(_adding(statement, bounds[0], END, frozenset({END}), "<="))
    elif "lower" not in limits and upper:
        slots.append(_adding(statement, bounds[0], START, frozenset({START, RANGE}), ">="))
    return slots


def _replacing(bound: WindowBound, lower: Limit | None) -> list[Slot]:
    """Slots that replace a bound. `day_range` changes an interval's length; any other window ends today."""
    name = START if bound.side == "lower" else END
    template = SHIFTS[shift_for(name, bound.operator)]
    limit = bound.limit
    sliding = lower is not None and lower.back is not None
    if bound.side == "lower" and limit and limit.back:
        length = "{}" if isinstance(bare(limit.back.expression), exp.Literal) else "make_interval(days => {})"
        return [
            Slot(*_span(bound.operand), name, frozenset({START}), template),
            Slot(*_span(limit.back.expression), RANGE, frozenset({RANGE}), length),
        ]
    ranged = not (sliding and limit and limit.clock)
    return [Slot(*_span(bound.operand), name, frozenset({name, RANGE} if ranged else {name}), template)]


def _adding(statement: Statement, bound: WindowBound, name: str, on: frozenset[str], operator: str) -> Slot:
    """A slot after a comparison, for a comparison of its column with another day."""
    first, last = _span(bound.subject)
    inside = (part for part in statement.lexemes if first <= part.start < last)
    subject = " ".join(statement.sql[part.start : part.end] for part in inside)  # without comments
    template = (
        f"{subject} {operator} ".replace("{", "{{").replace("}", "}}") + SHIFTS[shift_for(name, operator)]
    )
    end = _span(bound.comparison.expression)[1]
    return Slot(end, end, name, on, f"{ADDED}{template}")


def _span(node: exp.Expr) -> tuple[int, int]:
    span = span_of(node)
    if span is None:
        raise Unlocated
    return span


def _place(node: exp.Expr) -> int | None:
    """The offset of a node, or of the nearest node around it that has one."""
    here: exp.Expr | None = node
    while here is not None:
        starts = [part.meta["start"] for part in here.walk() if "start" in part.meta]
        if starts:
            return min(starts)
        here = here.parent
    return None


def _shown(statement: Statement, at: int | None) -> str:
    """The word or constant at that offset, after a blank and in brackets; empty if it is long."""
    found = next((part for part in statement.lexemes if part.start == at), None)
    return (
        f" ({statement.sql[found.start : found.end]})"
        if found and found.end - found.start <= SHOWN_LIMIT
        else ""
    )
