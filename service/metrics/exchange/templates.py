"""Rewrite SQL with another tool's placeholders into SQL with our parameters.

The one lexer of stored SQL reads the text, so we know whether a placeholder stands in a string, in a name, in
a comment or between words. Where it is pasted as a piece of SQL, a bound value cannot replace it.
"""

import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Final

from msgspec import Struct

from service.metrics.exchange.plan import NotTaken, Parameter
from service.sql.lexer import Lexeme, mark_of, tokenize
from service.sql.parameters.analysis import TAKEN
from service.sql.parameters.days import day_slot
from service.sql.validation.limits import MAX_BYTES

NUMBER: Final = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?")
_NOT_IN_NAME: Final = re.compile(r"[^a-z0-9]+")
_NAME_LIMIT: Final = 50
_USES_LIMIT: Final = 500
_TYPES: Final = frozenset({"date", "time", "timestamp", "timestamptz", "interval", "numeric", "uuid"})
_ZONES: Final = (["with", "time", "zone"], ["without", "time", "zone"])
_NAMES_FOLLOW: Final = frozenset({"from", "join", "as", "table", "only", "collate", "over", "using"})
_CLAUSES: Final = frozenset(
    {
        "select",
        "from",
        "where",
        "having",
        "on",
        "limit",
        "offset",
        "values",
        "by",
        "and",
        "or",
        "when",
        "then",
    }
)
_NAMING: Final = frozenset({"word", "quoted", "number", "junk", "parameter"})


class Reference(Struct, frozen=True):
    """A placeholder in the text. `form` is what the tool lets its author say about it, such as `csv`."""

    start: int
    end: int
    name: str
    form: str = ""


class Filling(Struct, frozen=True):
    """What takes a placeholder's place: an expression with our parameters.

    `bare` is why it cannot stand outside of quotes; empty if it can. A list stands only in `IN (...)`; with
    `all_if_null` a null list means no condition.
    """

    sql: str
    bare: str = ""
    is_list: bool = False
    all_if_null: bool = False
    is_time: bool = False


Scan = Callable[[str, int], Reference | None]
"""Reads the placeholder that begins at an offset of a text."""
Fill = Callable[[Reference], Filling]
Edit = tuple[int, int, str]


class Names:
    """Names for parameters: those of the other tool, made safe, each once."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def of(self, text: str) -> str:
        """The name for the other tool's name; always the same."""
        if (known := self._names.get(text)) is not None:
            return known
        plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
        slug = _NOT_IN_NAME.sub("_", plain).strip("_")[:_NAME_LIMIT] or "p"
        if slug[0].isdigit() or slug in TAKEN:
            slug = f"p_{slug}"
        found, number = slug, 2
        while found in self._names.values():
            found, number = f"{slug}_{number}", number + 1
        self._names[text] = found
        return found

    def keep(self, text: str, name: str) -> None:
        """Use exactly this name."""
        self._names[text] = name


def rewrite(sql: str, scan: Scan, fill: Fill) -> str:
    """The SQL with all placeholders replaced. Raises `NotTaken`."""
    check_size(sql)
    return _Rewriting(sql, scan, fill).done()


def check_size(sql: str) -> None:
    """Raises `NotTaken` for SQL that would be refused for its size, before anything reads it."""
    if len(sql.encode(errors="replace")) > MAX_BYTES:
        raise NotTaken(f"its SQL has more than {MAX_BYTES} bytes")


def edited(sql: str, edits: list[Edit]) -> str:
    """The text with pieces of it replaced."""
    pieces: list[str] = []
    at = 0
    for start, end, text in edits:
        pieces += [sql[at:start], text]
        at = end
    return "".join([*pieces, sql[at:]])


def with_moving_defaults(sql: str, moving: Mapping[str, str], days: frozenset[str]) -> str:
    """The SQL in which these parameters, when they are null, have the value of an expression.

    `days` are those that mean a whole day, by the same rule as for any `:end_date`.
    """
    lexemes = tokenize(sql)
    edits: list[Edit] = []
    for at, lexeme in enumerate(lexemes):
        name = lexeme.text[1:]
        if lexeme.kind != "parameter" or name not in moving:
            continue
        value = f"coalesce(:{name}, {moving[name]})"
        if name in days:
            slot = day_slot(lexemes, at)
            edits.append((slot.start, slot.end, slot.template.format(value)))
        else:
            edits.append((lexeme.start, lexeme.end, value))
    return edited(sql, edits)


