"""Check that two lexers see the same tokens: ours, which follows Postgres's rules, and sqlglot's."""

from collections.abc import Sequence
from typing import Final

from sqlglot.tokenizer_core import Token, TokenType

from service.sql.lexer import GAP, Lexeme
from service.sql.validation.limits import near, refuse

_STRINGS: Final = frozenset(
    {
        *(TokenType.STRING, TokenType.BYTE_STRING, TokenType.BIT_STRING, TokenType.HEX_STRING),
        TokenType.NATIONAL_STRING,
    }
)


def check_agreement(sql: str, lexemes: Sequence[Lexeme], tokens: Sequence[Token]) -> None:
    """Refuse text that our lexer and sqlglot's split differently.

    Each token of sqlglot must cover whole lexemes, a quoted name exactly one, and no lexeme may be left out.
    A string, a number, an operator or a parameter may be several tokens of sqlglot; these must be parts of
    this one lexeme only.
    """
    at, inside = 0, 0
    for token in tokens:
        if at == len(lexemes) or token.start != (inside or lexemes[at].start):
            refuse(f"can be read in two ways at {near(sql, token.start)}", sql, token.start)
        end = token.end + 1
        kind, _, start, lexeme_end = lexemes[at]
        if end < lexeme_end and _is_part(lexemes[at], token):
            inside = _next_part(sql, lexemes[at], end)
            continue
        if inside and not (end == lexeme_end and _is_part(lexemes[at], token)):
            refuse(f"can be read in two ways at {near(sql, token.start)}", sql, token.start)
        alone = kind in {"string", "quoted"}
        while at < len(lexemes) and lexemes[at].end < end:
            alone = alone or lexemes[at].kind in {"string", "quoted"}
            at += 1
        if at == len(lexemes) or lexemes[at].end != end or (alone and lexemes[at].start != start):
            refuse(f"can be read in two ways at {near(sql, token.start)}", sql, token.start)
        at, inside = at + 1, 0
    if at != len(lexemes):
        refuse(f"can be read in two ways at {near(sql, lexemes[at].start)}", sql, lexemes[at].start)


def _is_part(lexeme: Lexeme, token: Token) -> bool:
    """Whether a token may be one of several that form a lexeme."""
    if lexeme.kind == "string":
        return token.token_type in _STRINGS
    return lexeme.kind in {"number", "mark", "parameter"}


def _next_part(sql: str, lexeme: Lexeme, end: int) -> int:
    """Where the lexeme continues: at the next quote for a string, else directly."""
    gap = GAP.match(sql, end) if lexeme.kind == "string" else None
    return gap.end() if gap else end
