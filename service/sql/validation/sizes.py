"""Bound calls that create texts and arrays of any size: sizes must be literals, and must not multiply.

Postgres needs much memory for texts of megabytes, cannot cancel work on them, and creates constant ones while
it plans the statement. We find calls in the lexemes: every name followed by a parenthesis. Functions that
only transform existing values are not limited.
"""

import heapq
import re
from bisect import bisect
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, NoReturn

from service.sql.lexer import Lexeme
from service.sql.validation.limits import refuse
from service.sql.words import words

MAX_SIZE: Final = 10_000
MAX_NESTED: Final = 10_000  # the product of the sizes of nested calls
MAX_FED: Final = 1_000_000  # characters to which a literal or another query's text may be repeated
MAX_PARAMETER: Final = 65_536
SHOWN_LENGTH: Final = 60
MAX_REPEATED: Final = 10_000_000  # characters to which a parameter may be repeated

_PADDED: Final = words("char character nchar bpchar bit")
MAKERS: Final = words("repeat lpad rpad array_fill format") | _PADDED
# Functions whose result or run time may grow with the product of their arguments' lengths.
_MULTIPLIERS: Final = words("""
    array_to_string btrim concat_ws ltrim position regexp_replace regexp_split_to_array regexp_split_to_table
    replace rtrim split_part string_agg string_to_array string_to_table strpos translate trim
""")
_INTEGER_TYPES: Final = words("int integer int4 int2 smallint")
_WIDTH: Final = re.compile(r"%(?:[0-9]+\$)?-?(\*|[0-9]*)")
_ESCAPES: Final = re.compile(r"\\[0-7xuU]")
_DIGITS: Final = re.compile(r"'?([0-9](?:_?[0-9])*)'?")
_CLAUSES: Final = words("select from where group order having limit window")
_COMMA: Final = frozenset({","})
_SEPARATORS: Final = _COMMA | {"from", "in"}  # as in trim(a FROM b)

Part = tuple[int, int]  # a half-open range of lexemes


class Maker(NamedTuple):
    """A call that creates a value of some size: its lexemes, the size, and the query around it."""

    at: int
    end: int
    size: int
    query: int
    multiplies: bool  # whether it multiplies a value that another query may have created


_NOTHING: Final = Maker(0, 0, 0, 0, multiplies=False)


