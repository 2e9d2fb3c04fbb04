"""Date phrases: `from March 2025 to April 2025`, `Q2 2025`, `last 30 days`, `since 2 June`.

Days come first (`02/06/2025` is 2 June), bounds are inclusive days, a named month is the whole month.
"""

import calendar
import re
from collections.abc import Callable
from datetime import date, timedelta
from typing import Literal

from msgspec import Struct, structs

from service.ask.sentence.words import Word

Unit = Literal["day", "week", "month", "quarter", "year"]

_MONTHS = {
    name: number
    for number in range(1, 13)
    for name in (calendar.month_name[number].lower(), calendar.month_abbr[number].lower())
} | {"sept": 9}
_MONTH = "|".join(sorted(_MONTHS, key=len, reverse=True))
_YEAR = r"(?P<year>(?:19|20|21)\d\d)"
_THEN_YEAR = rf"(?: ?(?:of|in|,|/|-|'))?(?: the year)?(?: {_YEAR}\b)?"
_UNIT = r"(?P<unit>day|week|month|quarter|year)"
_AND = r"(?:to|till|until|through|thru|-|and|up to|upto|& |&)"
_LEAD = (
    r"(?:(?:in|during|for|on|within|over|throughout|of|at|from|covering|across)(?: all)?(?: of)?(?: the)?"
    r"(?: (?:whole|full|entire|month|year|period|day|week|date)(?: of)?)*)"
)
_EARLIEST_YEAR, _LATEST_YEAR = 1900, 2199


class DateError(ValueError):
    """A date phrase without a possible window. The text tells why."""


class Window(Struct, frozen=True, kw_only=True):
    """Inclusive days, or a moving window (`rolling` units back from today, `period` units from this one).

    `guessed`: no year was named, so `start` and `end` lie in the latest possible year.
    """

    start: date | None = None
    end: date | None = None
    rolling: int | None = None
    period: int | None = None
    unit: Unit = "day"
    guessed: bool = False


class Found(Struct, frozen=True):
    """A window and its words: from `first`, up to but not including `end`."""

    window: Window
    first: int
    end: int


class _Period(Struct, frozen=True):
    start: date
    end: date
    guessed: bool = False


def find(words: list[Word], today: date, last: date | None = None) -> list[Found]:
    """All date phrases, in order. `last` is the latest day with data, if known.

    Raises `DateError` for days that do not exist and windows that end before they begin.
    """
    text, starts = _text(words)
    anchor = min(today, last) if last else today
    found: list[Found] = []
    position = 0
    while position < len(starts):
        at = starts[position]
        reading = _moving(text, at) or _fixed(text, at, anchor)
        if reading is None or reading[1] == at:
            position += 1
            continue
        window, stop = reading
        end = next((index for index, start in enumerate(starts) if start >= stop), len(starts))
        found.append(Found(window, position, end))
        position = end
    return _merge(found, words)


def _text(words: list[Word]) -> tuple[str, list[int]]:
    starts: list[int] = []
    text = ""
    for word in words:
        starts.append(len(text))
        text += ('"' * len(word.text) if word.quoted else word.text) + " "
    return text, starts


def _match(pattern: str, text: str, at: int) -> re.Match[str] | None:
    return re.compile(pattern + r"(?!\w)").match(text, at)


def _moving(text: str, at: int) -> tuple[Window, int] | None:
    """Windows that move with the calendar, so that the stored metric does."""
    for pattern, window in _MOVING:
        if match := _match(pattern, text, at):
            return window(match), match.end()
    return None


def _last(match: re.Match[str]) -> Window:
    # `over last week` is seven days back in the stored queries that people know
    if match["which"] == "last" and (match["the"] or match["unit"] == "week"):
        return _rolling(1, match["unit"])
    return Window(period=-1, unit=unit_named(match["unit"]))


def _to_date(match: re.Match[str]) -> Window:
    short: dict[str | None, Unit] = {"w": "week", "m": "month", "q": "quarter", "y": "year"}
    return Window(period=0, unit=short.get(match["short"]) or unit_named(match["unit"]))


def unit_named(text: str) -> Unit:
    units: dict[str, Unit] = {"week": "week", "month": "month", "quarter": "quarter", "year": "year"}
    return units.get(text, "day")


def _counted(count: int, unit: str, least: int = 1) -> int:
    most = {"month": 72_000, "quarter": 24_000, "year": 6_000}.get(unit, 100_000)
    if not least <= count <= most:  # beyond, Postgres has no such day
        raise DateError(f"{count} {unit}s is no window")
    return count


