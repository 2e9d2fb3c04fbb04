"""Split SQL text as Postgres does: names, strings, numbers and symbols, without comments.

We refuse text that needs further rules of Postgres: U& escapes, and numbers directly followed by names.
We also refuse text that would overflow the stack of a later parser.
"""

import re
from collections.abc import Sequence
from string import ascii_lowercase, ascii_uppercase
from typing import NamedTuple, NoReturn, cast

from service.errors import FieldError, SqlRefused
from service.sql.validation.foreign import foreign

MAX_BYTES = 100_000
MAX_BRACKETS = 30  # nested parentheses and CASEs: each takes 17 frames of the parser
MAX_SUBSCRIPTS = 200  # in the whole text; for each one the parser repeats work on the text before it
MAX_PREFIXES = 16  # NOT NOT NOT ..., - - - ...

# A string may continue after a line break by the same rules; line comments may come between.
GAP_TEXT = r"(?:[ \t\f\v]|--[^\n\r]*+)*+[\n\r](?:[ \t\n\r\f\v]|--[^\n\r]*+[\n\r])*+"
_PLAIN, _ESCAPED = r"'(?:[^']|'')*+'", r"'(?:[^'\\]|\\.|'')*+'"
_DIGITS = r"[0-9](?:_?[0-9])*+"
_BITS, _NIBBLES = r"'[01]*'", r"'[0-9a-fA-F]*'"
GAP = re.compile(GAP_TEXT)


def _joined(part: str) -> str:
    return f"{part}(?:{GAP_TEXT}{part})*+"


LEXEME = re.compile(
    rf"""
      (?P<blank> [ \t\n\r\f\v]+ | --[^\n\r]* )
    | (?P<comment> /\* )
    | (?P<unicode> [uU]&['"] )
    | (?P<string> [eE]{_joined(_ESCAPED)} | [bB]{_joined(_BITS)} | [xX]{_joined(_NIBBLES)}
                | {_joined(_PLAIN)} )
    | (?P<quoted> "(?:[^"]|"")++" )
    | (?P<dollar> \$(?:[A-Za-z_\x80-\U0010ffff][A-Za-z0-9_\x80-\U0010ffff]*)?\$ )
    | (?P<word> (?![eE]') [A-Za-z_\x80-\U0010ffff][A-Za-z0-9_$\x80-\U0010ffff]* )
    | (?P<number> (?: 0[xX](?:_?[0-9a-fA-F])++ | 0[oO](?:_?[0-7])++ | 0[bB](?:_?[01])++
                    | {_DIGITS}(?:\.(?!\.)(?:{_DIGITS})?+)?+(?:[eE][+-]?{_DIGITS})?+ )
                  (?P<junk> [A-Za-z_$\x80-\U0010ffff]? ) )
    | (?P<mark> [-~!@\#^&|`?+*/%<>=:;,.()\[\]] )
    """,
    re.VERBOSE | re.DOTALL,
)


COMMENT_EDGE = re.compile(r"/\*|\*/")
OPENING, CLOSING = {"(", "[", "case"}, {")", "]", "end"}
PREFIXES = {"not", "-", "+", "~"}
ASCII_LOWER = str.maketrans(ascii_uppercase, ascii_lowercase)


class Lexeme(NamedTuple):
    """`text` is the folded name, the string as written, or the symbol; `end` is exclusive."""

    kind: str  # word, quoted, string, number or mark
    text: str
    start: int
    end: int


def lex(sql: str) -> list[Lexeme]:
    """Split as Postgres does with standard_conforming_strings; refuse text that needs further rules."""
    try:
        size = len(sql) if len(sql) > MAX_BYTES else len(sql.encode())
    except UnicodeEncodeError as error:
        refuse("holds half of a surrogate pair, which is no character", sql, error.start)
    if size > MAX_BYTES:
        refuse(f"has more than {MAX_BYTES} bytes; store its data in a table")
    if "\0" in sql:
        refuse("holds a NUL character, which Postgres cannot store", sql, sql.index("\0"))
    found: list[Lexeme] = []
    at = 0
    while at < len(sql):
        match = LEXEME.match(sql, at)
        if match is None:
            _refuse_character(sql, at)
        kind, at = cast("str", match.lastgroup), match.end()
        if kind == "blank":
            continue
        if kind == "comment":
            at = _comment_end(sql, match.start())
            continue
        if kind == "dollar":
            at = sql.find(match[0], at) + len(match[0])
            if at < match.end() + len(match[0]):
                refuse(f"has no end for the text that {match[0]} begins", sql, match.start())
        found.append(Lexeme(*_named(kind, match, sql), match.start(), at))
    _check_shape(sql, found)
    return found


