"""Parse one statement within limits, and note where in the text its parts are."""

from collections.abc import Sequence
from typing import Final, NoReturn

from msgspec import Struct
from sqlglot import exp
from sqlglot.errors import ParseError
from sqlglot.tokenizer_core import TokenType

from service.errors import SqlRefused
from service.sql.lexer import Lexeme, place, tokenize
from service.sql.validation.agreement import check_agreement
from service.sql.validation.dialect import DIALECT, Parser, adapted
from service.sql.validation.foreign import FOREIGN, foreign
from service.sql.validation.limits import Unread, lex, near, refuse

MAX_DEPTH: Final = 150  # nodes of the tree; a chain of one operator counts once
MAX_CHAIN: Final = 500  # a OR b OR ..., 1 + 1 + ...: Postgres and other programs walk chains by recursion
PARSER_STEPS_PER_TOKEN: Final = 8  # ordinary SQL takes fewer than 2; exponential backtracking takes thousands
LOOK_BACK: Final = 5  # lexemes to check before the place where parsing stopped
CHAINS: Final = (exp.Connector, exp.Add, exp.Sub, exp.Mul, exp.DPipe, exp.SetOperation)


class Statement(Struct, frozen=True):
    """A text, its lexemes and its tree, each made once.

    The nodes' offsets are those of `sql`. `lossy` means that the tree leaves out a clause, so that only the
    text is the complete statement.
    """

    sql: str
    lexemes: list[Lexeme]
    tree: exp.Query
    lossy: bool = False


class UnparsedStatement(Struct, frozen=True):
    """A text that an operator trusts, so that we need not be able to parse it."""

    sql: str
    lexemes: list[Lexeme]
    tree: None = None


def unparsed(sql: str) -> UnparsedStatement:
    return UnparsedStatement(sql, tokenize(sql))


def parse(sql: str) -> Statement:
    """Parse one SELECT, WITH, VALUES or TABLE.

    Raises SqlRefused with `line` and `column` for more than MAX_BYTES of UTF-8, for nesting that would
    overflow a stack, for any other statement or several, and for text that cannot be parsed.
    """
    lexemes = lex(sql)
    size = len(lexemes)
    while size and lexemes[size - 1][:2] == ("mark", ";"):
        size -= 1
    own = lexemes[:size]
    second = next((part for part in own if part[:2] == ("mark", ";")), None)
    if second:
        refuse("is more than one statement; store each on its own", sql, second.start)
    first = next((part for part in own if part[:2] != ("mark", "(")), None)
    if first is None:
        refuse("is empty; write a SELECT")
    if first.kind != "word" or first.text not in {"select", "with", "values", "table"}:
        word = sql[first.start : first.end][:40]
        refuse(f"begins with {word}; stored SQL is one SELECT, WITH, VALUES or TABLE", sql, first.start)
    tree, lossy = _read(sql, own)
    if isinstance(tree, exp.Values):
        tree.set("alias", exp.TableAlias(this=exp.to_identifier("_values")))  # as for a nested VALUES
        tree = exp.Select(expressions=[exp.Star()], from_=exp.From(this=tree))
    if not isinstance(tree, exp.Query):
        refuse("is not one SELECT, WITH, VALUES or TABLE")
    _check_depth(tree)
    return Statement(sql, lexemes, tree, lossy)


def _check_depth(tree: exp.Expr) -> None:
    stack = [(tree, 0, 0)]
    while stack:
        node, depth, chain = stack.pop()
        if depth > MAX_DEPTH or chain > MAX_CHAIN:
            refuse("is nested too deep or chains too many operators; use IN, VALUES or a WITH")
        for child in node.iter_expressions():
            chained = type(child) is type(node) and isinstance(child, CHAINS)
            stack.append((child, depth + (not chained), chain + 1 if chained else 0))


def _read(sql: str, lexemes: Sequence[Lexeme]) -> tuple[exp.Expr | None, bool]:
    parser = Parser(DIALECT, steps=1000 + PARSER_STEPS_PER_TOKEN * len(lexemes))
    try:
        tokens = [token for token in DIALECT.tokenize(sql) if token.token_type is not TokenType.SEMICOLON]
        check_agreement(sql, lexemes, tokens)
        trees = parser.parse(adapted(sql, lexemes, tokens), sql)
    except SqlRefused:
        raise
    except ParseError:
        _refuse_unread(sql, lexemes, parser.fault_at)
    except RecursionError:
        refuse("is nested too deep; put the inner parts into a WITH")
    except Exception as error:  # noqa: BLE001 (sqlglot can raise any error, such as int() of 5,000 digits)
        fault = f"cannot be read by this parser ({type(error).__name__}); write it more plainly"
        refuse(fault, refusal=Unread)
    return trees[0] if len(trees) == 1 else None, parser.lossy


def _refuse_unread(sql: str, lexemes: Sequence[Lexeme], start: int) -> NoReturn:
    """Refuse with the place where parsing stopped, or with advice if another tool's spelling stopped it."""
    at = next((n for n, lexeme in enumerate(lexemes) if lexeme.start >= start), len(lexemes))
    for lexeme in lexemes[max(0, at - LOOK_BACK) : at + 1]:
        for offset, character in enumerate(lexeme.text if lexeme.kind == "mark" else ""):
            here = lexeme.start + offset
            may_end_subscript = character == "]" and here != start
            if character in FOREIGN and not may_end_subscript and (advice := foreign(sql, here)):
                refuse(advice, sql, here)
    line, column = place(sql, start)
    fault = f"cannot be read at line {line}, column {column}, near {near(sql, start)}"
    refuse(fault, sql, start, refusal=Unread)
