"""Row-level rights: stored SQL sees who asks, and only what that caller may see."""

import json
from contextlib import suppress

import asyncpg
import pytest

from service.database.stored_sql.reader import Reader, open_reader
from service.errors import QueryFailed

SET_UP = """
CREATE TABLE data.visits (region text, visitors int);
INSERT INTO data.visits VALUES ('north', 1), ('north', 2), ('south', 30);
ALTER TABLE data.visits ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_region ON data.visits
    USING (region = current_setting('request.claims', true)::json ->> 'region');
CREATE VIEW data.all_visits AS SELECT * FROM data.visits;
CREATE VIEW data.own_visits WITH (security_invoker) AS SELECT * FROM data.visits;
CREATE VIEW data.who AS SELECT current_setting('request.claims', true)::json ->> 'sub' AS name;
CREATE FUNCTION data.inlined() RETURNS SETOF data.visits LANGUAGE sql STABLE AS 'SELECT * FROM data.visits';
CREATE FUNCTION data.opaque() RETURNS bigint LANGUAGE plpgsql STABLE
    AS 'BEGIN RETURN (SELECT sum(visitors) FROM data.visits); END';
CREATE SCHEMA auth;
GRANT USAGE ON SCHEMA auth TO PUBLIC;
CREATE FUNCTION auth.region() RETURNS text LANGUAGE sql STABLE
    AS $$SELECT current_setting('request.claims', true)::json ->> 'region'$$;
CREATE VIEW data.whose AS VALUES (current_setting('request.claims', true)::json ->> 'sub'), (NULL);
CREATE VIEW data."Of whom" AS SELECT * FROM data.whose;
CREATE FUNCTION auth.name() RETURNS text LANGUAGE plpgsql STABLE
    AS $$BEGIN RETURN current_setting('request.claims', true)::json ->> 'sub'; END$$;
CREATE FUNCTION auth.shout(text) RETURNS text LANGUAGE internal IMMUTABLE STRICT AS 'upper';
CREATE VIEW data.shouted AS SELECT auth.shout(id) AS n FROM data.metrics;
CREATE VIEW data.called AS SELECT auth.name() AS name;
CREATE VIEW data.limited AS SELECT name FROM (VALUES ('ann'), ('bob')) AS v (name) LIMIT 1
    OFFSET (current_setting('request.claims', true)::json ->> 'sub' = 'bob')::int;
CREATE VIEW data.allowed AS VALUES (current_setting('request.claims', true)::json ->> 'region'), (NULL);
CREATE TABLE data.goods (region text);
INSERT INTO data.goods VALUES ('north'), ('north'), ('south');
ALTER TABLE data.goods ENABLE ROW LEVEL SECURITY;
CREATE POLICY allowed ON data.goods USING (region IN (SELECT column1 FROM data.allowed));
CREATE TABLE data.orders (region text);
INSERT INTO data.orders VALUES ('north'), ('north'), ('south');
ALTER TABLE data.orders ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_region ON data.orders USING (region = auth.region());
CREATE TABLE data.shown (region text, hidden boolean);
ALTER TABLE data.shown ENABLE ROW LEVEL SECURITY;
CREATE POLICY shown ON data.shown USING (NOT hidden);
CREATE POLICY own_writes ON data.shown FOR INSERT
    WITH CHECK (region = current_setting('request.claims', true));
CREATE TABLE data.yearly (region text, year int) PARTITION BY LIST (year);
CREATE TABLE data.yearly_2025 PARTITION OF data.yearly FOR VALUES IN (2025);
INSERT INTO data.yearly VALUES ('north', 2025), ('south', 2025);
ALTER TABLE data.yearly ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_region ON data.yearly
    USING (region = current_setting('request.claims', true)::json ->> 'region');
"""
NORTH = json.dumps({"sub": "ann", "region": "north"})
SOUTH = json.dumps({"sub": "bob", "region": "south"})


@pytest.fixture(scope="module")
async def reader(shared_addresses, shared_reader: Reader):
    await as_owner(shared_addresses, SET_UP)
    return shared_reader


async def as_owner(addresses, sql: str) -> None:
    connection = await asyncpg.connect(addresses.url)
    await connection.execute(sql)
    await connection.close()


async def values(reader: Reader, sql: str, claims: str | None):
    return [row[0] for row in (await reader.run(sql, claims=claims)).records]


async def test_a_policy_is_planned_on_a_connection_that_had_claims(reader: Reader):
    """Postgres reads the setting to guess how many rows there are; after a caller it is empty, no JSON."""
    for _ in range(3):
        assert await values(reader, "SELECT sum(visitors) FROM visits", NORTH) == [3]
    assert (await reader.describe("SELECT sum(visitors) FROM visits")).per_caller


