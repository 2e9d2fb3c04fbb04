"""Row-level rights: the caller's verified claims for stored SQL, and which statements depend on them."""

import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec

# A policy differs by caller if it reads the setting or calls what Postgres did not bring. It counts before
# row security is enabled on its table too, since nothing announces that.
_HAS_OWN_POLICIES: Final = """
SELECT EXISTS (
    SELECT
    FROM unnest($1::text[], $2::text[]) AS found(schema, name)
    JOIN pg_namespace AS n ON n.nspname = found.schema
    JOIN pg_class AS t ON t.relnamespace = n.oid AND t.relname = found.name
    JOIN pg_class AS c ON c.oid = t.oid OR c.oid IN (SELECT pg_partition_ancestors(t.oid))
    JOIN pg_policy AS p ON p.polrelid = c.oid
    WHERE p.polcmd IN ('r', '*')
      AND (
          pg_get_expr(p.polqual, p.polrelid) ~ 'current_setting'
          OR EXISTS (
              SELECT
              FROM pg_depend AS d
              WHERE d.classid = 'pg_policy'::regclass
                AND d.objid = p.oid
                AND d.refclassid IN ('pg_proc'::regclass, 'pg_operator'::regclass)
          )
      )
)"""
_WORD: Final = re.compile(r"\w+")
_OWN_FUNCTIONS: Final = """
SELECT DISTINCT p.proname
FROM pg_proc AS p
JOIN pg_namespace AS n ON n.oid = p.pronamespace
WHERE n.nspname = ANY (current_schemas(false))"""


async def is_per_caller(connection: Any, sql: str, plan: dict[str, Any]) -> bool:
    """Whether rows may depend on the claims: by a policy of a table, or by the setting itself.

    The plan shows what views, policies and inlined functions hide; any other function of the data schemas
    may read either, so its name is enough. Too many are counted rather than one too few.
    """
    text = f"{sql} {msgspec.json.encode(plan).decode()}".lower()
    if "current_setting" in text:
        return True
    tables = list(_tables(plan))
    if await connection.fetchval(_HAS_OWN_POLICIES, [t[0] for t in tables], [t[1] for t in tables]):
        return True
    functions = await connection.fetch(_OWN_FUNCTIONS)
    words = set(_WORD.findall(text))
    return any(words.issuperset(_WORD.findall(name.lower())) for (name,) in functions)


def _tables(plan: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if "Relation Name" in plan:
        yield plan["Schema"], plan["Relation Name"]
    for inner in plan.get("Plans", ()):
        yield from _tables(inner)
