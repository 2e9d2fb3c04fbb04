"""Find a statement's dependencies beyond its own text, and whether its rows depend on the caller's claims."""

import re
from typing import Any, Final, NamedTuple

from msgspec import Struct

from service.database.stored_sql.connection import SQL
from service.database.stored_sql.plans import Plan
from service.sql.words import CLOCK


class Rule(Struct, frozen=True):
    """A view's or a policy's expression; `foreign` if it calls a function that may read the claims."""

    relation: str
    text: str
    foreign: bool


class Own(Struct, frozen=True):
    """A relation or function that is not built into Postgres, and its name in SQL.

    `opaque`: it is a function that may read the claims, because it is not in C.
    """

    relation: int | None
    kind: str | None
    name: str
    opaque: bool
    function: int | None


class _Relation(Struct, frozen=True):
    schema: str
    name: str


class _Body(Struct, frozen=True):
    text: str


class StatementDependencies(NamedTuple):
    """The rules that apply to a statement, and whether its rows may depend on the claims.

    Tables are given by schema and name. `tables` are those that the plan reads. `pruned_tables` are others
    that the rows may depend on: relations that the statement or a function names (tables, views, composite
    types), and tables behind views that a constraint or a policy removed from the plan and that may return.
    `timed` is true if the rows depend on the clock or on something that is not found here. `built_in` is true
    if the statement calls only functions of pg_catalog.
    """

    rules: tuple[Rule, ...]
    tables: frozenset[tuple[str, str]]
    pruned_tables: frozenset[tuple[str, str]]
    per_caller: bool
    timed: bool
    built_in: bool


_LIST_RULES: Final = SQL.rows("list_rules", Rule)
_LIST_NAMED: Final = SQL.rows("list_named", _Relation)
_LIST_OWN_NAMES: Final = SQL.rows("list_own_names", Own)
_LIST_BODIES: Final = SQL.rows("list_bodies", _Body)
_FIND_VARYING: Final = SQL.command("find_varying")
# Names before a parenthesis, also in literals and comments: a false match only shortens the life of a result.
_CALLS: Final = (
    re.compile(r'(?<!")"((?:[^"]|""){1,63}+)"\s*+\('),
    re.compile(r'(?<![\w$])([^\W\d][\w$]*+)"?\s*+(?:\(|--|/\*)'),
)
# A literal with escapes or in several parts can hide its text from a search.
_DISGUISE: Final = re.compile(r"(?<![\w'])(?:e'|u&['\"])|'[^\S\n]*+\n\s*+'", re.IGNORECASE)
# A plan names functions on the search path without a schema; they are among our names. All others have one.
_FOREIGN_CALL: Final = re.compile(r'[\w"]\.[\w"]++\(|operator\(', re.IGNORECASE)
_WORD: Final = re.compile(r"\w+")
_SETTING: Final = re.compile(r"current_setting|set_config|\bu&\"", re.IGNORECASE)


async def read_dependencies(connection: Any, sql: str, plan: Plan) -> StatementDependencies:
    """Read the dependencies of a statement.

    The plan shows inlined functions, but not expressions in VALUES and LIMIT, so we search the SQL text too.
    Any function that is neither built in nor written in C may read the claims, also behind an operator or
    a cast. We rather count too many dependencies than too few; a plan that was cut may call any function.
    """
    text = "\n".join([sql, *plan.texts])
    names = [
        Own(relation, kind, name.lower(), *rest)
        for relation, kind, name, *rest in await connection.fetch(_LIST_OWN_NAMES.sql)
    ]
    own = _named_in(text, names)
    found = await connection.fetch(
        _LIST_RULES.sql,
        [schema for schema, _ in plan.tables],
        [name for _, name in plan.tables],
        [each.relation for each in own if each.kind == "v"],
    )
    rules = tuple(Rule(*row) for row in found)
    texts = [sql, *plan.texts, *(rule.text for rule in rules)]
    further = await _named_within(connection, "\n".join(texts), names)
    named = await connection.fetch(_LIST_NAMED.sql, [each.relation for each in further if each.relation])
    per_caller = (
        plan.cut
        or any(each.opaque for each in own)
        or any(rule.foreign for rule in rules)
        or any(map(_SETTING.search, texts))
    )
    built_in = not (
        per_caller or any(each.function for each in own) or any(map(_FOREIGN_CALL.search, plan.texts))
    )
    pruned_tables = frozenset((schema, name) for schema, name in named) - plan.tables
    timed = plan.hides or plan.cut or await _varies(connection, sql, texts)
    return StatementDependencies(rules, plan.tables, pruned_tables, per_caller, timed, built_in)


async def _varies(connection: Any, sql: str, texts: list[str]) -> bool:
    """Whether the rows may differ from run to run: by the clock, or by a function that is not IMMUTABLE."""
    if any(map(CLOCK.search, texts)) or _DISGUISE.search(sql):
        return True
    found = (name for calls in _CALLS for text in texts for name in calls.findall(text))
    names = {name.replace('""', '"') for name in found}
    return bool(await connection.fetch(_FIND_VARYING.sql, sorted({*names, *map(str.lower, names)})))


def _named_in(text: str, names: list[Own]) -> list[Own]:
    words = set(_WORD.findall(text.lower()))
    return [each for each in names if _occurs(each.name, text, words)]


async def _named_within(connection: Any, text: str, names: list[Own]) -> list[Own]:
    """The relations and functions that a text names, directly or through the bodies of these functions."""
    read = set[int]()
    while True:
        found = _named_in(text, names)
        unread = {each.function for each in found if each.function} - read
        if not unread:
            return found
        read |= unread
        text = "\n".join([text, *(row[0] for row in await connection.fetch(_LIST_BODIES.sql, list(unread)))])


def _occurs(name: str, text: str, words: set[str]) -> bool:
    parts = _WORD.findall(name)
    return words.issuperset(parts) if parts else name in text  # an operator's name has no words
