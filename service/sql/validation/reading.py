"""Decide whether SQL may run: it must be one SELECT over the data schemas that uses listed names only.

We read the text twice. Our lexer follows Postgres's rules and finds each name before a parenthesis: these are
all calls that Postgres can see, independent of a syntax tree's spelling. sqlglot's tree gives the kinds of
nodes, the relations and the scopes of CTEs. Both must agree where each token begins and ends, so a comment, a
string or a quoted name cannot mean one thing here and another in Postgres. The reader's privileges, READ ONLY
and the limits of its pool are the second wall; they also stop long runs and large results.
"""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple, NoReturn, cast

from sqlglot import exp

from service.sql.lexer import fold, mark_of
from service.sql.validation.foreign import foreign
from service.sql.validation.limits import UnknownCall, refuse
from service.sql.validation.parsing import Statement, parse
from service.sql.validation.sizes import Sizes
from service.sql.words import (
    CATALOG_NAMES,
    CLAIMS,
    FUNCTIONS,
    NODES,
    RESERVED,
    SESSION_WORDS,
    SYNTAX,
    TYPES,
)

TYPE_NAME = re.compile("[a-z_][a-z0-9_]*")
TYPE_TEXT = re.compile(r"[a-z0-9_ ,()\[\]]+")
FAULTS: dict[type[exp.Expr], str] = {
    exp.Lock: "locks rows (FOR UPDATE, FOR SHARE), which stored SQL may not; leave that clause out",
    exp.Into: "writes a table (SELECT INTO), which stored SQL may not; leave INTO out",
    exp.Insert: "holds an INSERT; stored SQL only reads",
    exp.Update: "holds an UPDATE; stored SQL only reads",
    exp.Delete: "holds a DELETE; stored SQL only reads",
    exp.Merge: "holds a MERGE; stored SQL only reads",
}


def validate_sql(
    sql: str | Statement,
    *,
    schemas: tuple[str, ...],
    functions: frozenset[str] = frozenset(),
    database: str = "",
) -> tuple[str, ...]:
    """Allow this SQL or raise SqlRefused, whose message names the refused part and how to fix it.

    Returns the relations that the text names. Postgres's plan shows more (views, functions). `functions` are
    names that may be called without a schema: functions of the data schemas whose names pg_catalog does not
    have (Postgres searches it first). `database` is the connected database's name: it may precede a schema.
    """
    statement = parse(sql) if isinstance(sql, str) else sql
    reading = _Reading(statement, schemas, database)
    relations = reading.walk(statement.tree)
    reading.check_names(functions)
    Sizes(statement.sql, statement.lexemes).check()
    return relations