def _named(kind: str, match: re.Match[str], sql: str) -> tuple[str, str]:
    text, start = match[0], match.start()
    if kind == "unicode":
        refuse("uses U& escapes, which hide names from a reader; write the characters themselves", sql, start)
    if kind == "number" and match["junk"]:
        refuse(f"has a name right after a number at {near(sql, start)}; put a space between", sql, start)
    if kind == "quoted":
        return kind, text[1:-1].replace('""', '"')
    if kind != "word" or text.isascii():
        return ("string" if kind == "dollar" else kind), text.lower() if kind == "word" else text
    hidden = next((char for char in text if not char.isprintable()), None)
    if hidden:
        refuse(f"has the invisible character U+{ord(hidden):04X} outside of strings; remove it", sql, start)
    if text.upper().isascii() or text.casefold().isascii():
        refuse(f"has the name {text}, which only looks like plain letters; write it in quotes", sql, start)
    return kind, fold(text)


def _refuse_character(sql: str, at: int) -> NoReturn:
    if sql[at] in "'\"eE":
        refuse(f"has a quote that is not closed at {near(sql, at)}", sql, at)
    if advice := foreign(sql, at):
        refuse(advice, sql, at)
    if sql[at] == "$":
        refuse("uses $1-style parameters; name them, as in :start_date", sql, at)
    refuse(f"has the character {sql[at]!r} outside of strings, which Postgres does not read", sql, at)


def _comment_end(sql: str, start: int) -> int:
    depth, at = 1, start + 2
    while depth:
        match = COMMENT_EDGE.search(sql, at)
        if match is None:
            refuse("has a comment that is not closed", sql, start)
        depth += 1 if match[0] == "/*" else -1
        at = match.end()
    return at


def _check_shape(sql: str, lexemes: Sequence[Lexeme]) -> None:
    """Refuse nesting that would overflow a stack, and adjacent strings: how they join depends on context."""
    depth = prefixes = subscripts = 0
    before = Lexeme("mark", "", 0, 0)
    for lexeme in lexemes:
        kind, text, start, _ = lexeme
        if kind == "string" == before.kind:
            refuse("has two strings in a row; put a comma between them, or join them with ||", sql, start)
        steers = kind in {"word", "mark"}
        depth = max(0, depth + (steers and text in OPENING) - (steers and text in CLOSING))
        prefixes = prefixes + 1 if steers and text in PREFIXES else 0
        subscripts += text == "[" and before.text != "array"
        if depth > MAX_BRACKETS or prefixes > MAX_PREFIXES:
            refuse("is nested too deep; put the inner parts into a WITH", sql, start)
        if subscripts > MAX_SUBSCRIPTS:
            refuse(f"has more than {MAX_SUBSCRIPTS} subscripts; use unnest or jsonb paths", sql, start)
        before = lexeme


class Unread(SqlRefused):
    """Our parser cannot read the SQL: only Postgres can tell whether it is valid."""


def refuse(fault: str, sql: str = "", start: int = 0, *, refusal: type[SqlRefused] = SqlRefused) -> NoReturn:
    line, column = place(sql, start)
    message = f"The SQL {fault}."
    raise refusal(message, errors=(FieldError("sql", message),), line=line, column=column)


def place(sql: str, start: int) -> tuple[int, int]:
    """The line and the column, counted from 1."""
    return sql.count("\n", 0, start) + 1, start - sql.rfind("\n", 0, start)


def near(sql: str, start: int) -> str:
    return repr(sql[start : start + 30].split("\n", 1)[0])


def fold(name: str) -> str:
    """Lower-case as Postgres folds an unquoted name: ASCII letters only."""
    return name.translate(ASCII_LOWER)
