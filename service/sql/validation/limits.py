"""Refuse text that Postgres cannot read, that hides names from a reader, or that would overflow a stack."""

from collections.abc import Sequence
from typing import Final, NoReturn

from service.errors import FieldError, SqlRefused
from service.sql.lexer import Lexeme, place, tokenize
from service.sql.validation.foreign import foreign

MAX_BYTES: Final = 100_000
MAX_BRACKETS: Final = 30  # nested parentheses and CASEs: each takes 17 frames of the parser
MAX_SUBSCRIPTS: Final = 200  # in the whole text; for each one the parser repeats work on the text before it
MAX_PREFIXES: Final = 16  # NOT NOT NOT ..., - - - ...
_OPENING, _CLOSING = {"(", "[", "case"}, {")", "]", "end"}
_PREFIXES: Final = frozenset("-+~")


def lex(sql: str) -> list[Lexeme]:
    """The tokens of a text within the limits; refuse any other text."""
    try:
        size = len(sql) if len(sql) > MAX_BYTES else len(sql.encode())
    except UnicodeEncodeError as error:
        refuse("holds half of a surrogate pair, which is no character", sql, error.start)
    if size > MAX_BYTES:
        refuse(f"has more than {MAX_BYTES} bytes; store its data in a table")
    if "\0" in sql:
        refuse("holds a NUL character, which Postgres cannot store", sql, sql.index("\0"))
    tokens = tokenize(sql)
    for token in tokens:
        if token.kind == "word" and not token.text.isascii():
            _check_word(sql, token)
        elif token.kind in {"numbered", "unicode", "junk", "open", "other"}:
            _refuse_token(sql, token)
    _check_shape(sql, tokens)
    return tokens


def _check_word(sql: str, token: Lexeme) -> None:
    text, start = sql[token.start : token.end], token.start
    hidden = next((char for char in text if not char.isprintable()), None)
    if hidden:
        refuse(f"has the invisible character U+{ord(hidden):04X} outside of strings; remove it", sql, start)
    if text.upper().isascii() or text.casefold().isascii():
        refuse(f"has the name {text}, which only looks like plain letters; write it in quotes", sql, start)


def _refuse_token(sql: str, token: Lexeme) -> NoReturn:
    start, first = token.start, token.text[0]
    if token.kind == "unicode":
        refuse("uses U& escapes, which hide names from a reader; write the characters themselves", sql, start)
    if token.kind == "junk":
        refuse(f"has a name right after a number at {near(sql, start)}; put a space between", sql, start)
    if token.kind == "open" and first == "/":
        refuse("has a comment that is not closed", sql, start)
    if token.kind == "open" and first == "$":
        tag = token.text[: token.text.index("$", 1) + 1]
        refuse(f"has no end for the text that {tag} begins", sql, start)
    if token.kind == "open":
        refuse(f"has a quote that is not closed at {near(sql, start)}", sql, start)
    if advice := foreign(sql, start):
        refuse(advice, sql, start)
    if first == "$":
        refuse("uses $1-style parameters; name them, as in :start_date", sql, start)
    refuse(f"has the character {first!r} outside of strings, which Postgres does not read", sql, start)


def _check_shape(sql: str, tokens: Sequence[Lexeme]) -> None:
    """Refuse nesting that would overflow a stack, and adjacent strings: how they join depends on context."""
    depth = prefixes = subscripts = 0
    before = Lexeme("mark", "", 0, 0)
    for token in tokens:
        kind, text, start, _ = token
        if kind == "string" == before.kind:
            refuse("has two strings in a row; put a comma between them, or join them with ||", sql, start)
        steers = kind in {"word", "mark"}
        depth = max(0, depth + (steers and text in _OPENING) - (steers and text in _CLOSING))
        signs = len(text) if steers and _PREFIXES.issuperset(text) else steers and text == "not"
        prefixes = prefixes + signs if signs else 0
        subscripts += text == "[" and before.text != "array"
        if depth > MAX_BRACKETS or prefixes > MAX_PREFIXES:
            refuse("is nested too deep; put the inner parts into a WITH", sql, start)
        if subscripts > MAX_SUBSCRIPTS:
            refuse(f"has more than {MAX_SUBSCRIPTS} subscripts; use unnest or jsonb paths", sql, start)
        before = token


class Unread(SqlRefused):
    """Our parser cannot read the SQL: only Postgres can tell whether it is valid."""


class UnknownCall(SqlRefused):
    """The SQL calls a function that is not listed; Postgres can tell whether there is one of that name."""


def refuse(fault: str, sql: str = "", start: int = 0, *, refusal: type[SqlRefused] = SqlRefused) -> NoReturn:
    line, column = place(sql, start)
    message = f"The SQL {fault}."
    raise refusal(message, errors=(FieldError("sql", message),), line=line, column=column)


def near(sql: str, start: int) -> str:
    return repr(sql[start : start + 30].split("\n", 1)[0])