class _Reading:
    """The validation of one text."""

    def __init__(self, statement: Statement, schemas: tuple[str, ...], database: str) -> None:
        self.sql = statement.sql
        self.lexemes = statement.lexemes
        self.schemas = schemas
        self.database = database
        self.relations: dict[str, None] = {}
        self.aliases: set[int] = set()
        self.labels: set[int] = set()

    def walk(self, tree: exp.Expr) -> tuple[str, ...]:
        """Check every node; return the relations as written, without CTEs."""
        stack: list[tuple[exp.Expr, _Scope | None]] = [(tree, None)]
        while stack:
            node, scope = stack.pop()
            self.check_node(node, scope)
            stack += reversed([*_children(node, scope)])
        return tuple(self.relations)

    def refuse(self, fault: str, node: exp.Expr) -> NoReturn:
        starts = (part.meta.get("start") for part in node.walk() if part.meta)
        refuse(fault, self.sql, next((start for start in starts if start is not None), 0))

    def check_node(self, node: exp.Expr, scope: "_Scope | None") -> None:
        kind = type(node)
        if kind.__name__ not in NODES and not isinstance(node, exp.Func):
            name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kind.__name__).lower()
            self.refuse(FAULTS.get(kind, f"uses {name} syntax, which stored SQL may not"), node)
        if kind is exp.Table:
            self.check_relation(node, scope)
        elif kind is exp.TableAlias:
            self.check_alias(node)
        elif kind is exp.Alias:
            self.labels.add(node.args["alias"].meta.get("start", -1))
        elif kind is exp.Column and not node.args.get("table"):
            self.check_reserved(node.this)
        elif kind is exp.DataType:
            self.check_type(node)
        elif kind is exp.ObjectIdentifier and node.name.upper() != "OID":
            self.refuse(f"uses the type {node.name.lower()}, which looks into the catalogs", node)

    def check_relation(self, node: exp.Expr, scope: "_Scope | None") -> None:
        name, schema = node.this, node.args.get("db")
        if name is None or isinstance(name, exp.Func):
            return  # ROWS FROM (...) and functions: `check_names` checks their names
        catalog = node.args.get("catalog")
        if any(isinstance(part, exp.Placeholder) for part in (name, schema, catalog)):
            self.refuse(
                "has a parameter for a relation; a parameter stands for a value: name the relation", node
            )
        if not isinstance(name, exp.Identifier) or (catalog is not None and not self.is_own(_name(catalog))):
            written = ".".join(_name(part) for part in (catalog, schema, name) if part is not None)
            self.refuse(f"reads {written}; name relations as {self.schemas[0]}.name", node)
        table = _name(name)
        if schema is None:
            self.check_reserved(name)
            if scope is not None and scope.sees(table):
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

    def is_own(self, database: str) -> bool:
        return bool(database) and database == self.database

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
        """Refuse an unknown type unless it is of the data schemas or a rarer built-in type of Postgres."""
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

    def check_names(self, functions: frozenset[str]) -> None:
        """Check each name together with its neighbours."""
        callable_names = FUNCTIONS | TYPES | functions
        for at, (kind, name, *_) in enumerate(self.lexemes):
            if kind not in {"word", "quoted"}:
                continue
            before, after = self.mark(at - 1), self.mark(at + 1)
            if before.endswith("@"):
                self.check_variable(at)
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
                self.check_call(at, callable_names)

    def mark(self, at: int) -> str:
        return mark_of(self.lexemes, at)

    def check_variable(self, at: int) -> None:
        """Refuse `id = @id`, which Postgres reads as `id = abs(id)`; `@ id` with a blank is allowed."""
        sign = self.lexemes[at - 1]
        compared = (sign.text[:-1] or self.mark(at - 2)).endswith(("=", "<", ">"))
        if compared and sign.end == self.lexemes[at].start and (advice := foreign(self.sql, sign.end - 1)):
            refuse(f"{advice} (or abs({self.lexemes[at].text}), if you mean that)", self.sql, sign.end - 1)

    def is_label(self, at: int) -> bool:
        before = self.mark(at - 1)
        return before in {".", "as"} or self.lexemes[at].start in self.labels

    def check_catalog(self, at: int) -> None:
        """After `pg_catalog.`, allow only a call (checked by name), a type, an operator or a collation."""
        name = self.lexemes[min(at + 2, len(self.lexemes) - 1)]
        harmless = self.mark(at + 3) == "(" or name.text in TYPES or name.kind == "mark"
        if self.mark(at + 1) != "." or not (harmless or self.mark(at - 1) == "collate"):
            self.refuse_at(f"names pg_catalog.{name.text}; stored SQL reads only {self.allowed}", at)

    def check_operator(self, at: int) -> None:
        schema = self.lexemes[at + 2]
        if schema.kind != "mark" and schema.text not in {"pg_catalog", *self.schemas}:
            self.refuse_at(f"uses an operator of {schema.text}; stored SQL uses only {self.allowed}", at)

    def check_call(self, at: int, callable_names: frozenset[str]) -> None:
        name = self.lexemes[at].text
        schema = ""
        if self.mark(at - 1) == ".":
            schema = self.lexemes[at - 2].text
            own = self.mark(at - 3) != "." or self.is_own(self.lexemes[at - 4].text)
            if schema in self.schemas and own:
                return
            allowed = schema == "pg_catalog" and own and name in FUNCTIONS | TYPES
        else:
            sampling = self.mark(at - 1) == "tablesample" and name in {"bernoulli", "system"}
            allowed = name in callable_names or self.lexemes[at].start in self.aliases or sampling
        if name == "pg_input_is_valid":
            self.check_input_type(at)
        elif not allowed:
            self.refuse_call(f"{schema}.{name}" if schema else name, at)
        if name == "current_setting":
            self.check_setting(at)

    def refuse_call(self, written: str, at: int) -> NoReturn:
        fault = (
            f"calls {written}, which stored SQL may not; listed functions of pg_catalog and functions of "
            f"{self.allowed}, written as {self.schemas[0]}.name(...), are allowed"
        )
        if "." not in written and not written.startswith("pg_"):
            fault += "; an extension's function is allowed when DATA_SCHEMAS names its schema"
        refuse(fault, self.sql, self.lexemes[at].start, refusal=UnknownCall)

    def check_input_type(self, at: int) -> None:
        """Allow `pg_input_is_valid(text, 'type')` for a literal type that does not read the catalogs."""
        depth, end = 0, at + 1
        while end < len(self.lexemes):
            depth += (self.mark(end) == "(") - (self.mark(end) == ")")
            if not depth:
                break
            end += 1
        literal = self.lexemes[end - 1].kind == "string" and self.mark(end - 2) == ","
        written = self.lexemes[end - 1].text[1:-1].lower() if literal else "?"
        names = TYPE_NAME.findall(written)
        if not TYPE_TEXT.fullmatch(written) or any(
            name in CATALOG_NAMES or name.startswith(("pg_", "_")) for name in names
        ):
            self.refuse_at(
                "asks whether a text is of a type; write that type as a plain literal, as in 'date'", at
            )

    def check_setting(self, at: int) -> None:
        setting = self.lexemes[at + 2] if at + 2 < len(self.lexemes) else None
        if setting is None or setting[:2] != ("string", CLAIMS) or self.mark(at + 3) not in {",", ")"}:
            self.refuse_at("reads a setting; current_setting is allowed for 'request.claims' alone", at)

    def refuse_at(self, fault: str, at: int) -> NoReturn:
        refuse(fault, self.sql, self.lexemes[at].start)


class _Scope(NamedTuple):
    """The CTEs that a part of the text can see: the first `seen` of these names, and the outer scopes."""

    outer: "_Scope | None"
    names: dict[str, int]
    seen: int

    def sees(self, name: str) -> bool:
        scope: _Scope | None = self
        while scope is not None:
            if scope.names.get(name, scope.seen) < scope.seen:
                return True
            scope = scope.outer
        return False


def _children(node: exp.Expr, scope: _Scope | None) -> Iterator[tuple[exp.Expr, _Scope | None]]:
    """The node's parts, each with the CTEs that it can see: those before it, or all if RECURSIVE."""
    with_ = node.args.get("with_")
    if isinstance(with_, exp.With):
        names: dict[str, int] = {}
        for at, cte in enumerate(with_.expressions):
            names.setdefault(_name(cte.args["alias"].this), at)
        inner = _Scope(scope, names, len(with_.expressions))
        for at, cte in enumerate(with_.expressions):
            yield cte, inner if with_.args.get("recursive") else inner._replace(seen=at)
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