PER_CALLER = {
    "a table with a policy": ("SELECT sum(visitors) FROM visits", 3, 30),
    "a subquery": ("SELECT s FROM (SELECT sum(visitors) AS s FROM visits) AS inner_query", 3, 30),
    "a common table expression": ("WITH v AS (SELECT * FROM visits) SELECT sum(visitors) FROM v", 3, 30),
    "a self join": ("SELECT count(*) FROM visits AS a CROSS JOIN visits AS b", 4, 1),
    "a set operation": ("SELECT sum(visitors) FROM visits UNION SELECT 0 ORDER BY 1 DESC LIMIT 1", 3, 30),
    "a scalar in WHERE": ("SELECT 1 WHERE (SELECT count(*) FROM visits) = 2 UNION ALL SELECT 9", 1, 9),
    "a view with the caller's rights": ("SELECT sum(visitors) FROM own_visits", 3, 30),
    "a function that is inlined": ("SELECT sum(visitors) FROM inlined()", 3, 30),
    "a function that is not": ("SELECT opaque()", 3, 30),
    "a policy that calls a function": ("SELECT count(*) FROM orders", 2, 1),
    "a partitioned table": ("SELECT count(*) FROM yearly WHERE region = 'north'", 1, 0),
    "the setting itself": ("SELECT current_setting('request.claims', true)::json ->> 'sub'", "ann", "bob"),
    "the setting in other spelling": (
        """SELECT "current_setting"('Request.Claims', true)::json ->> 'sub'""",
        "ann",
        "bob",
    ),
    "the setting in a view": ("SELECT name FROM who", "ann", "bob"),
    "the setting in the VALUES of a view": ("SELECT * FROM whose", "ann", "bob"),
    "the setting in the VALUES of a view of a view": ('SELECT * FROM "Of whom"', "ann", "bob"),
    "the setting in the LIMIT of a view": ("SELECT name FROM limited", "ann", "bob"),
    "a function of another schema in a view": ("SELECT name FROM called", "ann", "bob"),
    "a function of another schema": ("SELECT auth.name()", "ann", "bob"),
    "a function of another schema in VALUES": ("VALUES (auth.name()), (NULL)", "ann", "bob"),
    "a policy that reads a view": ("SELECT count(*) FROM goods", 2, 1),
    "the setting in escapes": (
        r"""VALUES (U&"current\005fsetting"('request.claims', true)::json ->> 'sub'), (NULL)""",
        "ann",
        "bob",
    ),
    "a schema in the name": ("SELECT sum(visitors) FROM data.visits", 3, 30),
}


@pytest.mark.parametrize(("sql", "north", "south"), PER_CALLER.values(), ids=PER_CALLER)
async def test_each_caller_sees_their_own_rows(reader, sql, north, south):
    description = await reader.describe(sql)
    assert description.per_caller
    for claims, expected in ((NORTH, north), (SOUTH, south), (NORTH, north)):
        assert (await values(reader, description.runnable(sql), claims))[0] == expected


SHARED = {
    "a view that calls a function in C": "SELECT n FROM shouted",
    "a plain table": "SELECT count(*) FROM metrics",
    "no table": "SELECT 1",
    "a table of ours, which hides rows that are gone": "SELECT count(*) FROM customers",
    "a policy that is the same for all": "SELECT count(*) FROM shown",
}


@pytest.mark.parametrize("sql", SHARED.values(), ids=SHARED)
async def test_what_nobody_restricts_is_shared(reader, sql):
    assert not (await reader.describe(sql)).per_caller


async def test_a_view_with_its_owners_rights_counts_as_the_callers_own(reader):
    """It shows all rows, but a later change of the view would not be noticed."""
    assert (await reader.describe("SELECT * FROM all_visits")).per_caller


async def test_a_policy_counts_before_it_is_enabled(addresses):
    """Else what was planned in between would be shared by all callers afterwards."""
    policy = "CREATE POLICY own ON data.customers USING (type = current_setting('request.claims', true))"
    await as_owner(addresses, f"ALTER TABLE data.customers DISABLE ROW LEVEL SECURITY; {policy}")
    async with open_reader(addresses.reader_url, addresses) as own:
        assert (await own.describe("SELECT count(*) FROM customers")).per_caller


async def test_without_claims_a_policy_lets_nothing_through(addresses):
    """On a connection that never had any, as without authentication."""
    await as_owner(addresses, SET_UP)
    async with open_reader(addresses.reader_url, addresses) as own:
        assert await values(own, "SELECT sum(visitors) FROM visits", None) == [None]


async def test_claims_end_with_their_statement(reader):
    """The pool hands out the same connection again."""
    who = "SELECT nullif(current_setting('request.claims', true), '')"
    for _ in range(3):
        assert await values(reader, who, NORTH) == [NORTH]
        assert await values(reader, who, None) == [None]


async def test_claims_end_with_a_statement_that_fails(reader):
    with pytest.raises(QueryFailed):
        await reader.run("SELECT 1 / 0 FROM visits", claims=NORTH)
    who = "SELECT nullif(current_setting('request.claims', true), '')"
    assert await values(reader, who, None) == [None]


@pytest.mark.parametrize(
    "sql",
    [
        "COMMIT",
        "COMMIT; INSERT INTO visits VALUES ('north', 9)",
        "SET TRANSACTION READ WRITE",
        "INSERT INTO visits VALUES ('north', 9)",
        "SELECT set_config('transaction_read_only', 'off', true)",
    ],
)
async def test_a_statement_cannot_leave_the_transaction_of_its_claims(reader, sql):
    with suppress(QueryFailed):
        await reader.run(sql, claims=NORTH)
    with pytest.raises(QueryFailed):
        await reader.run("INSERT INTO visits VALUES ('north', 9)", claims=NORTH)
    assert await values(reader, "SELECT sum(visitors) FROM visits", NORTH) == [3]
    assert await values(reader, "SELECT nullif(current_setting('request.claims', true), '')", None) == [None]


async def test_claims_are_a_value_and_never_sql(reader):
    json_columns = json.dumps({"sub": "x'; DROP TABLE visits; --", "region": "north' OR true"})
    assert await values(reader, "SELECT sum(visitors) FROM visits", json_columns) == [None]
    assert await values(reader, "SELECT name FROM who", json_columns) == ["x'; DROP TABLE visits; --"]