def _rolling(count: int, unit: str) -> Window:
    count = _counted(count, unit)
    days = {"day": 1, "week": 7}
    if unit in days:
        return Window(rolling=count * days[unit], unit="day")
    if unit == "quarter":
        return Window(rolling=3 * count, unit="month")
    return Window(rolling=count, unit=unit_named(unit))


_THE = r"(?:(?:in|during|for|over|within|from|of|since|on|across|throughout) )?(?P<the>the )?"
_MOVING: tuple[tuple[str, Callable[[re.Match[str]], Window]], ...] = (
    (
        _THE + rf"(?:last|past|previous|prior|recent|trailing|latest) (?P<n>\d+) {_UNIT}s?",
        lambda match: _rolling(int(match["n"]), match["unit"]),
    ),
    (_THE + rf"(?:past|preceding) {_UNIT}", lambda match: _rolling(1, match["unit"])),
    (_THE + rf"(?P<which>last|previous|prior) {_UNIT}", _last),
    (
        r"(?:so far )?" + _THE + rf"(?:this|current) {_UNIT}(?: so far| to date)?",
        lambda match: Window(period=0, unit=unit_named(match["unit"])),
    ),
    (_THE + rf"(?:{_UNIT} to date|(?P<short>[wmqy])td)", _to_date),
    (
        r"(?:(?:on|for|during|in) )?(?P<day>today|yesterday)(?: only)?",
        lambda match: Window(period=0 if match["day"] == "today" else -1),
    ),
    (rf"(?:since|from) (?P<n>\d+) {_UNIT}s? ago", lambda match: _rolling(int(match["n"]), match["unit"])),
    (r"(?:since|from) yesterday", lambda _match: _rolling(1, "day")),
    (
        rf"(?P<n>\d{{1,5}}) {_UNIT}s? ago",
        lambda match: Window(
            period=-_counted(int(match["n"]), match["unit"], 0), unit=unit_named(match["unit"])
        ),
    ),
)


def _fixed(text: str, at: int, anchor: date) -> tuple[Window, int] | None:
    """Windows with named days, months, quarters, years."""
    return _range(text, at, anchor) or _open(text, at, anchor) or _single(text, at, anchor)


def _range(text: str, at: int, anchor: date) -> tuple[Window, int] | None:
    """`from A to B`, `between A and B`, `A - B`; the first of two days may leave out its month."""
    lead = _LEAD_OF_RANGE.match(text, at)
    begin = lead.end() if lead else at
    for pattern in _DAYS_OF_MONTH:
        if match := _match(pattern, text, begin):
            first = _named_day(match["a"], match["month"], match["year"], anchor)
            last = _named_day(match["b"], match["month"], match["year"], anchor)
            return _between(first, last, match.end())
    left = _period(text, begin, anchor)
    link = _match(_LINK, text, _skip(text, left[1])) if left else None
    right = _period(text, _skip(text, link.end()), anchor) if link else None
    if left is None or link is None or right is None:
        return None
    if link["and"] and "between" not in text[at:begin]:
        return None  # `in June and July`: two windows, joined later if they touch
    return _between(left[0], right[0], right[1])


_LEAD_OF_RANGE = re.compile(
    r"(?:(?:(?:in|during|for|on|over|within) )?(?:the )?(?:period |dates? |days? |months? )?"
    r"(?:from|between|starting|starting from|starting in) |(?:in|during|for|on|over|of) (?:the )?)?(?:the )?"
)
_DAYS_OF_MONTH = (
    rf"(?P<a>\d{{1,2}}) {_AND} (?:the )?(?P<b>\d{{1,2}}) (?:of )?(?P<month>{_MONTH}){_THEN_YEAR}",
    rf"(?P<month>{_MONTH}) (?:the )?(?P<a>\d{{1,2}}) {_AND} (?:the )?(?P<b>\d{{1,2}}){_THEN_YEAR}",
)
_LINK = rf",? ?(?:(?P<and>and|&)|{_AND})(?: including)?(?: the)?(?: end of)?(?: the)?"


def _between(left: _Period, right: _Period, end: int) -> tuple[Window, int]:
    """A side without a year takes the year of the other side."""
    if left.guessed and not right.guessed:
        left = _in_year(left, right.start.year)
        if left.start > right.end:
            left = _in_year(left, right.start.year - 1)
    elif right.guessed and not left.guessed:
        right = _in_year(right, left.start.year)
        if right.end < left.start:
            right = _in_year(right, left.start.year + 1)
    elif left.guessed and right.guessed and left.start > right.end:
        left = _in_year(left, right.start.year - 1)
    if left.start > right.end:
        raise DateError(f"the window ends on {right.end} before it begins on {left.start}")
    return Window(start=left.start, end=right.end, guessed=left.guessed and right.guessed), end


