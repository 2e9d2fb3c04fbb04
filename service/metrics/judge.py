"""May this SQL run: one SELECT over the data schemas, read twice, allowed only by what is listed here.

First by a lexer of Postgres's own rules: it sees each name that a parenthesis follows, which is every call
that Postgres could see, however a syntax tree would spell it. Then by sqlglot's tree: kinds of nodes,
relations and the scopes of CTEs. Both must agree where each token begins and ends, so a comment, a string
or a quoted name can never mean one thing here and another in Postgres. The reader's privileges, READ ONLY
and the limits of its pool stand behind this; long runs and large results are theirs to stop.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, NoReturn, cast

from msgspec import Struct
from sqlglot import exp
from sqlglot.dialects.postgres import Postgres
from sqlglot.errors import ParseError
from sqlglot.parsers.postgres import PostgresParser
from sqlglot.tokenizer_core import Token, TokenType

from service.errors import SqlRefused
from service.metrics.lexer import Lexeme, fold, lex, near, place, refuse

MAX_DEPTH = 150  # nodes of the tree, a chain of one operator counted once
MAX_CHAIN = 500  # a OR b OR ..., 1 + 1 + ...: Postgres and others walk these by recursion
PARSER_STEPS_PER_TOKEN = 8  # honest SQL takes below 2; backtracking that doubles takes thousands


class Verdict(Struct, frozen=True):
    """What the text alone shows; Postgres's plan knows more (views, functions)."""

    relations: tuple[str, ...]
    reads_claims: bool


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


