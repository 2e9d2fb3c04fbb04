"""A question in words, for a heading."""

from datetime import date

from service.ask.question.shapes import OUTER, Condition, Measure, Question
from service.ask.sentence.dates import Window

_WORDS = {"sum": "Total", "avg": "Average", "min": "Lowest", "max": "Highest", "count": "Count of"}


def understood(question: Question) -> tuple[str, ...]:
    """How a prompt was understood, part by part."""
    parts = [_measured(measure, question.noun) for measure in question.measures] or [
        f"rows of {question.noun}"
    ]
    parts += [f"by {_words(group.name)}" for group in question.groups]
    parts += [f"where {_where(condition)}" for condition in question.conditions]
    parts += [f"with {bound.operator} {bound.number:g} each" for bound in question.having]
    parts += [period(question.window)] if question.window else []
    return (
        *parts,
        *(
            [f"the {'last' if question.direction == 'asc' else 'first'} {question.limit}"]
            if question.limit
            else []
        ),
    )


def title(question: Question) -> str:
    """A title such as `Count of orders by status, June 2025`."""
    parts = [_head(question)]
    wheres = [_where(condition) for condition in question.conditions if condition.operator != "not null"]
    if wheres:
        parts[0] += " where " + " and ".join(wheres)
    if question.window:
        parts.append(period(question.window))
    text = ", ".join(parts)
    return text[:1].upper() + text[1:]


def _head(question: Question) -> str:
    noun = question.noun
    groups = [_words(group.name) for group in question.groups]
    if question.listed:
        return f"{'Latest ' if question.direction == 'desc' else ''}{noun}" + (
            f", {question.limit} rows" if question.limit else ""
        )
    if not question.measures:
        return " and ".join(groups) + (f" in {noun}" if groups else noun)
    measures = " and ".join(_measured(measure, noun) for measure in question.measures)
    if question.counted:
        return f"number of {' and '.join(groups)} groups by {measures}"
    by = f" by {' and '.join(groups)}" if groups else ""
    having = "".join(f" {bound.operator} {bound.number:g}" for bound in question.having)
    if question.limit and groups:
        side = "top" if question.direction != "asc" else "bottom"
        count = f" {question.limit}" if question.limit > 1 else ""
        return f"{side}{count} {' and '.join(groups)} by {measures}{having}"
    return f"{measures}{by}{having}"


def _measured(measure: Measure, noun: str) -> str:
    outer = f"{OUTER[measure.outer]} " if measure.outer and measure.outer != "sum" else ""
    if measure.ref is None:
        return f"{outer}count of {noun}"
    what = _words(f"{measure.unit}s" if measure.unit else measure.ref.column.name)
    if measure.function == "count":
        return f"{outer}count of {'different ' if measure.distinct else ''}{what}"
    return f"{outer}{_WORDS[measure.function].lower()} {what}"


def _where(condition: Condition) -> str:
    name = _words(condition.ref.column.name)
    if condition.operator == "not null":
        return " or ".join(
            f"{_words(ref.column.name)} is known" for ref in (condition.ref, *condition.others)
        )
    if condition.operator == "missing":
        return f"there are no {_words(condition.others[0].table.name)}"
    values = " or ".join(
        f"{value:g}" if isinstance(value, float) else str(value) for value in condition.values
    )
    spoken = {"in": "is", "not in": "is not", "=": "is"}.get(condition.operator, condition.operator)
    return f"{name} {spoken} {values}"


def period(window: Window) -> str:
    """A window in words: `June 2025`, `since 2 June 2025`, `last 30 days`."""
    if window.rolling is not None:
        unit = window.unit if window.rolling == 1 else f"{window.unit}s"
        return f"last {window.rolling} {unit}"
    if window.period is not None:
        return {0: f"this {window.unit}", -1: f"previous {window.unit}"}.get(
            window.period, f"{-window.period} {window.unit}s ago"
        )
    start, end = window.start, window.end
    if start and end:
        return _span(start, end)
    return f"since {_date(start)}" if start else f"until {_date(end)}" if end else ""


def _span(start: date, end: date) -> str:
    following = date.fromordinal(end.toordinal() + 1)
    if start == end:
        return _date(start)
    if start.day == 1 and following.day == 1:
        if (start.year, start.month) == (end.year, end.month):
            return f"{start:%B %Y}"
        if start.month == 1 and following.month == 1 and start.year == end.year:
            return f"{start:%Y}"
        return f"{start:%B %Y} to {end:%B %Y}"
    return f"{_date(start)} to {_date(end)}"


def _date(day: date | None) -> str:
    return f"{day.day} {day:%B %Y}" if day else ""


def _words(name: str) -> str:
    return name.replace("_", " ")