def _in_year(period: _Period, year: int) -> _Period:
    start = _day(year, period.start.month, min(period.start.day, _length(year, period.start.month)))
    whole = period.end.day == _length(period.end.year, period.end.month) and period.start != period.end
    length = _length(year, period.end.month)
    end = _day(year, period.end.month, length if whole else min(period.end.day, length))
    return _Period(start, end)


def _open(text: str, at: int, anchor: date) -> tuple[Window, int] | None:
    """`since`, `after`, `before`, `until` and their like."""
    for side, pattern in _SIDES.items():
        match = _match(pattern + r"(?: the)?(?: (?:start|beginning|end) of)?(?: the)?", text, at)
        period = _period(text, _skip(text, match.end()), anchor) if match else None
        if match is None or period is None:
            continue
        named, end = period
        if side == "after":
            return Window(start=named.end + timedelta(days=1), guessed=named.guessed), end
        if side == "before":
            return Window(end=named.start - timedelta(days=1), guessed=named.guessed), end
        if side == "until":
            return Window(end=named.end, guessed=named.guessed), end
        onwards = _match(_ONWARDS, text, _skip(text, end))
        # `alerts from June 2025` is that month, `from 2 June 2025` all since that day
        whole = match.group().startswith("from") and not onwards and named.start != named.end
        window = Window(start=named.start, end=named.end if whole else None, guessed=named.guessed)
        return window, onwards.end() if onwards else end
    return None


_SIDES = {
    "since": r"(?:since|starting(?: from| on| in| with)?|beginning(?: in| on| with)?|from)",
    "after": r"(?:after|later than|following)",
    "before": r"(?:before|prior to|earlier than|preceding|ahead of)",
    "until": r"(?:until|till|up to|upto|through|up until|to|ending(?: in| on)?|by)",
}
_ONWARDS = r"(?:on|onwards?|and (?:later|after|onwards?)|(?:to|till|until) (?:now|date|today))"


def _single(text: str, at: int, anchor: date) -> tuple[Window, int] | None:
    week = _match(r"(?:(?:in|for|during|over) )?(?:the )?week of(?: the)?", text, at)
    lead = week or _match(_LEAD, text, at)
    begin = _skip(text, lead.end()) if lead else at
    period = _period(text, begin, anchor, led=lead is not None)
    if period is None:
        return None
    named, end = period
    if week and named.start == named.end:
        monday = named.start - timedelta(days=named.start.weekday())
        return Window(start=monday, end=monday + timedelta(days=6), guessed=named.guessed), end
    if onwards := _match(r"(?:onwards?|and later|and after|and onwards?)", text, _skip(text, end)):
        return Window(start=named.start, guessed=named.guessed), onwards.end()
    if earlier := _match(r"(?:and|or) (?:before|earlier)", text, _skip(text, end)):
        return Window(end=named.end, guessed=named.guessed), earlier.end()
    return Window(start=named.start, end=named.end, guessed=named.guessed), end


def _skip(text: str, at: int) -> int:
    return at + 1 if text[at : at + 1] == " " else at


def _period(text: str, at: int, anchor: date, *, led: bool = True) -> tuple[_Period, int] | None:
    """A day, month, quarter, half or year at this place; a bare `may` must be `led` by a word."""
    for pattern in _DAYS:
        if match := _match(pattern, text, at):
            return _one(_day(int(match["y"]), int(match["m"]), int(match["d"]))), match.end()
    for pattern in _DAYS_BY_NAME:
        if match := _match(pattern, text, at):
            return _named_day(match["day"], match["month"], match["year"], anchor), _close(match)
    for pattern in _MONTHS_BY_NUMBER:
        if match := _match(pattern, text, at):
            return _months(int(match["y"]), int(match["m"]), 1), match.end()
    if match := _match(rf"(?P<month>{_MONTH})\.?{_THEN_YEAR}", text, at):
        if not match["year"] and not led and match["month"] in _ALSO_WORDS:
            return None
        return _of_months(match["year"], anchor, _MONTHS[match["month"]], 1), _close(match)
    return _part_of_year(text, at, anchor)