FUNCTIONS = words("""
    abs acos acosd acosh asin asind asinh atan atan2 atan2d atand atanh cbrt ceil ceiling cos cosd cosh cot
    cotd degrees div erf erfc exp factorial floor gamma gcd lcm lgamma ln log log10 min_scale mod pi pow
    power radians random random_normal round scale sign sin sind sinh sqrt tan tand tanh trim_scale trunc
    width_bucket

    ascii bit_count bit_length btrim casefold char_length character_length chr concat concat_ws convert
    convert_from convert_to crc32 crc32c decode encode format get_bit get_byte initcap is_normalized left
    length lower lpad ltrim md5 normalize octet_length overlay parse_ident position quote_ident quote_literal
    quote_nullable regexp_count regexp_instr regexp_like regexp_match regexp_matches regexp_replace
    regexp_split_to_array regexp_split_to_table regexp_substr repeat replace reverse right rpad rtrim set_bit
    set_byte sha224 sha256 sha384 sha512 split_part starts_with string_to_array string_to_table strpos substr
    substring to_ascii to_bin to_hex to_oct translate trim unicode_assigned unistr upper

    age clock_timestamp current_date current_time current_timestamp date_add date_bin date_part date_subtract
    date_trunc extract isfinite justify_days justify_hours justify_interval localtime localtimestamp
    make_date make_interval make_time make_timestamp make_timestamptz now overlaps statement_timestamp
    timeofday timezone transaction_timestamp to_char to_date to_number to_timestamp

    any_value array_agg avg bit_and bit_or bit_xor bool_and bool_or corr count covar_pop covar_samp cume_dist
    dense_rank every first_value grouping lag last_value lead max min mode nth_value ntile percent_rank
    percentile_cont percentile_disc rank regr_avgx regr_avgy regr_count regr_intercept regr_r2 regr_slope
    regr_sxx regr_sxy regr_syy row_number stddev stddev_pop stddev_samp string_agg sum var_pop var_samp
    variance

    array_append array_cat array_dims array_fill array_length array_lower array_ndims array_position
    array_positions array_prepend array_remove array_replace array_reverse array_sample array_shuffle
    array_sort array_to_string array_upper cardinality generate_series generate_subscripts trim_array unnest
    coalesce enum_first enum_last enum_range greatest least nullif num_nonnulls num_nulls

    isempty lower_inc lower_inf multirange range_agg range_intersect_agg range_merge upper_inc upper_inf

    array_to_json json json_agg json_agg_strict json_array json_array_elements json_array_elements_text
    json_array_length json_arrayagg json_build_array json_build_object json_each json_each_text json_exists
    json_extract_path json_extract_path_text json_object json_object_agg json_object_agg_strict
    json_object_agg_unique json_object_agg_unique_strict json_object_keys json_objectagg json_populate_record
    json_populate_recordset json_query json_scalar json_serialize json_strip_nulls json_table json_to_record
    json_to_recordset json_typeof json_value jsonb_agg jsonb_agg_strict jsonb_array_elements
    jsonb_array_elements_text jsonb_array_length jsonb_build_array jsonb_build_object jsonb_each
    jsonb_each_text jsonb_extract_path jsonb_extract_path_text jsonb_insert jsonb_object jsonb_object_agg
    jsonb_object_agg_strict jsonb_object_agg_unique jsonb_object_agg_unique_strict jsonb_object_keys
    jsonb_path_exists jsonb_path_exists_tz jsonb_path_match jsonb_path_match_tz jsonb_path_query
    jsonb_path_query_array jsonb_path_query_array_tz jsonb_path_query_first jsonb_path_query_first_tz
    jsonb_path_query_tz jsonb_populate_record jsonb_populate_record_valid jsonb_populate_recordset
    jsonb_pretty jsonb_set jsonb_set_lax jsonb_strip_nulls jsonb_to_record jsonb_to_recordset jsonb_typeof
    row_to_json to_json to_jsonb

    array_to_tsvector json_to_tsvector jsonb_to_tsvector numnode phraseto_tsquery plainto_tsquery setweight
    strip to_tsquery to_tsvector ts_delete ts_filter ts_headline ts_rank ts_rank_cd tsquery_phrase
    tsvector_to_array websearch_to_tsquery

    abbrev area broadcast center diagonal diameter family height host hostmask inet_merge inet_same_family
    isclosed ishorizontal isopen isparallel isperp isvertical macaddr8_set7bit masklen netmask network
    npoints pclose popen radius set_masklen slope width

    gen_random_uuid uuid_extract_timestamp uuid_extract_version uuidv4 uuidv7 pg_column_size pg_size_bytes
    pg_size_pretty pg_typeof current_setting
""")  # not ts_stat, ts_rewrite and xpath's kin (they run or read text), setseed (it stays in the session)
TYPES = words("""
    bigint bit bool boolean box bpchar bytea char character cidr circle date datemultirange daterange dec
    decimal double float float4 float8 inet int int2 int4 int4multirange int4range int8 int8multirange
    int8range integer interval json jsonb jsonpath line lseg macaddr macaddr8 money name national nchar
    numeric nummultirange numrange oid path point polygon precision real record smallint text time timestamp
    timestamptz timetz tsmultirange tsquery tsrange tstzmultirange tstzrange tsvector unknown uuid varbit
    varchar varying
""")
SYNTAX = words("""
    all and any array as asc between both by case cast check collate columns cube default desc distinct else
    end escape except exists false fetch filter first following for from group having ilike in intersect into
    is isnull join lateral leading like limit materialized next not notnull null offset on only operator or
    order over placing preceding recursive repeatable rollup row second select sets similar some symmetric
    asymmetric table then to trailing true union using values variadic when where window with within zone
""")  # what may stand before a parenthesis without calling anything
RESERVED = words("""
    all analyse analyze and any array as asc asymmetric both case cast check collate column constraint create
    current_catalog current_date current_role current_time current_timestamp current_user default deferrable
    desc distinct do else end except false fetch for foreign from grant group having in initially intersect
    into lateral leading limit localtime localtimestamp not null offset on only or order placing primary
    references returning select session_user some symmetric system_user table then to trailing true union
    unique user using variadic when where window with authorization binary collation concurrently cross
    current_schema freeze full ilike inner is isnull join left like natural notnull outer overlaps right
    similar tablesample verbose
""")  # never an unquoted column or relation: where the tree has one, it was not read as Postgres reads it
SESSION_WORDS = words(
    "current_catalog current_role current_schema current_user session_user system_user user"
)
CATALOG_NAMES = words("""
    aclitem regclass regcollation regconfig regdictionary regnamespace regoper regoperator regproc
    regprocedure regrole regtype _aclitem _regclass _regcollation _regconfig _regdictionary _regnamespace
    _regoper _regoperator _regproc _regprocedure _regrole _regtype information_schema
""")  # types that look names up in the catalogs, and a schema of catalogs
CLAIMS = "'request.claims'"

