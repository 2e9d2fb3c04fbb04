"""Row-level rights: the caller's verified claims for stored SQL, and which statements depend on them."""

from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec

_HAS_POLICIES: Final = """
SELECT EXISTS (
    SELECT
    FROM unnest($1::text[], $2::text[]) AS found(schema, name)
    JOIN pg_namespace AS n ON n.nspname = found.schema
    JOIN pg_class AS t ON t.relnamespace = n.oid AND t.relname = found.name
    JOIN pg_class AS c ON c.oid = t.oid OR c.oid IN (SELECT pg_partition_ancestors(t.oid))
    WHERE c.relrowsecurity
)"""
_OWN_FUNCTIONS: Final = """
SELECT DISTINCT p.proname
FROM pg_proc AS p
JOIN pg_namespace AS n ON n.oid = p.pronamespace
WHERE n.nspname = ANY (current_schemas(false))"""


async def is_per_caller(connection: Any, sql: str, plan: dict[str, Any]) -> bool:
    """Whether rows may depend on the claims: a table with row security, or the setting itself.

    The plan shows what views and inlined functions hide; any other function of the data schemas may read
    either, so its name is enough. Too many are counted rather than one too few.
    """
    text = f"{sql} {msgspec.json.encode(plan).decode()}".lower()
    if "current_setting" in text:
        return True
    tables = list(_tables(plan))
    if await connection.fetchval(_HAS_POLICIES, [t[0] for t in tables], [t[1] for t in tables]):
        return True
    functions = await connection.fetch(_OWN_FUNCTIONS)
    return any(name.lower() in text for (name,) in functions)


def _tables(plan: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if "Relation Name" in plan:
        yield plan["Schema"], plan["Relation Name"]
    for inner in plan.get("Plans", ()):
        yield from _tables(inner)


@asynccontextmanager
async def claiming(connection: Any, claims: str | None) -> AsyncGenerator[None]:
    """Set `request.claims` until the block ends, in a transaction that the statement cannot leave."""
    if claims is None:
        yield
        return
    async with connection.transaction(readonly=True):
        await connection.execute("SELECT pg_catalog.set_config('request.claims', $1, true)", claims)
        yield