_DAYS = (
    r"(?P<y>\d{4})-(?P<m>\d{1,2})-(?P<d>\d{1,2})",
    r"(?P<d>\d{1,2})[./](?P<m>\d{1,2})[./](?P<y>\d{4})",
)
_DAYS_BY_NAME = (
    rf"(?P<day>\d{{1,2}}) (?:of )?(?P<month>{_MONTH}){_THEN_YEAR}",
    rf"(?P<month>{_MONTH}) (?:the )?(?P<day>\d{{1,2}})(?! \d)(?: of)?{_THEN_YEAR}",
)
_MONTHS_BY_NUMBER = (r"(?P<y>\d{4})-(?P<m>\d{1,2})", r"(?P<m>\d{1,2})[./](?P<y>\d{4})")
_ALSO_WORDS = frozenset({"may", "march", "mar", "dec", "sep"})


def _part_of_year(text: str, at: int, anchor: date) -> tuple[_Period, int] | None:
    for pattern, length in (
        (rf"q ?(?P<n>[1-4])(?:(?:-| - | )?{_YEAR}|{_THEN_YEAR})", 3),
        (rf"(?:the )?(?P<n>[1-4]) quarter{_THEN_YEAR}", 3),
        (rf"quarter (?P<n>[1-4]){_THEN_YEAR}", 3),
        (rf"{_YEAR}[ -]?(?:- )?q(?P<n>[1-4])", 3),
        (rf"h(?P<n>[12]){_THEN_YEAR}", 6),
        (rf"{_YEAR} h(?P<n>[12])", 6),
        (rf"(?:the )?(?P<n>[12]) half of (?:the year )?{_YEAR}", 6),
    ):
        named = pattern.replace("(?P<year>", "(?P<first>", 1) if pattern.count("(?P<year>") > 1 else pattern
        if match := _match(named, text, at):
            groups = match.groupdict()
            year = groups.get("first") or groups["year"]
            return _of_months(year, anchor, (int(match["n"]) - 1) * length + 1, length), _close(match)
    if match := _match(rf"(?:the )?(?:year |calendar year )?{_YEAR}", text, at):
        return _months(int(match["year"]), 1, 12), match.end()
    return None


def _close(match: re.Match[str]) -> int:
    """Without its year, the phrase ends before the comma or `of` that might have led to one."""
    text = match.group()
    return match.start() + len(re.sub(r"(?: ?(?:of|in|,|/|-|'))?(?: the year)?$", "", text).rstrip())


def _named_day(day: str, month: str, year: str | None, anchor: date) -> _Period:
    number = _MONTHS[month]
    if year:
        return _one(_day(int(year), number, int(day)))
    guess = anchor.year if (number, int(day)) <= (anchor.month, anchor.day) else anchor.year - 1
    found = _one(_day(guess, number, int(day)))
    return structs.replace(found, guessed=True)


def _of_months(year: str | None, anchor: date, month: int, count: int) -> _Period:
    if year:
        return _months(int(year), month, count)
    guess = anchor.year if month <= anchor.month else anchor.year - 1
    return structs.replace(_months(guess, month, count), guessed=True)


def _months(year: int, month: int, count: int) -> _Period:
    last = month + count - 1
    return _Period(_day(year, month, 1), _day(year, last, _length(year, last)))


def _length(year: int, month: int) -> int:
    if not 1 <= month <= 12:  # noqa: PLR2004
        raise DateError(f"there is no month {month}")
    return calendar.monthrange(year, month)[1]


def _one(day: date) -> _Period:
    return _Period(day, day)


def _day(year: int, month: int, day: int) -> date:
    if not _EARLIEST_YEAR <= year <= _LATEST_YEAR:
        raise DateError(f"the year {year} is out of reach")
    try:
        return date(year, month, day)
    except ValueError:
        raise DateError(f"there is no day {year}-{month:02}-{day:02} (day first, then month)") from None


def _merge(found: list[Found], words: list[Word]) -> list[Found]:
    """Join windows that touch, as in `in June and July 2025`."""
    merged: list[Found] = []
    for item in found:
        before = merged[-1] if merged else None
        if before is None or not _listed(before, item, words):
            merged.append(item)
            continue
        left, right = before.window, item.window
        if left.start and right.start and left.end and right.end:
            window = _join(
                _Period(left.start, left.end, left.guessed), _Period(right.start, right.end, right.guessed)
            )
            if window is not None:
                merged[-1] = Found(window, before.first, item.end)
                continue
        merged.append(item)
    return merged


def _listed(before: Found, item: Found, words: list[Word]) -> bool:
    between = [word.text for word in words[before.end : item.first]]
    return bool(between) and all(text in {"and", ",", "&", "plus"} for text in between)


def _join(left: _Period, right: _Period) -> Window | None:
    if left.guessed and not right.guessed:
        left = _in_year(left, right.start.year)
    if right.start != left.end + timedelta(days=1):
        return None
    return Window(start=left.start, end=right.end, guessed=left.guessed and right.guessed)