NODES = words("""
    Add Adjacent Alias Aliases All Any AtTimeZone Between BitString BitwiseAnd BitwiseLeftShift BitwiseNot
    BitwiseOr BitwiseRightShift BitwiseXor Boolean Bracket ByteString Column ColumnDef CTE Cube DataType
    DataTypeParam Distance Distinct Div Dot DPipe EQ Escape Except ExtendsLeft ExtendsRight Fetch Filter
    FormatJson From Group GroupingSets GT GTE Having HexString Identifier ILike In IntDiv Intersect Interval
    IntervalSpan Is Join JSON JSONColumnDef JSONKeyValue JSONPath JSONPathKey JSONPathRoot JSONPathSubscript
    JSONSchema JSONValue Kwarg Lateral Like Limit LimitOptions Literal LT LTE Mod Mul Neg NEQ Not Null
    NullSafeEQ NullSafeNEQ ObjectIdentifier Offset OnCondition Operator Order Ordered Overlaps Paren
    Placeholder PropertyEQ RawString RecursiveWithSearch Rollup Select SimilarTo Slice Star Sub Subquery
    Table TableAlias TableSample Tuple Union Values Var Variadic Where Window WindowSpec With WithinGroup
""")  # kinds of sqlglot's nodes; its functions are judged by their written names
CHAINS = (exp.Connector, exp.Add, exp.Sub, exp.Mul, exp.DPipe, exp.SetOperation)
FAULTS: dict[type[exp.Expr], str] = {
    exp.Lock: "locks rows (FOR UPDATE, FOR SHARE), which stored SQL may not; leave that clause out",
    exp.Into: "writes a table (SELECT INTO), which stored SQL may not; leave INTO out",
    exp.Insert: "holds an INSERT; stored SQL only reads",
    exp.Update: "holds an UPDATE; stored SQL only reads",
    exp.Delete: "holds a DELETE; stored SQL only reads",
    exp.Merge: "holds a MERGE; stored SQL only reads",
}

DIALECT = Postgres()


def parse(sql: str) -> exp.Query:
    """Read one SELECT, WITH, VALUES or TABLE; the nodes' offsets are those of `sql`.

    Raises SqlRefused with `line` and `column` for more than MAX_BYTES of UTF-8, for nesting that would
    overflow a stack, for anything that is not one such statement, and where the text cannot be read.
    """
    return _parse(sql, lex(sql))


def judge(
    sql: str,
    *,
    schemas: tuple[str, ...],
    tree: exp.Query | None = None,
    functions: frozenset[str] = frozenset(),
) -> Verdict:
    """Allow this SQL or raise SqlRefused, whose message names the refused part and how to mend it.

    `tree` saves the parse and must be `parse(sql)`. `functions` are names that may be called without a
    schema: those of the data schemas that pg_catalog has no function of (Postgres looks there first).
    """
    lexemes = lex(sql)
    reading = _Reading(sql, lexemes, schemas)
    relations = reading.walk(tree or _parse(sql, lexemes))
    return Verdict(relations=relations, reads_claims=reading.check_names(functions))


def _parse(sql: str, lexemes: Sequence[Lexeme]) -> exp.Query:
    size = len(lexemes)
    while size and lexemes[size - 1][:2] == ("mark", ";"):
        size -= 1
    lexemes = lexemes[:size]
    second = next((part for part in lexemes if part[:2] == ("mark", ";")), None)
    if second:
        refuse("is more than one statement; store each on its own", sql, second.start)
    first = next((part for part in lexemes if part[:2] != ("mark", "(")), None)
    if first is None:
        refuse("is empty; write a SELECT")
    if first.kind != "word" or first.text not in {"select", "with", "values", "table"}:
        word = sql[first.start : first.end][:40]
        refuse(f"begins with {word}; stored SQL is one SELECT, WITH, VALUES or TABLE", sql, first.start)
    tree = _read(sql, lexemes)
    if isinstance(tree, exp.Values):
        tree.set("alias", exp.TableAlias(this=exp.to_identifier("_values")))  # as the parser does inside
        tree = exp.Select(expressions=[exp.Star()], from_=exp.From(this=tree))
    if not isinstance(tree, exp.Query):
        refuse("is not one SELECT, WITH, VALUES or TABLE")
    _check_depth(tree)
    return tree