def used_in(sql: str, parameters: list[Parameter]) -> tuple[Parameter, ...]:
    """The parameters that the SQL has."""
    names = {lexeme.text[1:] for lexeme in tokenize(sql) if lexeme.kind == "parameter"}
    return tuple(each for each in parameters if each.name in names)


class _Rewriting:
    def __init__(self, sql: str, scan: Scan, fill: Fill) -> None:
        self._sql = sql
        self._scan = scan
        self._fill = fill
        self._lexemes = tokenize(sql)
        self._edits: list[Edit] = []
        self._uses = 0

    def done(self) -> str:
        at = 0
        while at < len(self._lexemes):
            at = self._read(at) + 1
        return edited(self._sql, self._edits)

    def _read(self, at: int) -> int:
        """Rewrite the lexeme at that index. Returns the index of the last one that was read with it."""
        lexeme = self._lexemes[at]
        if lexeme.kind in {"string", "quoted", "unicode", "open", "word"}:
            if found := self._within(lexeme):
                self._in_text(at, found)
            return at
        reference = self._scan(self._sql, lexeme.start)
        if reference is None:
            return at
        last = next((i for i in range(at, len(self._lexemes)) if self._lexemes[i].end == reference.end), None)
        if last is None:
            raise NotTaken(f"{self._shown(reference)} does not end where a word of SQL ends")
        self._between_words(at, last, reference)
        return last

    def _within(self, lexeme: Lexeme) -> list[Reference]:
        found: list[Reference] = []
        at = lexeme.start
        while at < lexeme.end:
            reference = self._scan(self._sql, at)
            if reference is not None and reference.end <= lexeme.end:
                found.append(reference)
                at = reference.end
            else:
                at += 1
        return found

    def _in_text(self, at: int, references: list[Reference]) -> None:
        lexeme = self._lexemes[at]
        text = self._sql[lexeme.start : lexeme.end]
        opening = text[:2] if text[:2].lower() == "e'" else "'"
        shown = self._shown(references[0])
        if lexeme.kind == "open":
            raise NotTaken(f"{shown} stands in a text without an end")
        if lexeme.kind != "string" or not text.startswith(opening):
            raise NotTaken(f"{shown} is a part of a name or of a text that no parameter can be a part of")
        filled = [self._filled(each) for each in references]
        if any(each.is_list for each in filled):
            raise NotTaken(f"{shown} has several values, but stands in quotes as one")
        inner = (lexeme.start + len(opening), lexeme.end - 1)
        is_whole = len(references) == 1 and (references[0].start, references[0].end) == inner
        if is_whole:
            value = filled[0].sql
        else:
            value = self._concatenated(opening, inner, references, filled)
            if any(each.is_time for each in filled) and not self._typed_by(at):
                value = f"CAST({value} AS timestamp)"
        self._put_text(at, value)

    def _concatenated(
        self, opening: str, inner: tuple[int, int], references: list[Reference], filled: list[Filling]
    ) -> str:
        pieces: list[str] = []
        start = inner[0]
        for reference, each in zip(references, filled, strict=True):
            if reference.start > start:
                pieces.append(f"{opening}{self._sql[start : reference.start]}'")
            pieces.append(f"CAST({each.sql} AS text)")
            start = reference.end
        if start < inner[1]:
            pieces.append(f"{opening}{self._sql[start : inner[1]]}'")
        return f"({' || '.join(pieces)})"

    def _typed_by(self, at: int) -> int:
        """How many words before a string name its type, as in `interval '1 day'`."""
        if mark_of(self._lexemes, at - 1) in _TYPES and mark_of(self._lexemes, at - 2) != "::":
            return 1
        phrase = [mark_of(self._lexemes, at - step) for step in (3, 2, 1)]
        return 4 if phrase in _ZONES and mark_of(self._lexemes, at - 4) in _TYPES else 0

    def _put_text(self, at: int, value: str) -> None:
        lexeme, words = self._lexemes[at], self._typed_by(at)
        if not words:
            self._edits.append((lexeme.start, lexeme.end, value))
            return
        first = self._lexemes[at - words]
        type_name = self._sql[first.start : self._lexemes[at - 1].end]
        self._edits.append((first.start, lexeme.end, f"CAST({value} AS {type_name})"))

    def _between_words(self, first: int, last: int, reference: Reference) -> None:
        before, after = self._near(first - 1), self._near(last + 1)
        shown = self._shown(reference)
        glued = (before is not None and before.end == reference.start and before.kind in _NAMING) or (
            after is not None and after.start == reference.end and after.kind in _NAMING
        )
        word, following = mark_of(self._lexemes, first - 1), mark_of(self._lexemes, last + 1)
        if glued or word == "." or following in {".", "("} or word in _NAMES_FOLLOW:
            raise NotTaken(f"{shown} is a name, or a part of one: a parameter can only be a value")
        if self._is_sorted_by(first):
            raise NotTaken(f"{shown} says by what to sort or to group: a parameter can only be a value")
        filled = self._filled(reference)
        if filled.is_list:
            self._put_list(first, last, filled, shown)
        elif filled.bare:
            raise NotTaken(f"{shown} {filled.bare}")
        else:
            self._edits.append((reference.start, reference.end, filled.sql))

    def _put_list(self, first: int, last: int, filled: Filling, shown: str) -> None:
        if mark_of(self._lexemes, last + 1) == "is":  # NULL, as an optional part asks
            self._edits.append((self._lexemes[first].start, self._lexemes[last].end, filled.sql))
            return
        around = mark_of(self._lexemes, first - 2), mark_of(self._lexemes, first - 1)
        if around != ("in", "(") or mark_of(self._lexemes, last + 1) != ")":
            raise NotTaken(f"{shown} has several values, which can only stand alone in IN (...)")
        is_not = mark_of(self._lexemes, first - 3) == "not"
        begin = first - (3 if is_not else 2)
        condition = f"<> ALL({filled.sql})" if is_not else f"= ANY({filled.sql})"
        start, end = self._lexemes[begin].start, self._lexemes[last + 1].end
        if filled.all_if_null:
            operand = self._operand(begin - 1)
            if operand is None:
                raise NotTaken(f"{shown} may be all values, which only a plain column before IN allows")
            start, column = operand
            condition = f"({filled.sql} IS NULL OR {column} {condition})"
        self._edits.append((start, end, condition))

    def _operand(self, at: int) -> tuple[int, str] | None:
        """The column name that ends at that index, with its start. None for anything else."""
        first = at
        while mark_of(self._lexemes, first - 1) == "." and first >= 2:  # noqa: PLR2004 (a name and its dot)
            first -= 2
        lexeme = self._near(first)
        names = [self._lexemes[i].kind for i in range(max(first, 0), at + 1, 2)]
        if lexeme is None or not names or not {"word", "quoted"}.issuperset(names):
            return None
        before = mark_of(self._lexemes, first - 1)
        if before not in {"where", "and", "or", "on", "(", "when", "having", "not"}:
            return None
        return lexeme.start, self._sql[lexeme.start : self._lexemes[at].end]

    def _is_sorted_by(self, at: int) -> bool:
        """Whether an item of ORDER BY or GROUP BY begins at that index."""
        if mark_of(self._lexemes, at - 1) not in {"by", ","}:
            return False
        depth = 0
        for index in range(at - 1, -1, -1):
            word = mark_of(self._lexemes, index)
            depth += (word in {")", "]"}) - (word in {"(", "["})
            if depth < 0:
                return False
            if depth == 0 and word in _CLAUSES:
                return word == "by"
        return False

    def _filled(self, reference: Reference) -> Filling:
        self._uses += 1
        if self._uses > _USES_LIMIT:
            raise NotTaken(f"it has more than {_USES_LIMIT} placeholders")
        return self._fill(reference)

    def _near(self, at: int) -> Lexeme | None:
        return self._lexemes[at] if 0 <= at < len(self._lexemes) else None

    def _shown(self, reference: Reference) -> str:
        return self._sql[reference.start : reference.end][:60]
