"""Read number formats: which numbers are dates, times or durations, and which are padded with zeros."""

import re
from typing import Final, Literal

from msgspec import Struct

CODE_CHARACTERS: Final = 1024
PADDING_ZEROS: Final = 2
TOKEN: Final = re.compile(r'"([^"]*)"?|\\(.)|(_.?)|(\*.?)|\[([^\]]*)\]?|(.)', re.DOTALL)
ELAPSED: Final = re.compile(r"h+|m+|s+", re.IGNORECASE)
COLOUR: Final = re.compile(r"black|blue|cyan|green|magenta|red|white|yellow|colou?r *[0-9]+", re.IGNORECASE)
DATE_LETTERS: Final = frozenset("ymdhs")
DIGITS: Final = frozenset("0#?")
FREE: Final = frozenset("-()+: $!^&'~{}<>=")
"""Literal characters that need no quotes in a format. Other characters mean more than padding."""


class Format(Struct, frozen=True):
    """How a number is shown. `pad` is a pattern of digit places and literal texts, if the format pads.
    `pads_zero` is false if zero has its own format. `shows` are the units of a duration, such as `hm`.
    """

    kind: Literal["number", "moment", "elapsed"] = "number"
    pad: tuple[tuple[bool, str], ...] = ()
    pads_zero: bool = True
    shows: str = ""


PLAIN: Final = Format()
MOMENT: Final = Format("moment")
LENGTH: Final = Format("elapsed")
UNITS: Final = re.compile(r"\[(h+|m+|s+)\](?::(mm))?(?::(ss))?(?:\.0+)?(?:;.*)?", re.IGNORECASE | re.DOTALL)
"""The plain formats of durations. Others are read too, but not written as the sheet shows them."""
BUILT_IN: Final = {
    **{str(number): MOMENT for number in (*range(14, 23), *range(27, 37), 45, 47, *range(50, 59))},
    "46": Format("elapsed", shows="hms"),
}


def read_format(code: str) -> Format:
    """Parse the first section of a format code, which is for positive numbers."""
    if len(code) > CODE_CHARACTERS or code.casefold() == "general":
        return PLAIN
    pattern: list[tuple[bool, str]] = []
    pads = pads_zero = True
    for quoted, escaped, space, fill, bracket, symbol in TOKEN.findall(code):
        if symbol == ";":
            pads_zero = False
            break
        if symbol.lower() in DATE_LETTERS:
            return MOMENT
        if bracket and ELAPSED.fullmatch(bracket):
            return _elapsed(code)
        if COLOUR.fullmatch(bracket):
            continue
        if symbol in DIGITS or symbol in FREE:
            pattern.append((symbol in DIGITS, symbol))
        elif symbol or fill or (bracket and not bracket.startswith("$")):
            pads = False
        else:
            pattern.append((False, quoted or escaped or (" " if space else currency(bracket))))
    zeros = sum(digit and symbol == "0" for digit, symbol in pattern)
    return Format(pad=tuple(pattern), pads_zero=pads_zero) if pads and zeros >= PADDING_ZEROS else PLAIN


def _elapsed(code: str) -> Format:
    """The units follow each other: `[h]:mm`, `[mm]:ss`, `[h]:mm:ss`."""
    found = UNITS.fullmatch(code)
    shows = "" if found is None else "".join(each[0].lower() for each in found.groups("") if each)
    return Format("elapsed", shows=shows) if shows in "hms" else LENGTH


def currency(bracket: str) -> str:
    """`[$€-407]` shows the sign before the locale."""
    return bracket.removeprefix("$").partition("-")[0]


def padded(digits: str, form: Format) -> str:
    """Write the digits of a whole number into the places of the format. The first place takes all the rest.

    Other numbers keep their digits.
    """
    if not (form.pad and digits.isdecimal() and (form.pads_zero or digits != "0")):
        return digits
    places = [at for at, (is_digit, _) in enumerate(form.pad) if is_digit]
    shown = [text for _, text in form.pad]
    left = digits
    for at in reversed(places):
        symbol = shown[at]
        taken, left = (left, "") if at == places[0] else (left[-1:], left[:-1])
        shown[at] = taken or {"0": "0", "?": " "}.get(symbol, "")
    return "".join(shown)