def _check_depth(tree: exp.Expr) -> None:
    stack = [(tree, 0, 0)]
    while stack:
        node, depth, chain = stack.pop()
        if depth > MAX_DEPTH or chain > MAX_CHAIN:
            refuse("is nested too deep or chains too many operators; use IN, VALUES or a WITH")
        for child in node.iter_expressions():
            chained = type(child) is type(node) and isinstance(child, CHAINS)
            stack.append((child, depth + (not chained), chain + 1 if chained else 0))


def _read(sql: str, lexemes: Sequence[Lexeme]) -> exp.Expr | None:
    parser = _Parser(DIALECT, steps=1000 + PARSER_STEPS_PER_TOKEN * len(lexemes))
    try:
        tokens = [token for token in DIALECT.tokenize(sql) if token.token_type is not TokenType.SEMICOLON]
        _check_agreement(sql, lexemes, tokens)
        trees = parser.parse(tokens, sql)
    except SqlRefused:
        raise
    except ParseError:
        line, column = place(sql, parser.fault_at)
        fault = f"cannot be read at line {line}, column {column}, near {near(sql, parser.fault_at)}"
        refuse(f"{fault}; an operator can trust what this parser does not know", sql, parser.fault_at)
    except RecursionError:
        refuse("is nested too deep; put the inner parts into a WITH")
    except Exception as error:  # noqa: BLE001 (odd text ends it in ways of its own, as int() of 5,000 digits)
        refuse(f"cannot be read by this parser ({type(error).__name__}); write it more plainly")
    return trees[0] if len(trees) == 1 else None


def _check_agreement(sql: str, lexemes: Sequence[Lexeme], tokens: Sequence[Token]) -> None:
    """Each token of the parser must be whole lexemes, a string or quoted name exactly one, none left out."""
    at = 0
    for token in tokens:
        whole = at < len(lexemes) and token.start == lexemes[at].start
        alone = whole and lexemes[at].kind in {"string", "quoted"}
        while whole and at < len(lexemes) and lexemes[at].end < token.end + 1:
            alone = alone or lexemes[at].kind in {"string", "quoted"}
            at += 1
        if (
            not whole
            or at == len(lexemes)
            or lexemes[at].end != token.end + 1
            or (alone and lexemes[at].start != token.start)
        ):
            refuse(f"can be read in two ways at {near(sql, token.start)}", sql, token.start)
        at += 1
    if at != len(lexemes):
        refuse(f"can be read in two ways at {near(sql, lexemes[at].start)}", sql, lexemes[at].start)


class _Parser(PostgresParser):
    """Gives up after so many steps: some texts make the parser try twice at each level."""

    PLACEHOLDER_PARSERS: ClassVar[dict[TokenType, Any]] = {
        TokenType.COLON: cast("dict[TokenType, Any]", PostgresParser.PLACEHOLDER_PARSERS)[TokenType.COLON]
    }

    def __init__(self, dialect: Postgres, *, steps: int) -> None:
        self._steps = steps
        self.fault_at = 0
        super().__init__(dialect=dialect)

    def raise_error(self, message: str, token: Token | None = None) -> None:
        token = token or self._curr or self._prev
        self.fault_at = token.start if token else 0
        super().raise_error(message, token)

    def _warn_unsupported(self) -> None:
        self.raise_error("Unsupported syntax")  # where it would keep the rest as unread text

    def _advance(self, times: int = 1) -> None:
        self._steps -= 1
        if self._steps < 0:
            raise RecursionError
        super()._advance(times)


