"""Find a statement's dependencies beyond its own text, and whether its rows depend on the caller's claims."""

import re
from typing import Any, Final, NamedTuple

from msgspec import Struct

from service.database.stored_sql.plans import Plan
from service.sql.words import CLOCK


class Rule(Struct, frozen=True):
    """A view's or a policy's expression; `foreign` if it calls a function that may read the claims."""

    relation: str
    text: str
    foreign: bool


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


# Rules of the plan's tables, of the given views, and of all relations that they read. A policy counts even
# before row security is enabled on its table: results computed until then are still cached.
_LIST_RULES: Final = """
WITH RECURSIVE rule AS (
    SELECT tableoid, oid, ev_class AS relation
    FROM pg_rewrite
    WHERE ev_type = '1'
    UNION ALL
    SELECT tableoid, oid, polrelid
    FROM pg_policy
    WHERE polcmd IN ('r', '*')
), reached AS (
    SELECT c.oid
    FROM unnest($1::text[], $2::text[]) AS found (schema, name)
    JOIN pg_namespace AS n ON n.nspname = found.schema
    JOIN pg_class AS c ON c.relnamespace = n.oid AND c.relname = found.name
    UNION
    SELECT unnest($3::oid[])
    UNION
    SELECT further.oid
    FROM reached
    CROSS JOIN LATERAL (
        SELECT pg_partition_ancestors(reached.oid)::oid
        UNION ALL
        SELECT d.refobjid
        FROM rule
        JOIN pg_depend AS d ON d.classid = rule.tableoid AND d.objid = rule.oid
        WHERE rule.relation = reached.oid AND d.refclassid = 'pg_class'::regclass
    ) AS further (oid)
)
SELECT format('%I.%I', n.nspname, c.relname),
       coalesce(pg_get_expr(p.polqual, p.polrelid), pg_get_viewdef(c.oid), ''),
       EXISTS (
           SELECT
           FROM pg_depend AS d
           LEFT JOIN pg_operator AS o ON d.refclassid = 'pg_operator'::regclass AND o.oid = d.refobjid
           JOIN pg_proc AS f
               ON f.oid = CASE d.refclassid WHEN 'pg_proc'::regclass THEN d.refobjid ELSE o.oprcode END
           JOIN pg_language AS l ON l.oid = f.prolang
           WHERE d.classid = rule.tableoid AND d.objid = rule.oid AND l.lanname NOT IN ('internal', 'c')
       )
FROM reached
JOIN rule ON rule.relation = reached.oid
JOIN pg_class AS c ON c.oid = reached.oid AND c.relkind <> 'm'
JOIN pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN pg_policy AS p ON p.tableoid = rule.tableoid AND p.oid = rule.oid"""
_LIST_NAMED: Final = """
WITH RECURSIVE reached AS (
    SELECT unnest($1::oid[]) AS oid
    UNION
    SELECT d.refobjid
    FROM reached
    JOIN pg_class AS c ON c.oid = reached.oid AND c.relkind = 'v'
    JOIN pg_rewrite AS r ON r.ev_class = c.oid AND r.ev_type = '1'
    JOIN pg_depend AS d
        ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_class'::regclass
)
SELECT n.nspname::text, c.relname::text
FROM reached
JOIN pg_class AS c ON c.oid = reached.oid
JOIN pg_namespace AS n ON n.oid = c.relnamespace"""
# Names as SQL must write them: without a schema for those on the search path. A plan shows an operator and a
# cast without the function that they call. Functions in C, as in most extensions, do not read the claims.
_LIST_OWN_NAMES: Final = """
SELECT relation,
       relation_kind,
       concat_ws(' ', CASE WHEN n.nspname <> ALL (current_schemas(false)) THEN n.nspname END, own.name),
       coalesce(l.lanname NOT IN ('internal', 'c'), false),
       function
FROM (
    SELECT NULL::oid AS relation,
           NULL::text AS relation_kind,
           proname AS name,
           pronamespace AS namespace,
           prolang AS language,
           oid AS function
    FROM pg_proc
    UNION ALL
    SELECT NULL, NULL, o.oprname, o.oprnamespace, f.prolang, f.oid
    FROM pg_operator AS o
    JOIN pg_proc AS f ON f.oid = o.oprcode
    UNION ALL
    SELECT NULL, NULL, format_type(c.casttarget, NULL), f.pronamespace, f.prolang, f.oid
    FROM pg_cast AS c
    JOIN pg_proc AS f ON f.oid = c.castfunc
    UNION ALL
    SELECT oid, relkind::text, relname, relnamespace, NULL, NULL
    FROM pg_class
    WHERE relkind IN ('v', 'r', 'p', 'm', 'f', 'c', 'S')
) AS own
JOIN pg_namespace AS n ON n.oid = own.namespace
LEFT JOIN pg_language AS l ON l.oid = own.language
WHERE n.nspname NOT IN ('pg_catalog', 'information_schema')"""
# A function's body, the names of its types and, for an aggregate, the names of its functions.
_LIST_BODIES: Final = """
SELECT concat_ws(
    ' ',
    CASE WHEN l.lanname NOT IN ('internal', 'c') THEN p.prosrc END, -- else prosrc is a symbol's name
    pg_get_function_sqlbody(p.oid),
    pg_get_function_result(p.oid),
    pg_get_function_arguments(p.oid),
    a.aggtransfn,
    a.aggfinalfn,
    a.aggmtransfn,
    a.aggmfinalfn
)
FROM unnest($1::oid[]) AS asked (oid)
JOIN pg_proc AS p USING (oid)
JOIN pg_language AS l ON l.oid = p.prolang
LEFT JOIN pg_aggregate AS a ON a.aggfnoid = p.oid"""
# Names before a parenthesis, also in literals and comments: a false match only shortens the life of a result.
_CALLS: Final = (
    re.compile(r'(?<!")"((?:[^"]|""){1,63}+)"\s*+\('),
    re.compile(r'(?<![\w$])([^\W\d][\w$]*+)"?\s*+(?:\(|--|/\*)'),
)
_FIND_VARYING: Final = """
SELECT
FROM pg_proc AS p
JOIN pg_namespace AS n ON n.oid = p.pronamespace
WHERE p.proname = ANY ($1::text[])
    AND p.provolatile <> 'i'
    -- These are STABLE only because of session settings. Every run has the same settings.
    AND NOT (
        n.nspname = 'pg_catalog'
        AND p.provolatile = 's'
        AND p.proname IN (
            'array_to_json', 'array_to_string', 'concat', 'concat_ws', 'current_setting', 'date', 'date_add',
            'date_part', 'date_subtract', 'date_trunc', 'extract', 'format', 'generate_series', 'interval',
            'json_agg', 'json_agg_strict', 'json_build_array', 'json_build_object', 'json_object_agg',
            'json_object_agg_strict', 'json_object_agg_unique', 'json_object_agg_unique_strict', 'jsonb_agg',
            'jsonb_agg_strict', 'jsonb_build_array', 'jsonb_build_object', 'jsonb_object_agg',
            'jsonb_object_agg_strict', 'jsonb_object_agg_unique', 'jsonb_object_agg_unique_strict',
            'jsonb_path_exists_tz', 'jsonb_path_query_tz', 'length', 'make_timestamptz', 'numeric',
            'overlaps', 'quote_literal', 'quote_nullable', 'row_to_json', 'text', 'time', 'timestamp',
            'timestamptz', 'timetz', 'timezone', 'to_char', 'to_date', 'to_json', 'to_jsonb', 'to_number',
            'to_timestamp', 'to_tsquery', 'to_tsvector', 'plainto_tsquery', 'websearch_to_tsquery'
        )
    )
LIMIT 1"""
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
        for relation, kind, name, *rest in await connection.fetch(_LIST_OWN_NAMES)
    ]
    own = _named_in(text, names)
    found = await connection.fetch(
        _LIST_RULES,
        [schema for schema, _ in plan.tables],
        [name for _, name in plan.tables],
        [each.relation for each in own if each.kind == "v"],
    )
    rules = tuple(Rule(*row) for row in found)
    texts = [sql, *plan.texts, *(rule.text for rule in rules)]
    further = await _named_within(connection, "\n".join(texts), names)
    named = await connection.fetch(_LIST_NAMED, [each.relation for each in further if each.relation])
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
    return bool(await connection.fetch(_FIND_VARYING, sorted({*names, *map(str.lower, names)})))


class Own(NamedTuple):
    """A relation or function that is not built into Postgres, and its name in SQL."""

    relation: int | None
    kind: str | None
    name: str
    opaque: bool
    function: int | None


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
        text = "\n".join([text, *(row[0] for row in await connection.fetch(_LIST_BODIES, list(unread)))])


def _occurs(name: str, text: str, words: set[str]) -> bool:
    parts = _WORD.findall(name)
    return words.issuperset(parts) if parts else name in text  # an operator's name has no words
