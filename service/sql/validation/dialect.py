"""Adapt sqlglot's tokens and grammar to SQL that Postgres accepts and sqlglot does not.

Nothing here decides what may run. Function names are checked in the lexemes of the text, independently of
this module. The tree only gives relations, kinds of nodes and the places of dates.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar, Final, cast

from sqlglot import exp
from sqlglot.dialects.postgres import Postgres
from sqlglot.parsers.postgres import PostgresParser
from sqlglot.tokenizer_core import Token, TokenType

from service.sql.lexer import Lexeme
from service.sql.words import words

DIALECT: Final = Postgres()
_NAMES: Final = {"word", "quoted"}
# Postgres's built-in operators that sqlglot does not know.
_UNKNOWN_OPERATORS: Final = words("""
    <<= >>= &< &> &<| |&> <<| |>> -|- ~= <-> <#> <=> <^ >^ ?# ?- ?| ?-| ?|| ## @-@ ~<~ ~<=~ ~>~ ~>=~ *= *<>
    *< *> *<= *>= ^@ !~~ !~~* ~~ ~~* @@@ &&& #- @?
""")
# Words that sqlglot reserves, but that Postgres accepts as names unless the given text follows.
_NAMES_UNLESS: Final = {
    **dict.fromkeys(words("alter drop revoke rollback lock"), ""),
    "insert": "into",
    **dict.fromkeys(words("values cube rollup if"), "("),
}
# Types of Postgres that sqlglot does not know before a string, as in macaddr '08:00:2b:01:02:03'.
_STRING_TYPES: Final = words("""
    box cidr circle jsonpath line lseg macaddr macaddr8 path polygon tsquery tsvector varbit
""")
_BARE_LABELS: Final = words("""
    and between collate cross distinct else ilike inner join lateral like not only or outer select then using
    values variadic when tablesample
