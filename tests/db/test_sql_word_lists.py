"""The lists of validation and honest SQL, held against Postgres itself."""

import asyncpg
import pytest

from service.database.gateway import Transaction
from service.sql.words import FUNCTIONS, RESERVED
from tests.adversity.hostile import HONEST, STORED

JSON_TABLE_SINCE = 17
VOLATILE = {
    "array_sample", "array_shuffle", "clock_timestamp", "gen_random_uuid", "random", "random_normal",
    "timeofday", "uuidv4", "uuidv7",
}  # fmt: skip


@pytest.mark.parametrize("sql", [pytest.param(sql, id=name) for name, sql in {**HONEST, **STORED}.items()])
async def test_postgres_takes_the_honest_sql(tx: Transaction, sql: str):
    await tx._connection.execute("SET LOCAL search_path = data")

    if "JSON_TABLE" in sql and tx._connection.get_server_version().major < JSON_TABLE_SINCE:
        with pytest.raises(asyncpg.PostgresSyntaxError):
            await tx._connection.prepare(sql)
    else:
        assert await tx._connection.prepare(sql)


async def test_every_word_that_postgres_reserves_is_known(tx: Transaction):
    rows = await tx._connection.fetch("SELECT word FROM pg_get_keywords() WHERE catcode IN ('R', 'T')")

    assert {row["word"] for row in rows} <= RESERVED


async def test_listed_functions_change_nothing(tx: Transaction):
    rows = await tx._connection.fetch(
        "SELECT DISTINCT proname FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace "
        "AND provolatile = 'v' AND proname = ANY($1)",
        list(FUNCTIONS),
    )

    assert {row["proname"] for row in rows} <= VOLATILE


async def test_a_row_taken_as_a_function_argument_reaches_nothing_volatile(tx: Transaction):
    """Postgres reads `row.f` as f(row): the harmful ones begin with pg_, which validation refuses there."""
    rows = await tx._connection.fetch(
        "SELECT proname FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace AND provolatile = 'v' "
        "AND pronargs - pronargdefaults <= 1 AND pronargs > 0 AND proargtypes[0]::regtype::text = ANY($1)",
        ["record", "anyelement", "anycompatible", "anynonarray", '"any"'],
    )

    assert {row["proname"] for row in rows if not row["proname"].startswith("pg_")} == set()