class _Reading:
    """One text under judgement."""

    def __init__(self, sql: str, lexemes: Sequence[Lexeme], schemas: tuple[str, ...]) -> None:
        self.sql = sql
        self.lexemes = lexemes
        self.schemas = schemas
        self.relations: dict[str, None] = {}
        self.aliases: set[int] = set()

    def walk(self, tree: exp.Expr) -> tuple[str, ...]:
        """Check every node; the relations as written, CTEs left out."""
        none: frozenset[str] = frozenset()
        stack: list[tuple[exp.Expr, frozenset[str]]] = [(tree, none)]
        while stack:
            node, scope = stack.pop()
            self.check_node(node, scope)
            stack += reversed([*_children(node, scope)])
        return tuple(self.relations)

    def refuse(self, fault: str, node: exp.Expr) -> NoReturn:
        starts = (part.meta.get("start") for part in node.walk() if part.meta)
        refuse(fault, self.sql, next((start for start in starts if start is not None), 0))

    def check_node(self, node: exp.Expr, scope: frozenset[str]) -> None:
        kind = type(node)
        if kind.__name__ not in NODES and not isinstance(node, exp.Func):
            name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kind.__name__).lower()
            self.refuse(FAULTS.get(kind, f"uses {name} syntax, which stored SQL may not"), node)
        if kind is exp.Table:
            self.check_relation(node, scope)
        elif kind is exp.TableAlias:
            self.check_alias(node)
        elif kind is exp.Column and not node.args.get("table"):
            self.check_reserved(node.this)
        elif kind is exp.DataType:
            self.check_type(node)
        elif kind is exp.ObjectIdentifier and node.name.upper() != "OID":
            self.refuse(f"uses the type {node.name.lower()}, which looks into the catalogs", node)

    def check_relation(self, node: exp.Expr, scope: frozenset[str]) -> None:
        name, schema = node.this, node.args.get("db")
        if name is None or isinstance(name, exp.Func):
            return  # ROWS FROM (...) and functions: judged by their names
        if not isinstance(name, exp.Identifier) or node.args.get("catalog") is not None:
            self.refuse(f"reads {self.text(node)}; name relations as {self.schemas[0]}.name", node)
        self.check_reserved(name)
        table = _name(name)
        if schema is None:
            if table in scope:
                return
            if table.startswith("pg_"):
                self.refuse(
                    f"reads {table}, a catalog of Postgres; stored SQL reads only {self.allowed}", node
                )
            self.relations[table] = None
        elif _name(schema) in self.schemas:
            self.relations[f"{_name(schema)}.{table}"] = None
        else:
            self.refuse(f"reads {_name(schema)}.{table}; stored SQL reads only {self.allowed}", node)

    def check_alias(self, node: exp.Expr) -> None:
        self.check_reserved(node.this)
        if node.this is not None and node.args.get("columns"):
            self.aliases.add(node.this.meta.get("start", -1))

    def check_reserved(self, node: Any) -> None:
        if isinstance(node, exp.Identifier) and not node.args.get("quoted") and fold(node.name) in RESERVED:
            self.refuse(
                f'uses the reserved word {node.name} as a name; write it in quotes, "{node.name}"', node
            )

    def check_type(self, node: exp.Expr) -> None:
        """A type that the parser does not know is of the data schemas, or one of Postgres's rarer ones."""
        if node.this is not exp.DataType.Type.USERDEFINED:
            return
        *schema, name = self.text(node.args.get("kind")).split(".")
        if schema in ([], ["pg_catalog"]) and not name.startswith(("pg_", "_")):
            return
        if len(schema) != 1 or schema[0] not in self.schemas:
            self.refuse(
                f"uses the type {'.'.join([*schema, name])}; stored SQL uses only types of {self.allowed}",
                node,
            )

    @property
    def allowed(self) -> str:
        return " and ".join(self.schemas)

    def text(self, node: Any) -> str:
        if not isinstance(node, exp.Expr):
            return str(node)
        return ".".join(_name(part) for part in node.find_all(exp.Identifier, bfs=False))

    def check_names(self, functions: frozenset[str]) -> bool:
        """Check each name by what stands beside it; True where the request's claims are read."""
        callable_names = FUNCTIONS | TYPES | functions
        claims = False
        for at, (kind, name, *_) in enumerate(self.lexemes):
            if kind not in {"word", "quoted"}:
                continue
            before, after = self.mark(at - 1), self.mark(at + 1)
            if name in CATALOG_NAMES or (before == "." and name.startswith("pg_") and after != "("):
                self.refuse_at(
                    f"names {name}, which looks into the catalogs; stored SQL reads only {self.allowed}", at
                )
            if name in SESSION_WORDS and kind == "word" and not self.is_label(at):
                self.refuse_at(
                    f"uses {name}, which tells of the session; a column of that name needs quotes", at
                )
            if name == "pg_catalog":
                self.check_catalog(at)
            elif name == "operator" and kind == "word" and after == "(":
                self.check_operator(at)
            elif after == "(" and not (kind == "word" and before != "." and name in SYNTAX):
                claims |= self.check_call(at, callable_names)
        return claims

    def mark(self, at: int) -> str:
        """The word or mark there, nothing for a quoted name, a string or beyond the ends."""
        if not 0 <= at < len(self.lexemes) or self.lexemes[at].kind not in {"word", "mark"}:
            return ""
        return self.lexemes[at].text

    def is_label(self, at: int) -> bool:
        before = self.mark(at - 1)
        return before in {".", "as"} or (before == ":" and self.mark(at - 2) != ":")

    def check_catalog(self, at: int) -> None:
        """After `pg_catalog.` comes only a call (checked by its name), a type, an operator or a collation."""
        name = self.lexemes[min(at + 2, len(self.lexemes) - 1)]
        harmless = self.mark(at + 3) == "(" or name.text in TYPES or name.kind == "mark"
        if self.mark(at + 1) != "." or not (harmless or self.mark(at - 1) == "collate"):
            self.refuse_at(f"names pg_catalog.{name.text}; stored SQL reads only {self.allowed}", at)

    def check_operator(self, at: int) -> None:
        schema = self.lexemes[at + 2]
        if schema.kind != "mark" and schema.text not in {"pg_catalog", *self.schemas}:
            self.refuse_at(f"uses an operator of {schema.text}; stored SQL uses only {self.allowed}", at)

    def check_call(self, at: int, callable_names: frozenset[str]) -> bool:
        name = self.lexemes[at].text
        schema = ""
        if self.mark(at - 1) == ".":
            schema = self.lexemes[at - 2].text
            if schema in self.schemas and self.mark(at - 3) != ".":
                return False
            allowed = schema == "pg_catalog" and self.mark(at - 3) != "." and name in FUNCTIONS | TYPES
        else:
            sampling = self.mark(at - 1) == "tablesample" and name in {"bernoulli", "system"}
            allowed = name in callable_names or self.lexemes[at].start in self.aliases or sampling
        if not allowed:
            written = f"{schema}.{name}" if schema else name
            self.refuse_at(
                f"calls {written}, which stored SQL may not; listed functions of pg_catalog and functions of "
                f"{self.allowed}, written as {self.schemas[0]}.name(...), are allowed",
                at,
            )
        return name == "current_setting" and self.check_setting(at)

    def check_setting(self, at: int) -> bool:
        setting = self.lexemes[at + 2] if at + 2 < len(self.lexemes) else None
        if setting is None or setting[:2] != ("string", CLAIMS) or self.mark(at + 3) not in {",", ")"}:
            self.refuse_at("reads a setting; current_setting is allowed for 'request.claims' alone", at)
        return True

    def refuse_at(self, fault: str, at: int) -> NoReturn:
        refuse(fault, self.sql, self.lexemes[at].start)


def _children(node: exp.Expr, scope: frozenset[str]) -> Iterator[tuple[exp.Expr, frozenset[str]]]:
    """The node's parts, each with the CTEs that it sees: those before it, or all if RECURSIVE."""
    with_ = node.args.get("with_")
    if isinstance(with_, exp.With):
        names = [_name(cte.args["alias"].this) for cte in with_.expressions]
        inner = scope.union(names)
        for at, cte in enumerate(with_.expressions):
            yield cte, inner if with_.args.get("recursive") else scope.union(names[:at])
        scope = inner
    for key, value in node.args.items():
        parts = cast("list[Any]", value) if isinstance(value, list) else [value]
        for part in parts:
            if isinstance(part, exp.Expr) and key != "with_":
                yield part, scope


def _name(node: Any) -> str:
    if not isinstance(node, exp.Identifier):
        return ""
    return node.name if node.args.get("quoted") else fold(node.name)