""")  # when one of _LABEL_ENDS follows, the word can only be a label
_LABEL_ENDS: Final = {"", ",", ")", "from"}
_STARTS: Final = {"", ",", "(", "select", "by", "where", "and", "or", "on", "when", "then", "else", "not"}
_BEHAVIOURS: Final = (
    *(("EMPTY", kind) for kind in ("ARRAY", "OBJECT")),
    *((word,) for word in ("NULL", "ERROR", "EMPTY", "TRUE", "FALSE", "UNKNOWN", "ABSENT")),
)
_OCCASIONS: Final = ("NULL", "EMPTY", "ERROR")
_CLAUSES: Final = (
    *((with_, "UNIQUE", "KEYS") for with_ in ("WITH", "WITHOUT")),
    *((with_, "UNIQUE") for with_ in ("WITH", "WITHOUT")),
    ("WITHOUT", "ARRAY", "WRAPPER"),
    ("WITHOUT", "WRAPPER"),
    *(
        ("WITH", *condition, *array, "WRAPPER")
        for condition in ((), ("CONDITIONAL",), ("UNCONDITIONAL",))
        for array in ((), ("ARRAY",))
    ),
    *((verb, "QUOTES", "ON", "SCALAR", "STRING") for verb in ("KEEP", "OMIT")),
    *((verb, "QUOTES") for verb in ("KEEP", "OMIT")),
    ("FORMAT", "JSON", "ENCODING", "UTF8"),
    ("FORMAT", "JSON"),
    *((word,) for word in ("KEY", "VALUE", "PASSING", ",", ":")),
)


def adapted(sql: str, lexemes: Sequence[Lexeme], tokens: Sequence[Token]) -> list[Token]:
    """The tokens as sqlglot should see them; each keeps its offset in the text."""
    owned = _owned(lexemes, tokens)
    found: list[Token] = []
    at = 0
    while at < len(lexemes):
        own = owned[at]
        if not own:  # within a token of several words, such as ORDER BY
            at += 1
        elif lexemes[at].kind in {"number", "string"} and len(own) > 1:
            found.append(_whole(sql, lexemes[at], own))
            at += 1
        elif _mark(lexemes, at) == "national" and _mark(lexemes, at + 1) in {"character", "char"}:
            at += 1  # Postgres's other name for the type that follows
        elif _mark(lexemes, at) == "nchar" and _mark(lexemes, at + 1) == "varying":
            found.append(_token(own[0], TokenType.VARCHAR, "VARCHAR", lexemes[at + 1].end - 1))
            at += 2
        elif _is_typed_string(lexemes, at):
            found += _as_cast(own[0], _whole(sql, lexemes[at + 1], owned[at + 1]))
            at += 2
        elif _is_unknown_operator(lexemes, at):
            found += _as_operator(own[0], lexemes[at].text)
            at += 1
        elif lexemes[at].kind == "parameter":
            found += [own[0], *map(_as_name, own[1:])]
            at += 1
        elif (end := _only_in_parentheses(lexemes, at)) is not None:
            found += [token for inner in range(at + 1, end) for token in owned[inner]]
            at = end + 1
        else:
            found += own if not _is_name(lexemes, at) else [_as_name(own[0])]
            at += 1
    return found


def _owned(lexemes: Sequence[Lexeme], tokens: Sequence[Token]) -> list[list[Token]]:
    """For each lexeme, the tokens that begin in it."""
    owned: list[list[Token]] = [[] for _ in lexemes]
    at = 0
    for token in tokens:
        while lexemes[at].end <= token.start:
            at += 1
        owned[at].append(token)
    return owned


def _token(like: Token, kind: TokenType, text: str, end: int | None = None) -> Token:
    return Token(kind, text, like.line, like.col, like.start, like.end if end is None else end, like.comments)


def _whole(sql: str, lexeme: Lexeme, parts: list[Token]) -> Token:
    if lexeme.kind == "number":
        written = sql[lexeme.start : lexeme.end].replace("_", "")
        return _token(parts[0], TokenType.NUMBER, written, lexeme.end - 1)
    return _token(parts[0], parts[0].token_type, "".join(part.text for part in parts), lexeme.end - 1)


def _as_name(token: Token) -> Token:
    return _token(token, TokenType.VAR, token.text)


def _as_operator(token: Token, operator: str) -> list[Token]:
    """`OPERATOR(...)`, which sqlglot reads with any content."""
    parts = (
        (TokenType.OPERATOR, "OPERATOR"),
        (TokenType.L_PAREN, "("),
        (TokenType.VAR, operator),
        (TokenType.R_PAREN, ")"),
    )
    return [_token(token, kind, text) for kind, text in parts]


def _as_cast(name: Token, string: Token) -> list[Token]:
    """`CAST('...' AS name)` for `name '...'`."""
    parts = ((TokenType.VAR, "CAST"), (TokenType.L_PAREN, "("))
    opening = [_token(name, kind, text) for kind, text in parts]
    closing = [
        _token(string, TokenType.ALIAS, "AS"),
        _as_name(name),
        _token(string, TokenType.R_PAREN, ")"),
    ]
    return [*opening, string, *closing]


def _mark(lexemes: Sequence[Lexeme], at: int) -> str:
    """The word or symbol at that index; empty beyond the ends, `'` for a quoted name or a literal."""
    if not 0 <= at < len(lexemes):
        return ""
    return lexemes[at].text if lexemes[at].kind in {"word", "mark"} else "'"


def _is_typed_string(lexemes: Sequence[Lexeme], at: int) -> bool:
    if _mark(lexemes, at) not in _STRING_TYPES or lexemes[at + 1 : at + 2] == []:
        return False
    before = _mark(lexemes, at - 1)
    begins = before in _STARTS or (not _ends_value(lexemes, at - 1) and before != ".")
    return begins and lexemes[at + 1].kind == "string"


def _is_unknown_operator(lexemes: Sequence[Lexeme], at: int) -> bool:
    kind, text, *_ = lexemes[at]
    return text in _UNKNOWN_OPERATORS and kind == "mark" and _ends_value(lexemes, at - 1)


def _only_in_parentheses(lexemes: Sequence[Lexeme], at: int) -> int | None:
    """The end of a `(name)` or `(schema.name)` that begins at that index, directly after ONLY."""
    if _mark(lexemes, at) != "(" or _mark(lexemes, at - 1) != "only":
        return None
    end = at + 1
    while end < len(lexemes) and (lexemes[end].kind in _NAMES or lexemes[end].text == "."):
        end += 1
    return end if end > at + 1 and _mark(lexemes, end) == ")" else None


def _ends_value(lexemes: Sequence[Lexeme], at: int) -> bool:
    return at >= 0 and (lexemes[at].kind != "mark" or lexemes[at].text in {")", "]"})


def _is_name(lexemes: Sequence[Lexeme], at: int) -> bool:
    """Whether Postgres reads a word as a name, where sqlglot may read a keyword."""
    kind, word, start, _ = lexemes[at]
    before, after = _mark(lexemes, at - 1), _mark(lexemes, at + 1)
    if kind != "word":
        return False
    if before == "." or (before == ":" and lexemes[at - 1].end == start):
        return True
    if word in _NAMES_UNLESS:
        return after != _NAMES_UNLESS[word] or not after
    if before == "as" and (word == "select" or (word == "not" and after != "materialized")):
        return True
    if word in {"interval", "between"}:
        return before in _STARTS and after not in {"'", "("}
    return word in _BARE_LABELS and after in _LABEL_ENDS and at > 0 and _ends_operand(lexemes, at - 1)


def _ends_operand(lexemes: Sequence[Lexeme], at: int) -> bool:
    """Whether a value certainly ends at that index."""
    kind, text, *_ = lexemes[at]
    return kind in {"number", "string", "quoted"} or (kind == "mark" and text in {")", "]"})


def span_of(node: exp.Expr) -> tuple[int, int] | None:
    """Where an operand of a comparison, a sum or a product is in the text that was parsed."""
    return node.meta.get("span")


def _absolute(parser: "Parser") -> exp.Expr:
    return parser.parse_absolute()


def _substring(parser: "Parser") -> exp.Expr:
    return parser.parse_substring()


def _timezone(args: list[Any]) -> exp.Expr:
    """`timezone(zone, value)`: the function of `value AT TIME ZONE zone`."""
    if len(args) != 2:  # noqa: PLR2004 (zone and value)
        return exp.Anonymous(this="TIMEZONE", expressions=args)
    zone, value = args
    simple = isinstance(value, exp.Column | exp.Func | exp.Paren)
    return exp.AtTimeZone(this=value if simple else exp.Paren(this=value), zone=zone)


def _json_call(parser: "Parser", name: str) -> exp.Expr:
    return parser.parse_json_call(name)


class Parser(PostgresParser):
    """Stops after a limited number of steps: some texts make the parser try twice at each level.

    `lossy` means that the tree leaves out a clause: SQL rendered from it would mean something else.
    """

    NO_PAREN_FUNCTION_PARSERS: ClassVar[dict[str, Any]] = {
        name: parse
        for name, parse in cast("dict[str, Any]", PostgresParser.NO_PAREN_FUNCTION_PARSERS).items()
        if name != "IF"
    }
    PLACEHOLDER_PARSERS: ClassVar[dict[TokenType, Any]] = {
        TokenType.COLON: cast("dict[TokenType, Any]", PostgresParser.PLACEHOLDER_PARSERS)[TokenType.COLON]
    }
    UNARY_PARSERS: ClassVar[dict[TokenType, Any]] = {
        **cast("dict[TokenType, Any]", PostgresParser.UNARY_PARSERS),
        TokenType.PARAMETER: _absolute,
    }
    FUNCTIONS: ClassVar[dict[str, Any]] = {
        **cast("dict[str, Any]", PostgresParser.FUNCTIONS),
        "TIMEZONE": _timezone,
    }
    FUNCTION_PARSERS: ClassVar[dict[str, Any]] = {
        **cast("dict[str, Any]", PostgresParser.FUNCTION_PARSERS),
        "SUBSTRING": _substring,
        **{
            name: partial(_json_call, name=name)
            for name in (
                *("JSON", "JSON_ARRAY", "JSON_ARRAYAGG", "JSON_EXISTS", "JSON_OBJECT", "JSON_OBJECTAGG"),
                *("JSON_QUERY", "JSON_SCALAR", "JSON_SERIALIZE", "JSON_TABLE", "JSON_VALUE"),
            )
        },
    }

    def __init__(self, dialect: Postgres, *, steps: int) -> None:
        self._steps = steps
        self.fault_at = 0
        self.lossy = False
        super().__init__(dialect=dialect)

    def _parse_bitwise(self) -> exp.Expr | None:
        start = self._curr.start if self._curr else 0
        return self._located(super()._parse_bitwise(), start)

    def _parse_factor(self, *mode: Any, **modes: Any) -> exp.Expr | None:
        start = self._curr.start if self._curr else 0
        return self._located(super()._parse_factor(*mode, **modes), start)

    def _located(self, node: exp.Expr | None, start: int) -> exp.Expr | None:
        """Note where in the text an operand is: `span_of` tells it."""
        if node is not None:
            node.meta["span"] = (start, self._prev.end + 1)
        return node

    def raise_error(self, message: str, token: Token | None = None) -> None:
        token = token or self._curr or self._prev
        self.fault_at = token.start if token else 0
        super().raise_error(message, token)

    def _warn_unsupported(self) -> None:
        self.raise_error("Unsupported syntax")  # sqlglot would keep the rest as an unparsed command

    def _advance(self, times: int = 1) -> None:
        self._steps -= 1
        if self._steps < 0:
            raise RecursionError
        super()._advance(times)

    def _parse_at_time_zone(self, this: exp.Expr | None) -> exp.Expr | None:
        this = super()._parse_at_time_zone(this)
        while self._match_text_seq("AT", "LOCAL"):
            self.lossy = True
            this = super()._parse_at_time_zone(
                self.expression(exp.AtTimeZone(this=this, zone=exp.var("LOCAL")))
            )
        return this

    def _parse_using_identifiers(self) -> list[exp.Expr]:
        columns = super()._parse_using_identifiers()
        if self._match(TokenType.ALIAS):
            self.lossy = True
            self._parse_id_var()
        return columns

    def _parse_ordered(self, parse_method: Callable[[], exp.Expr | None] | None = None) -> exp.Ordered | None:
        def parse() -> exp.Expr | None:
            this = parse_method() if parse_method else self._parse_disjunction()
            if self._match(TokenType.USING):
                self.lossy = True
                self._skip_operator()
            return this

        return super()._parse_ordered(parse)

    def _skip_operator(self) -> None:
        if self._match(TokenType.OPERATOR):
            while self._curr and not self._match(TokenType.R_PAREN):
                self._advance()
            return
        self._advance()
        while self._curr and self._curr.start == self._prev.end + 1 and not self._curr.text[0].isalnum():
            if self._curr.text in {",", ")", ";"}:
                break
            self._advance()

    def parse_substring(self) -> exp.Expr:
        """`substring(value SIMILAR pattern ESCAPE character)`, and the forms that sqlglot knows."""
        this = self._parse_substring()
        if self._match_text_seq("SIMILAR"):
            self.lossy = True
            this.set("start", self._parse_bitwise())
            if not self._match(TokenType.ESCAPE):
                self.raise_error("Expected ESCAPE")
            this.set("length", self._parse_bitwise())
        return this

    def parse_absolute(self) -> exp.Expr:
        """`@ value`, which binds less tightly than + and -."""
        return self.expression(exp.Abs(this=self._parse_term()))

    def parse_json_call(self, name: str) -> exp.Expr:
        """A SQL/JSON call: its values and types, without the words of its clauses."""
        self.lossy = True
        token = self._tokens[self._index - 2]
        parts: list[exp.Expr] = []
        while self._curr and not self._match(TokenType.R_PAREN, advance=False):
            if not self._skip_json_clause():
                parts += self._parse_json_part()
        return self.expression(exp.Anonymous(this=name, expressions=parts)).update_positions(token)

    def _skip_json_clause(self) -> bool:
        if any(self._match_text_seq(*clause) for clause in _CLAUSES):
            return True
        index = self._index
        for behaviour in _BEHAVIOURS:
            for occasion in _OCCASIONS:
                if self._match_text_seq(*behaviour, "ON", occasion):
                    return True
        self._retreat(index)
        return False

    def _parse_json_part(self) -> list[exp.Expr]:
        if self._match_text_seq("RETURNING"):
            part = self._parse_types()
        elif self._match_text_seq("COLUMNS"):
            columns = self._parse_wrapped_csv(self._parse_json_column)
            return [part for column in columns for part in column]
        elif self._match(TokenType.ORDER_BY, advance=False):
            part = self._parse_order()
        elif self._match(TokenType.DEFAULT):
            part = self._parse_bitwise()
            if not any(self._match_text_seq("ON", occasion) for occasion in _OCCASIONS):
                self.raise_error("Expected ON EMPTY or ON ERROR")
        elif self._curr.token_type in {TokenType.SELECT, TokenType.WITH, TokenType.VALUES}:
            part = self._parse_select()
        else:
            part = self._parse_star() or self._parse_disjunction()
            if self._match(TokenType.ALIAS):
                self._parse_id_var(any_token=True)
        if part is None:
            self.raise_error("Expected a value")
        return [part] if part else []

    def _parse_json_column(self) -> list[exp.Expr]:
        """A column of JSON_TABLE: its type, path and default, or the columns of a nested path."""
        parts: list[exp.Expr] = []
        if self._match_text_seq("NESTED"):
            self._match_text_seq("PATH")
            parts += self._parse_json_rest()
            return parts
        if self._parse_id_var() is None:
            self.raise_error("Expected a column")
        if not self._match_text_seq("FOR", "ORDINALITY"):
            kind = self._parse_types()
            parts += [kind] if kind else []
            parts += self._parse_json_rest()
        return parts

    def _parse_json_rest(self) -> list[exp.Expr]:
        parts: list[exp.Expr] = []
        ends = {TokenType.COMMA, TokenType.R_PAREN}
        while self._curr and self._curr.token_type not in ends:
            if not (
                self._match_text_seq("EXISTS") or self._match_text_seq("PATH") or self._skip_json_clause()
            ):
                parts += self._parse_json_part()
        return parts
