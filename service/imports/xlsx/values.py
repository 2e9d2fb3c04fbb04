"""Convert cell values to text: numbers keep their digits, dates and times become ISO 8601."""

import re
from datetime import datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Final

NUMBER: Final = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?")
SERIAL: Final = re.compile(r"[0-9]{5}(?:\.[0-9]{1,15})?")
WIDEST: Final = 60
"""A number is written without exponent up to this many digits before or after the point."""
TYPED_DIGITS: Final = 15
"""Excel keeps at most this many digits of a typed number."""
EPOCH_1900: Final = datetime(1899, 12, 30)  # noqa: DTZ001 (cells have no zone)
EPOCH_1904: Final = datetime(1904, 1, 1)  # noqa: DTZ001 (cells have no zone)
LAST: Final = {False: 2_958_466, True: 2_957_004}
"""The first day after the year 9999, by whether days count from 1904."""
MISSING_DAY: Final = 60
"""29 February 1900, which does not exist. Earlier days count from one day later."""
DAY_MS: Final = 86_400_000
UNIT_MS: Final = {"h": 3_600_000, "m": 60_000, "s": 1000}


@lru_cache(maxsize=1 << 14)
def number_text(text: str) -> str:
    """Write a number in plain notation with all its digits. Other text does not change.

    Spreadsheets store 1.1 as 1.1000000000000001, with the 16 or 17 digits of its binary form. Such a fraction
    becomes the number of at most 15 digits that was typed.
    """
    text = text.strip()
    if not NUMBER.fullmatch(text):
        return text
    number = Decimal(text)
    if number and abs(number.adjusted()) > WIDEST:
        return text
    plain = format(number, "f")
    whole, _, fraction = plain.partition(".")
    if not fraction.strip("0"):
        return "0" if not number else whole
    if len(number.as_tuple().digits) > TYPED_DIGITS:
        return _typed(number) or plain
    return plain


def _typed(number: Decimal) -> str:
    """The number of at most 15 digits with the same binary form, if there is one."""
    binary = float(number)
    short = Decimal(repr(binary))
    is_binary_form = number in {Decimal(f"{binary:.16g}"), Decimal(f"{binary:.17g}")}
    return format(short, "f") if is_binary_form and len(short.as_tuple().digits) <= TYPED_DIGITS else ""


@lru_cache(maxsize=1 << 14)
def moment_text(text: str, *, from_1904: bool) -> str:
    """Convert a day number to a date, a time or both, to the millisecond. Other numbers do not change."""
    text = text.strip()
    serial = float(text) if NUMBER.fullmatch(text) else -1
    if not 0 <= serial < LAST[from_1904] or (int(serial) == MISSING_DAY and not from_1904):
        return number_text(text)
    days, milliseconds = divmod(round(serial * DAY_MS), DAY_MS)
    if not from_1904 and 0 < days < MISSING_DAY:
        days += 1
    moment = (EPOCH_1904 if from_1904 else EPOCH_1900) + timedelta(days, milliseconds=milliseconds)
    return moment.time().isoformat() if days < 1 else _written(moment)


def elapsed_text(text: str, shows: str) -> str:
    """Write a duration in days as `h:mm:ss`, or as the sheet shows it by the units of `shows` (`hm`, `ms`).

    Units that would lose a part of the duration are not followed.
    """
    text = number_text(text)
    if not NUMBER.fullmatch(text) or abs(float(text)) > LAST[False]:
        return text
    left = abs(round(float(text) * DAY_MS))
    for units in (shows, "hms"):
        found, rest = list[str](), left
        for unit in units:
            number, rest = divmod(rest, UNIT_MS[unit])
            found.append(f"{number:02}" if found else str(number))
        if found and (not rest or units == "hms"):
            break
    fraction = f".{rest:03}".rstrip("0") if rest else ""
    return f"{'-' if left and float(text) < 0 else ''}{':'.join(found)}{fraction}"


def iso_text(text: str) -> str:
    """Normalise a date or time that is ISO 8601 text."""
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        return text
    return text if moment.tzinfo else _written(moment)


def _written(moment: datetime) -> str:
    midnight = moment.hour == moment.minute == moment.second == moment.microsecond == 0
    return moment.date().isoformat() if midnight else moment.isoformat(" ")