class Sizes:
    """Checks all calls of one text that create sizes; each is bounded or refused."""

    def __init__(self, sql: str, lexemes: Sequence[Lexeme]) -> None:
        self._sql = sql
        self._lexemes = lexemes
        self._closing = _closing(lexemes)
        self._queries: list[int] = []

    def check(self) -> None:
        """Raises SqlRefused for an unbounded size, and for sizes that multiply."""
        found = [at for at, lexeme in enumerate(self._lexemes) if self._is_call(at, lexeme, MAKERS)]
        if not found:
            return
        self._queries = _queries(self._lexemes)
        makers = [maker for at in found if (maker := self._maker(at))]
        self._check_nested(makers)
        self._check_multiplied(makers)
        self._check_fed(makers)

    def _is_call(self, at: int, lexeme: Lexeme, names: frozenset[str]) -> bool:
        return lexeme.kind in {"word", "quoted"} and lexeme.text in names and self._text(at + 1) == "("

    def _text(self, at: int) -> str:
        """The word, symbol or number at that index; empty for a quoted name, a string and beyond the ends."""
        if not 0 <= at < len(self._lexemes) or self._lexemes[at].kind not in {"word", "mark", "number"}:
            return ""
        return self._lexemes[at].text

    def _maker(self, at: int) -> Maker | None:
        name, end = self._lexemes[at].text, self._closing.get(at + 1, len(self._lexemes))
        schema = self._lexemes[at - 2].text if self._text(at - 1) == "." and at > 1 else "pg_catalog"
        if schema != "pg_catalog":
            return None  # a function of the data schemas
        parts = [*self._parts(at + 1, end)]
        size = self._padded(at, parts) if name in _PADDED else self._written_size(name, at, parts)
        multiplies = name in {"repeat", "array_fill"} and self._may_be_computed(parts[0]) if parts else False
        return Maker(at, end, size, self._query(at), multiplies)

    def _parts(self, opening: int, end: int, separators: frozenset[str] = _COMMA) -> Iterator[Part]:
        """The arguments between two parentheses."""
        at = start = opening + 1
        while at < end:
            if self._text(at) in {"(", "["}:
                at = self._closing.get(at, end)
            elif self._text(at) in separators:
                yield start, at
                start = at + 1
            at += 1
        if start < end:
            yield start, end

    def _query(self, at: int) -> int:
        """The query around a call; a call in FROM is its own query, as other parts of FROM may read it."""
        clause = self._queries[at]
        return clause if clause >= 0 else at

    # The size of each call

    def _written_size(self, name: str, at: int, parts: list[Part]) -> int:
        if name == "repeat":
            return self._repeat(at, parts)
        if name == "array_fill":
            return self._array_fill(at, parts)
        return self._format(at, parts) if name == "format" else self._second(at, parts)

    def _repeat(self, at: int, parts: list[Part]) -> int:
        size = self._second(at, parts)
        text = parts[0]
        if any(self._lexemes[n].kind == "parameter" for n in range(*text)):
            if size * MAX_PARAMETER > MAX_REPEATED:
                most = MAX_REPEATED // MAX_PARAMETER
                self._refuse(at, f"repeats a parameter more than {most} times, and a parameter may be long")
        elif size * self._literal_length(text) > MAX_FED:
            self._refuse(at, f"makes a text of more than {MAX_FED} characters; make it shorter")
        return size

    def _second(self, at: int, parts: list[Part]) -> int:
        """The size given by the second argument."""
        if not parts[1:]:
            return 1  # Postgres has no such function
        size = self._size(parts[1])
        if size is None:
            self._refuse_unbounded(at, parts, 1)
        return size

    def _padded(self, at: int, parts: list[Part]) -> int:
        """The size of `char(n)` as a type, or as the function, whose size is the second argument."""
        if len(parts) > 1:
            return self._second(at, parts)
        size = self._size(parts[0]) if parts and self._lexemes[parts[0][0]].kind == "number" else 1
        if size is None:
            name = self._lexemes[at].text
            self._refuse(at, f"pads to {name}({self._shown(parts[0])}); the largest size is {MAX_SIZE}")
        return size

    def _array_fill(self, at: int, parts: list[Part]) -> int:
        start, end = parts[1] if len(parts) > 1 else (0, 0)
        size = 1
        if (
            self._text(start) != "array"
            or self._text(start + 1) != "["
            or self._closing.get(start + 1) != end - 1
        ):
            self._refuse(
                at, "fills an array of a size that nothing bounds; write array_fill(value, ARRAY[100])"
            )
        for part in self._parts(start + 1, end - 1):
            bound = self._size(part)
            if bound is None:
                self._refuse(
                    at,
                    "fills an array of a size that nothing bounds; write "
                    f"array_fill(value, ARRAY[least({self._shown(part)}, 100)])",
                )
            size *= bound
        if size > MAX_SIZE:
            self._refuse(at, f"fills an array of more than {MAX_SIZE} elements; make it shorter")
        return size

    def _format(self, at: int, parts: list[Part]) -> int:
        """The size of `format`, which pads to the widths in its first argument."""
        written = self._literal(parts[0]) if parts else ""
        if written is None:
            self._refuse(
                at, "calls format with a text that is not written there; write the format as a literal"
            )
        widths = _WIDTH.findall(written.replace("%%", ""))
        if "*" in widths:
            self._refuse(at, "calls format with a width of *; write the width into the format, as in %20s")
        size = sum(int(width[:9] or 0) for width in widths)
        if size > MAX_SIZE:
            self._refuse(at, f"pads by format to more than {MAX_SIZE} characters; make it shorter")
        return max(size, 1)

    # Literals

    def _size(self, part: Part) -> int | None:
        """The upper bound of a written size such as `20`, `least(n, 20)` or `20::int`; else None."""
        start, end = part
        while self._text(start) == "(" and self._closing.get(start) == end - 1:
            start, end = start + 1, end - 1
        if self._text(end - 1) in _INTEGER_TYPES and self._text(end - 2) == "::":
            return self._size((start, max(start, end - 2)))
        if self._text(start) in {"-", "+"} and end - start > 1 and self._lexemes[start + 1].kind == "number":
            start += 1
        if end - start == 1 and (digits := _DIGITS.fullmatch(self._lexemes[start].text)):
            if self._lexemes[start].kind not in {"number", "string"} or len(digits[1]) > len("10_000"):
                return None
            size = int(digits[1])
            return size if size <= MAX_SIZE else None
        if self._lexemes[start].kind == "word" and self._text(start) == "least" and end > start + 2:
            if self._closing.get(start + 1) != end - 1:
                return None
            sizes = [
                size for inner in self._parts(start + 1, end - 1) if (size := self._size(inner)) is not None
            ]
            return min(sizes) if sizes else None
        return None

    def _literal(self, part: Part) -> str | None:
        """The text of an argument made of strings joined by ||; None if an escape could hide a digit."""
        found: list[str] = []
        start, end = part
        if self._text(end - 1) == "text" and self._text(end - 2) == "::":
            end -= 2
        for n, at in enumerate(range(start, end)):
            kind, text = self._lexemes[at].kind, self._lexeme_text(at)
            if kind == "string" and n % 2 == 0 and not (text[0] in "eE" and _ESCAPES.search(text)):
                found.append(_unquoted(text))
            elif not (kind == "mark" and text == "||" and n % 2):
                return None
        return "".join(found) if found else None

    def _literal_length(self, part: Part) -> int:
        """The number of characters in an argument's string literals."""
        strings = (at for at in range(*part) if self._lexemes[at].kind == "string")
        return max(1, sum(len(self._lexeme_text(at)) - 2 for at in strings))

    def _lexeme_text(self, at: int) -> str:
        return self._sql[self._lexemes[at].start : self._lexemes[at].end]

    def _may_be_computed(self, part: Part) -> bool:
        """Whether an argument may contain a value that another query created."""
        return any(
            self._lexemes[at].kind in {"word", "quoted"} and self._text(at - 1) != "::" for at in range(*part)
        )

    # Sizes that multiply

    def _check_nested(self, makers: list[Maker]) -> None:
        around: list[tuple[Maker, int]] = []
        for maker in makers:
            while around and around[-1][0].end < maker.at:
                around.pop()
            size = maker.size * (around[-1][1] if around else 1)
            if around and size > MAX_NESTED:
                outer = self._lexemes[around[-1][0].at].text
                self._refuse(maker.at, f"feeds {self._lexemes[maker.at].text} to {outer}; make both shorter")
            around.append((maker, size))

    def _check_multiplied(self, makers: list[Maker]) -> None:
        places = [maker.at for maker in makers]
        for at, lexeme in enumerate(self._lexemes):
            if not self._is_call(at, lexeme, _MULTIPLIERS):
                continue
            end, size = self._closing.get(at + 1, len(self._lexemes)), 1
            inside = makers[bisect(places, at) : bisect(places, end)]
            for start, stop in self._parts(at + 1, end, _SEPARATORS) if len(inside) > 1 else ():
                size *= max(1, sum(maker.size for maker in inside if start <= maker.at < stop))
            if size > MAX_FED:
                self._refuse(at, f"multiplies texts by {lexeme.text}; make them shorter")

    def _check_fed(self, makers: list[Maker]) -> None:
        """Refuse a query that multiplies a large value of another query."""
        created: dict[int, int] = {}
        multiplied: dict[int, Maker] = {}
        for maker in makers:
            if not maker.multiplies:
                created[maker.query] = max(created.get(maker.query, 1), maker.size)
            elif maker.size > multiplied.get(maker.query, _NOTHING).size:
                multiplied[maker.query] = maker
        total = 1
        for maker in multiplied.values():
            total = min(total * maker.size, MAX_FED + 1)
        largest = heapq.nlargest(2, created, key=created.__getitem__)
        for query, maker in multiplied.items():
            other = next((created[each] for each in largest if each != query), 1)
            if total * other > MAX_FED:
                self._refuse(
                    maker.at,
                    f"may feed one query's text to {self._lexemes[maker.at].text}; make both shorter",
                )

    # Refusals

    def _shown(self, part: Part) -> str:
        start, end = self._lexemes[part[0]].start, self._lexemes[part[1] - 1].end
        written = " ".join(self._sql[start:end].split())
        return written if len(written) <= SHOWN_LENGTH else "n"

    def _refuse_unbounded(self, at: int, parts: list[Part], which: int) -> NoReturn:
        name = self._lexemes[at].text
        start, end = parts[which]
        if end - start == 1 and self._lexemes[start].kind in {"number", "string"}:
            self._refuse(
                at, f"calls {name} with a size of {self._shown(parts[which])}; the largest is {MAX_SIZE}"
            )
        arguments = [
            f"least({self._shown(part)}, 100)" if n == which else self._shown(part)
            for n, part in enumerate(parts)
        ]
        self._refuse(
            at,
            f"calls {name} with a size that nothing bounds; write {name}({', '.join(arguments)}), with a "
            f"number up to {MAX_SIZE}",
        )

    def _refuse(self, at: int, fault: str) -> NoReturn:
        refuse(fault, self._sql, self._lexemes[at].start)


