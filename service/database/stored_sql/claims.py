"""Row-level rights: the caller's verified claims for stored SQL, and which statements depend on them."""

import re
from collections.abc import Iterator
from typing import Any, Final, cast

from msgspec import Struct


class Rule(Struct, frozen=True):
    """What a view or a table's policy says; `foreign` if it calls what Postgres did not bring."""

    relation: str
    text: str
    foreign: bool


# Of the plan's tables, of these views, and of all that they read. A policy counts before row security is
# enabled on its table too: what was made until then is still held.
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
           WHERE d.classid = rule.tableoid
             AND d.objid = rule.oid
             AND d.refclassid IN ('pg_proc'::regclass, 'pg_operator'::regclass)
       )
FROM reached
JOIN rule ON rule.relation = reached.oid
JOIN pg_class AS c ON c.oid = reached.oid AND c.relkind <> 'm'
JOIN pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN pg_policy AS p ON p.tableoid = rule.tableoid AND p.oid = rule.oid"""
# What has to be written to mean them: on the search path no schema.
_LIST_OWN_NAMES: Final = """
SELECT view, concat_ws(' ', CASE WHEN n.nspname <> ALL (current_schemas(false)) THEN n.nspname END, own.name)
FROM (
    SELECT NULL::oid AS view, proname AS name, pronamespace AS namespace
    FROM pg_proc
    UNION
    SELECT oid, relname, relnamespace
    FROM pg_class
    WHERE relkind = 'v'
) AS own
JOIN pg_namespace AS n ON n.oid = own.namespace
WHERE n.nspname NOT IN ('pg_catalog', 'information_schema')"""
_WORD: Final = re.compile(r"\w+")
_SETTING: Final = re.compile(r"current_setting|set_config|\bu&\"", re.IGNORECASE)


async def list_rules(connection: Any, sql: str, plan: dict[str, Any]) -> tuple[tuple[Rule, ...], bool]:
    """List the rules that a statement goes through, and say whether its rows may depend on the claims.

    The plan shows what is inlined, but not what stands in VALUES and LIMIT, so the texts count as well. Any
    function of the data schemas, and any other that is not Postgres's own in a view or policy, may read the
    claims. Too many are counted rather than one too few.
    """
    said = "\n".join([sql, *texts(plan)])
    words = set(_WORD.findall(said.lower()))
    own = [
        view
        for view, name in await connection.fetch(_LIST_OWN_NAMES)
        if words.issuperset(_WORD.findall(name.lower()))
    ]
    tables = [(node["Schema"], node["Relation Name"]) for node in nodes(plan) if "Relation Name" in node]
    found = await connection.fetch(
        _LIST_RULES,
        [schema for schema, _ in tables],
        [name for _, name in tables],
        [view for view in own if view is not None],
    )
    rules = tuple(Rule(*row) for row in found)
    per_caller = (
        None in own
        or any(rule.foreign for rule in rules)
        or any(_SETTING.search(text) for text in (said, *(rule.text for rule in rules)))
    )
    return rules, per_caller


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    waiting = [plan]
    while waiting:
        node = waiting.pop()
        waiting += node.get("Plans", [])
        yield node


def texts(plan: dict[str, Any]) -> Iterator[str]:
    """Everything in a plan that can be an expression."""
    waiting: list[Any] = [plan]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            waiting += cast("dict[str, Any]", value).values()
        elif isinstance(value, list):
            waiting += cast("list[Any]", value)
