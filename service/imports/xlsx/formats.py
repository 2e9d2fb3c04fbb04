"""Number formats: which numbers are moments or lengths of time, and which are padded with zeros."""

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
"""Characters that need no quotes in a format; others in a number's format mean more than padding."""


class Format(Struct, frozen=True):
    """How a number is shown. `pad` is a pattern of places for digits and texts between them, if it pads;
    `pads_zero` says that zero has no form of its own.
    """

    kind: Literal["number", "moment", "elapsed"] = "number"
    pad: tuple[tuple[bool, str], ...] = ()
    pads_zero: bool = True


PLAIN: Final = Format()
MOMENT: Final = Format("moment")
LENGTH: Final = Format("elapsed")
BUILT_IN: Final = {
    **{str(number): MOMENT for number in (*range(14, 23), *range(27, 37), 45, 47, *range(50, 59))},
    "46": LENGTH,
}


def read_format(code: str) -> Format:
    """Understand a format code by its first section, which is that of positive numbers."""
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
            return LENGTH
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


def currency(bracket: str) -> str:
    """`[$€-407]` shows the sign before the locale."""
    return bracket.removeprefix("$").partition("-")[0]


def padded(digits: str, form: Format) -> str:
    """Show the digits of a whole number in the places of the format; the first place takes all that are left.

    Other numbers are told with their own digits.
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
