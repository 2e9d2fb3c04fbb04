"""Cut a prompt into tokens: dates, names of the schema, keywords, numbers, unknown words."""

from pathlib import Path
from typing import Final, Literal

from msgspec import Struct, convert

from service.ask.sentence.dates import Found, Window
from service.ask.sentence.lexicon import PARTIAL, Lexicon, Mention
from service.ask.sentence.words import Word

Role = Literal[
    "aggregate",  # count, sum, avg, min, max
    "distinct",
    "by",  # what follows is what to split by
    "every",  # the same, but it never introduces what to rank by
    "grain",  # `daily`
    "single",  # `in a single day`: the one with the most of what is asked for
    "time",  # `day`
    "superlative",  # `most`: desc or asc
    "extreme",  # `highest`: a superlative, or the aggregate max
    "common",  # `most common`: ranks by number of rows; `active`: of rows that refer to it
    "top",
    "rank",  # `rank ... by`
    "which",
    "what",
    "not",
    "compare",  # an operator; a number follows
    "and",
    "versus",
    "contrast",  # the values that follow are shown side by side
    "order",
    "direction",
    "by-name",  # sorted by what it is split by
    "list",
    "show",
    "recent",  # `latest`: desc; `first`: asc
    "when",
    "rows",  # `records`: a noun that names no table
    "link",  # `in`, `with`, `where`: ends a list
    "empty",  # says nothing
    "vague",  # says little; it is reported
    "whole",  # `overall`: one number, not one a day
]

SILENT: Final[frozenset[Role | None]] = frozenset({"empty", "vague", "whole"})
"""Words that do not come between two others."""


class Keyword(Struct, frozen=True):
    role: Role
    what: str = ""


def _load(text: str) -> dict[tuple[str, ...], Keyword]:
    phrases: dict[tuple[str, ...], Keyword] = {}
    blocks = "\n".join(line for line in text.splitlines() if not line.startswith("#")).strip().split("\n\n")
    for block in blocks:
        heading, _, body = block.partition(":\n")
        role, _, what = heading.partition(" ")
        keyword = Keyword(convert(role, Role), what)
        for phrase in body.replace("\\,", "COMMA").split(","):
            words = tuple("," if word == "COMMA" else word for word in phrase.split())
            phrases.setdefault(words, keyword)
    return phrases


KEYWORDS: Final = _load(Path(__file__).with_name("keywords.txt").read_text(encoding="utf-8"))
LONGEST: Final = max(len(phrase) for phrase in KEYWORDS)


class Token(Struct, frozen=True):
    """One token. Exactly one of the last four fields is set, or none for an unknown word."""

    words: tuple[Word, ...]
    keyword: Keyword | None = None
    mention: Mention | None = None
    window: Window | None = None
    number: float | None = None

    @property
    def text(self) -> str:
        return " ".join(word.raw for word in self.words)

    @property
    def role(self) -> Role | None:
        return self.keyword.role if self.keyword else None


def tokens(words: list[Word], lexicon: Lexicon, found: list[Found]) -> list[Token]:
    """Cover all words: dates first, then the longest match. Keywords win over names of equal length."""
    found = [item for item in found if not _counts(words, item, lexicon)]
    windows = {item.first: item for item in found}
    barriers = frozenset(index for item in found for index in range(item.first, item.end)) | _stops(words)
    made: list[Token] = []
    at = 0
    while at < len(words):
        if at in windows:
            item = windows[at]
            made.append(Token(tuple(words[at : item.end]), window=item.window))
            at = item.end
            continue
        limit = min((item.first for item in found if item.first > at), default=len(words))
        token = _token(words, at, limit, lexicon, barriers)
        made.append(token)
        at += len(token.words)
    return made


def _counts(words: list[Word], found: Found, lexicon: Lexicon) -> bool:
    """Whether a bare year is a number of rows: in `top 2000 orders`, or of a table without dates."""
    first = found.first
    if found.end > first + 1 or words[first].number is None or found.end == len(words):
        return False
    mention = lexicon.at(words, found.end, frozenset())
    before = {
        keyword.role for n in (1, 2) if (keyword := KEYWORDS.get(_keys(words[max(first - n, 0) : first])))
    }
    dated = mention and any(column.dated for each in mention.meanings for column in each.table.columns)
    return mention is not None and (not dated or not before.isdisjoint({"top", "recent", "compare"}))


def _stops(words: list[Word]) -> frozenset[int]:
    """The places of words that no name may cross."""
    roles = {"by", "every", "and", "versus", "not", "aggregate", "order", "superlative", "compare"}
    keywords = (KEYWORDS.get(_keys([word])) for word in words)
    return frozenset(index for index, keyword in enumerate(keywords) if keyword and keyword.role in roles)


def _keys(words: list[Word]) -> tuple[str, ...]:
    return tuple(word.raw.casefold() if word.number is not None else word.text for word in words)


def _token(words: list[Word], at: int, limit: int, lexicon: Lexicon, barriers: frozenset[int]) -> Token:
    keyword, length = _keyword(words, at, limit)
    mention = lexicon.at(words, at, barriers)
    if mention and mention.end > limit:
        mention = None
    named = mention.end - at if mention else 0
    strong = (
        mention is not None
        and mention.meanings[0].weight > PARTIAL
        and keyword is not None
        and (keyword.role in SILENT | {"rows", "list", "link"} and length == 1)
    )
    if mention and (named > length or strong):
        return Token(tuple(words[at : mention.end]), mention=mention)
    if keyword:
        return Token(tuple(words[at : at + length]), keyword=keyword)
    number = words[at].number
    if number is not None:
        return Token((words[at],), number=number)
    near = None if words[at].quoted else lexicon.near(words, at)
    return Token((words[at],), mention=near)


def _keyword(words: list[Word], at: int, limit: int) -> tuple[Keyword | None, int]:
    if words[at].quoted:
        return None, 0
    for length in range(min(LONGEST, limit - at), 0, -1):
        keyword = KEYWORDS.get(_keys(words[at : at + length]))
        if keyword:
            return keyword, length
    return None, 0
