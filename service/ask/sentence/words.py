"""Cut a prompt into words, turn number words into digits, and cut endings off."""

import re
import unicodedata
from collections.abc import Iterator
from itertools import islice

from msgspec import Struct

WORDS = 60
"""Words and signs that a prompt has at most: each costs time, during which nobody else is served."""
DIGITS = 30
"""Longer ones count nothing."""

_WORD = re.compile(
    r"""
      (?<!\w)'(?P<single>[^']{1,200})'(?!\w)
    | (?<!\w)"(?P<double>[^"]{1,200})"
    | (?P<date>\d{4}-\d{1,2}(?:-\d{1,2})?(?![\w-]) | \d{1,2}[./](?:\d{1,2}[./])?\d{4}(?!\w))
    | (?P<quarter>\d{4}[ -]?q[1-4](?!\w) | q[1-4]-?\d{4}(?!\w))
    | (?P<ordinal>\d{1,4})(?:st|nd|rd|th)(?!\w)
    | (?P<number>\d{1,3}(?:,\d{3})+(?:\.\d+)?(?!\w) | \d+(?:\.\d+)?(?!\w))
    | (?P<word>[^\W_]+)(?:'[a-z]{1,2}(?!\w))?
    | (?P<sign>>=|<=|<>|!=|[^\w\s])
    """,
    re.VERBOSE,
)
_QUOTES = str.maketrans("\u2018\u2019\u201c\u201d\u2013\u2014", "''\"\"--")
_FIRST_NUMBERS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen twenty"
)
_NUMBERS = {name: value for value, name in enumerate(_FIRST_NUMBERS.split())} | {
    "thirty": 30,
    "forty": 40,
    "fifty": 50,
    "sixty": 60,
    "seventy": 70,
    "eighty": 80,
    "ninety": 90,
    "hundred": 100,
    "dozen": 12,
}
_ORDINALS = {
    "first": 1, "second": 2, "third": 3, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7, "eighth": 8,
    "ninth": 9, "tenth": 10,
}  # fmt: skip
_ENDINGS = (
    # ending, letters the rest must keep
    ("ation", 4),
    ("ment", 4),
    ("ing", 3),
    ("ed", 3),
    ("ion", 5),
    ("al", 5),
)


class Word(Struct, frozen=True):
    """`text` is case-folded, with number words as digits. A `quoted` text is one word."""

    text: str
    raw: str
    quoted: bool = False

    @property
    def stem(self) -> str:
        return stem(self.text)

    @property
    def number(self) -> int | float | None:
        if self.quoted or len(self.text) > DIGITS or not re.fullmatch(r"\d+(\.\d+)?", self.text):
            return None
        return float(self.text) if "." in self.text else int(self.text)


def cut(prompt: str) -> list[Word]:
    """The words and signs of a prompt in order, without spaces; at most `WORDS` + 1."""
    text = unicodedata.normalize("NFKC", prompt).translate(_QUOTES)
    return list(_join_numbers(_pending(list(islice(_cut(text), WORDS + 1)))))


def stems(text: str) -> tuple[str, ...]:
    """The stems of a name of a schema, such as `orderType`, `order_type` or `On order`."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", unicodedata.normalize("NFKC", text))
    return tuple(stem(part.casefold()) for part in re.findall(r"[^\W_]+", spaced))


def stem(word: str) -> str:
    """Cut plural and verb endings. The stem may be no English word, but all forms of a word share it."""
    short = singular(word)
    for ending, rest in _ENDINGS:
        if short.endswith(ending) and len(short) - len(ending) >= rest and not short.endswith("eed"):
            short = short[: -len(ending)]
            break
    if len(short) > 3 and short.endswith("e"):  # noqa: PLR2004 (due, fee and their like keep it)
        short = short[:-1]
    if len(short) > 3 and short[-1] == short[-2]:  # noqa: PLR2004
        short = short[:-1]
    return short


def singular(word: str) -> str:
    if len(word) <= 3 or not word.endswith("s") or word.endswith(("ss", "us", "is")):  # noqa: PLR2004
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith(("sses", "xes", "ches", "shes", "zes", "uses")):
        return word[:-2]
    return word[:-1]


def _cut(text: str) -> Iterator[Word]:
    for match in _WORD.finditer(text):
        kind, raw = match.lastgroup or "sign", match.group()
        part = (match[kind] or raw).casefold()
        if kind in {"single", "double"}:
            yield Word(" ".join(part.split()), raw, quoted=True)
        elif kind == "number":
            yield Word(part.replace(",", ""), raw)
        elif kind == "word":
            yield Word(_digits(part), raw)
        else:
            yield Word(part, raw)


def _pending(words: list[Word]) -> Iterator[Word]:
    """Read `to be approved` as `pending approved`, which differs from `approved`."""
    skipped = False
    for word, following, after in zip(words, [*words[1:], None], [*words[2:], None, None], strict=False):
        if skipped:
            skipped = False
        elif (
            word.text == "to" and following and following.text == "be" and after and after.text.endswith("ed")
        ):
            yield Word("pending", "to be")
            skipped = True
        else:
            yield word


def _digits(word: str) -> str:
    return str(_NUMBERS.get(word, _ORDINALS.get(word, word)))


def _join_numbers(words: Iterator[Word]) -> Iterator[Word]:
    """Join `twenty five` and `twenty-five`. Numbers written in digits stay apart."""
    kept: list[Word] = []
    for word in words:
        tens = _spelled(kept[-1]) if kept and kept[-1].text != "-" else 0
        if len(kept) > 1 and kept[-1].text == "-":
            tens = _spelled(kept[-2])
        ones = _spelled(word)
        if tens >= 20 and tens % 10 == 0 and 0 < ones < 10 and tens < 100:  # noqa: PLR2004
            joined = kept.pop()
            joined = kept.pop() if joined.text == "-" else joined
            kept.append(Word(str(tens + ones), f"{joined.raw} {word.raw}"))
        elif word.text == "100" and kept and kept[-1].raw.casefold() in {"a", "one"} | set(_NUMBERS):
            factor = kept.pop()
            kept.append(Word(str(100 * (factor.number or 1)), f"{factor.raw} {word.raw}"))
        else:
            kept.append(word)
    yield from kept


def _spelled(word: Word) -> int:
    written = word.raw.casefold()
    return _NUMBERS.get(written, _ORDINALS.get(written, 0))
