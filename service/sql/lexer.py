"""Split SQL text as Postgres does, with standard_conforming_strings: the only lexer of stored SQL.

It reads any text, also one that Postgres refuses. `service.sql.validation` refuses what it finds.

`:name` is a parameter unless it is part of a string, a quoted name, a comment, `::` or `:=`. Directly inside
a subscript the colon is Postgres's own (`a[1:n]`, `a[:n]`); `a[(:n)]` and `ARRAY[:a, :b]` contain parameters.
"""

import re
from string import ascii_lowercase, ascii_uppercase
from typing import Final, Literal, NamedTuple, cast

Kind = Literal[
    "word", "quoted", "string", "number", "mark", "parameter",
    "numbered",  # $1
    "unicode",  # U&'...' and U&"..."
    "junk",  # a number that a name follows directly
    "open",  # a string, a name or a comment without an end; runs to the end of the text
    "other",  # a character that Postgres does not read here
]  # fmt: skip

# Possessive quantifiers: each piece can be read in one way only, and backtracking could take forever.
_LETTER: Final = r"[A-Za-z_\x80-\U0010ffff]"
_NAME: Final = rf"{_LETTER}[A-Za-z0-9_\x80-\U0010ffff]*+"
_GAP: Final = r"(?:[ \t\f\v]|--[^\n\r]*+)*+[\n\r](?:[ \t\n\r\f\v]|--[^\n\r]*+[\n\r])*+"
_PLAIN, _ESCAPED, _CODED = r"'(?:[^']|'')*+'", r"'(?:[^'\\]|\\.|'')*+'", r"'[^']*+'"
_DIGITS: Final = r"[0-9](?:_?[0-9])*+"
_EXPONENT: Final = rf"(?:[eE][+-]?{_DIGITS})?+"
_SIGNS: Final = r"(?:(?!--|/\*)[-+*/<>=]){0,63}+"


def _joined(part: str) -> str:
    """A string may continue after a line break by the same rules; line comments may come between."""
    return f"{part}(?:{_GAP}{part})*+"


GAP: Final = re.compile(_GAP)
_LEXEME: Final = re.compile(
    rf"""
      (?P<blank> [ \t\n\r\f\v]++ | --[^\n\r]*+ )
    | (?P<comment> /\* )
    | (?P<unicode> [uU]&{_joined(_PLAIN)} | [uU]&"(?:[^"]|"")++" )
    | (?P<string> [eE]{_joined(_ESCAPED)} | [bBxX]{_joined(_CODED)} | [nN]?{_joined(_PLAIN)} )
    | (?P<quoted> "(?:[^"]|"")++" )
    | (?P<open> (?:[eEbBxXnN]|[uU]&)?['"] )
    | (?P<dollar> \$(?:{_NAME})?\$ )
    | (?P<numbered> \$[0-9]++ )
    | (?P<word> {_LETTER}[A-Za-z0-9_$\x80-\U0010ffff]*+ )
    | (?P<number> (?: 0[xX](?:_?[0-9a-fA-F])++ | 0[oO](?:_?[0-7])++ | 0[bB](?:_?[01])++
                    | {_DIGITS}(?:\.(?!\.)(?:{_DIGITS})?+)?+{_EXPONENT} )
                  (?P<follower> [A-Za-z_$\x80-\U0010ffff]? ) )
    | (?P<parameter> :{_LETTER}[A-Za-z0-9_$\x80-\U0010ffff]*+ )
    # An operator ends in + or - only if it has one of the signs ~!@#%^&|`? too.
    | (?P<mark> :: | := | [:;,.()\[\]] | {_SIGNS}[~!@\#%^&|`?](?:(?!--|/\*)[-+*/<>=~!@\#%^&|`?]){{0,63}}+
              | (?:(?!--|/\*)[-+*/<>=]){{0,63}}(?!--|/\*)[*/<>=] | [-+] )
    | (?P<other> . )
    """,
    re.VERBOSE | re.DOTALL,
)
_RUNNING: Final = frozenset({"comment", "dollar", "open"})
_COMMENT_EDGE: Final = re.compile(r"/\*|\*/")
_ASCII_LOWER: Final = str.maketrans(ascii_uppercase, ascii_lowercase)


class Lexeme(NamedTuple):
    """`text` is the folded word, the name without its quotes, or the text as written; `end` is exclusive."""

    kind: Kind
    text: str
    start: int
    end: int


def tokenize(sql: str) -> list[Lexeme]:
    """All lexemes: everything except blanks and comments."""
    found: list[Lexeme] = []
    brackets: list[str] = []
    at = 0
    while match := _LEXEME.match(sql, at):
        kind, start, at = cast("str", match.lastgroup), at, match.end()
        if kind == "blank":
            continue
        if kind in _RUNNING:
            kind, at = _run(sql, kind, match)
            if kind == "blank":
                continue
        text = sql[start:at]
        if kind == "word":
            text = fold(text)
        elif kind == "quoted":
            text = text[1:-1].replace('""', '"')
        elif kind == "parameter" and brackets[-1:] == ["subscript"]:
            kind, text, at = "mark", ":", start + 1
        elif kind == "mark" and text in "()[]":
            _track(brackets, text, found)
        elif kind == "number" and match["follower"]:
            kind = "junk"
        found.append(Lexeme(cast("Kind", kind), text, start, at))
    return found


def _run(sql: str, kind: str, match: re.Match[str]) -> tuple[str, int]:
    """The kind and the end of a comment, of a text in dollars, or of what has no end."""
    if kind == "comment":
        depth, at = 1, match.end()
        while depth and (edge := _COMMENT_EDGE.search(sql, at)):
            depth += 1 if edge[0] == "/*" else -1
            at = edge.end()
        if not depth:
            return "blank", at
    elif kind == "dollar" and (end := sql.find(match[0], match.end())) >= 0:
        return "string", end + len(match[0])
    return "open", len(sql)


def _track(brackets: list[str], mark: str, before: list[Lexeme]) -> None:
    """Note what an open bracket holds: a list in parentheses, an array's elements or a subscript."""
    if mark == "(":
        brackets.append("list")
    elif mark == "[":
        last = mark_of(before, len(before) - 1)
        inner = last in {"[", ","} and brackets[-1:] == ["array"]
        brackets.append("array" if inner or last == "array" else "subscript")
    elif brackets:
        brackets.pop()


def mark_of(lexemes: list[Lexeme], at: int) -> str:
    """The word or symbol at that index; empty for any other token and beyond the ends."""
    if not 0 <= at < len(lexemes) or lexemes[at].kind not in {"word", "mark"}:
        return ""
    return lexemes[at].text


def place(sql: str, start: int) -> tuple[int, int]:
    """The line and the column of an offset, counted from 1."""
    return sql.count("\n", 0, start) + 1, start - sql.rfind("\n", 0, start)


def fold(name: str) -> str:
    """Lower-case as Postgres folds an unquoted name: ASCII letters only."""
    return name.translate(_ASCII_LOWER)
