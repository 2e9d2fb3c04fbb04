"""Split SQL into Postgres's tokens with their places, and find which `:name` is a parameter.

`:name` is a parameter unless Postgres lexes it as part of a string, a quoted name, a comment, `::` or `:=`.
Directly inside a subscript the colon is Postgres's own (`a[1:n]`, `a[:n]`); `a[(:n)]` and `ARRAY[:a, :b]`
contain parameters. The text between the tokens is never changed.
"""

import re
from typing import Literal

from msgspec import Struct

from service.errors import FieldError, SqlRefused

Kind = Literal["word", "quoted", "text", "number", "placeholder", "dollar", "symbol"]

SPACE = r"[ \t\n\r\f\v]"
# Possessive quantifiers, as each piece can be read in one way only; backtracking could take forever.
LINE_COMMENT = r"--[^\n\r]*+"
ESCAPED = r"'(?:[^'\\]|\\.|'')*+(?:'|\\?\Z)"
# A string may continue after a line break, with the same backslash rules.
CONTINUED = rf"(?:(?:[ \t\f\v]|{LINE_COMMENT})*+[\n\r](?:{SPACE}|{LINE_COMMENT}[\n\r])*+{ESCAPED})*+"
LETTER = r"[A-Za-z_\u0080-\U0010ffff]"
TOKEN = re.compile(
    rf"""
    (?P<skip>{SPACE}+ | {LINE_COMMENT})
  | (?P<comment>/\*)
  | (?P<text>[eE]{ESCAPED}{CONTINUED} | (?:[bBxXnN]|[uU]&)?'(?:[^']|'')*(?:'|\Z))
  | (?P<quoted>(?:[uU]&)?"(?:[^"]|"")*(?:"|\Z))
  | (?P<tag>\$(?:{LETTER}[A-Za-z_0-9\u0080-\U0010ffff]*)?\$)
  | (?P<dollar>\$[0-9]+)
  | (?P<word>{LETTER}[A-Za-z_0-9$\u0080-\U0010ffff]*)
  | (?P<number>[0-9][A-Za-z_0-9.]*|\.[0-9][A-Za-z_0-9.]*)
  | (?P<placeholder>:[A-Za-z_][A-Za-z_0-9]*)
  | (?P<symbol>::|:=|(?:(?!--|/\*)[-+*/<>=~!@\#%^&|`?])+|.)
    """,
    re.VERBOSE | re.DOTALL,
)
COMMENT_EDGE = re.compile(r"/\*|\*/")
NAME_LIMIT = 63
DISTINCT_LIMIT = 100
RESERVED = frozenset({"format", "excel"})


class Token(Struct, frozen=True):
    kind: Kind
    start: int
    end: int
    text: str

    @property
    def word(self) -> str:
        """An unquoted word or a symbol in upper case; empty for any other token."""
        return self.text.upper() if self.kind in {"word", "symbol"} else ""


def tokenize(sql: str) -> list[Token]:
    """All tokens except spaces and comments; an unclosed string runs to the end, and Postgres refuses it."""
    tokens: list[Token] = []
    brackets: list[str] = []
    at = 0
    while found := TOKEN.match(sql, at):
        kind, end = str(found.lastgroup), found.end()
        if kind == "comment":
            end = _comment_end(sql, end)
        elif kind == "tag":
            closing = sql.find(found.group(), end)
            end = len(sql) if closing < 0 else closing + len(found.group())
        elif kind == "placeholder" and brackets[-1:] == ["subscript"]:
            kind, end = "symbol", at + 1
        if kind not in {"skip", "comment"}:
            token = Token("text" if kind == "tag" else kind, at, end, sql[at:end])  # pyright: ignore[reportArgumentType] - the groups' names
            _track(brackets, token, tokens)
            tokens.append(token)
        at = end
    return tokens


def placeholders(sql: str, tokens: list[Token]) -> list[Token]:
    """The `:name` tokens; raises SqlRefused for names that no caller can give, and for `$1`."""
    found = [token for token in tokens if token.kind == "placeholder"]
    for token in tokens:
        if token.kind == "dollar":
            raise _refusal(sql, token, f"{token.text} is numbered by the service: write a named :parameter")
    for token in found:
        follower = sql[token.end : token.end + 1]
        if follower == "$" or follower > "\x7f":
            raise _refusal(sql, token, "a parameter's name has only ASCII letters, digits and _")
        if len(token.text) - 1 > NAME_LIMIT:
            raise _refusal(sql, token, f"a parameter's name has at most {NAME_LIMIT} characters")
        if token.text[1:] in RESERVED:
            raise _refusal(sql, token, f"{token.text} is a parameter of the service itself: choose another")
    if len({token.text for token in found}) > DISTINCT_LIMIT:
        raise SqlRefused(f"The SQL has more than {DISTINCT_LIMIT} different parameters.")
    return found


def _comment_end(sql: str, at: int) -> int:
    depth = 1
    while depth:
        edge = COMMENT_EDGE.search(sql, at)
        if edge is None:
            return len(sql)
        depth += 1 if edge.group() == "/*" else -1
        at = edge.end()
    return at


def _track(brackets: list[str], token: Token, before: list[Token]) -> None:
    if token.text == "(":
        brackets.append("round")
    elif token.text == "[":
        last = before[-1].word if before else ""
        inner = last in {"[", ","} and brackets[-1:] == ["array"]
        brackets.append("array" if inner or last == "ARRAY" else "subscript")
    elif token.text in {")", "]"} and brackets:
        brackets.pop()


def place(sql: str, at: int) -> tuple[int, int]:
    """The line and the column of an offset, both from 1."""
    return sql.count("\n", 0, at) + 1, at - sql.rfind("\n", 0, at)


def _refusal(sql: str, token: Token, why: str) -> SqlRefused:
    line, column = place(sql, token.start)
    return SqlRefused(
        f"Line {line}, column {column}: {why}.", errors=(FieldError("sql", f"{why} (line {line})"),)
    )