def _closing(lexemes: Sequence[Lexeme]) -> dict[int, int]:
    """The index of the closing parenthesis or bracket for each opening one."""
    found: dict[int, int] = {}
    opened: list[int] = []
    for at, lexeme in enumerate(lexemes):
        if lexeme.kind != "mark":
            continue
        if lexeme.text in "([":
            opened.append(at)
        elif lexeme.text in ")]" and opened:
            found[opened.pop()] = at
    return found


def _queries(lexemes: Sequence[Lexeme]) -> list[int]:
    """For each lexeme, the number of the query around it; -1 inside a FROM clause."""
    found: list[int] = []
    within: list[tuple[int, bool]] = [(0, False)]
    for at, lexeme in enumerate(lexemes):
        kind, text, *_ = lexeme
        if kind == "mark" and text == "(":
            begins = at + 1 < len(lexemes) and lexemes[at + 1].text in {"select", "with", "values", "table"}
            within.append((at + 1, False) if begins else within[-1])
        elif kind == "mark" and text == ")" and len(within) > 1:
            within.pop()
        elif kind == "word" and text in _CLAUSES:
            within[-1] = (within[-1][0], text == "from")
        query, in_from = within[-1]
        found.append(-1 if in_from else query)
    return found


def _unquoted(text: str) -> str:
    """The content of a string literal, exact enough to find the widths of `format`."""
    if text[0] == "$":
        tag = text.index("$", 1) + 1
        return text[tag:-tag]
    return re.sub(r"'\s*+(?:--[^\n\r]*+\s*+)*+'", "", text[text.index("'") + 1 : -1].replace("''", ""))
