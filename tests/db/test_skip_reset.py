"""Which statements may leave their session without a reset: only those that cannot have changed it."""

import pytest

from service.database.gateway import Database
from service.database.queries import Command
from service.database.stored_sql.reader import Reader

RELATIONS = """
    CREATE FUNCTION data.marked(x integer) RETURNS integer LANGUAGE plpgsql AS
        $$ BEGIN PERFORM set_config('statement_timeout', '1h', false); RETURN x; END $$;
    CREATE SCHEMA other;
    GRANT USAGE ON SCHEMA other TO PUBLIC;
    CREATE FUNCTION other.marked(x integer) RETURNS integer LANGUAGE plpgsql AS
        $$ BEGIN PERFORM set_config('statement_timeout', '1h', false); RETURN x; END $$;
    CREATE VIEW data.hidden AS SELECT other.marked(1) AS n;
    CREATE VIEW data.own AS SELECT data.marked(1) AS n;
    CREATE OPERATOR other.### (RIGHTARG = integer, FUNCTION = other.marked);
    CREATE OPERATOR data.#### (RIGHTARG = integer, FUNCTION = data.marked);
    CREATE TYPE data.wrapped AS (x integer);
    CREATE FUNCTION data.wrap(x integer) RETURNS data.wrapped LANGUAGE plpgsql AS
        $$ BEGIN PERFORM data.marked(x); RETURN ROW(x)::data.wrapped; END $$;
    CREATE CAST (integer AS data.wrapped) WITH FUNCTION data.wrap(integer);
    CREATE VIEW data.operated AS SELECT OPERATOR(other.###) parts_flagged AS n FROM data.metrics;
"""


@pytest.mark.parametrize(
    ("sql", "built_in"),
    [
        ("SELECT count(*), max(m.date) FROM metrics AS m WHERE lower(m.id) = 'a'", True),
        (
            "SELECT type, count(*) FROM external_interactions JOIN customers USING (customer_id) GROUP BY 1",
            True,
        ),
        ("SELECT marked(1)", False),
        ("SELECT data.marked(1)", False),
        ("SELECT n FROM hidden", False),
        ("SELECT n FROM own", False),
        ("SELECT n FROM operated", False),
        ("SELECT #### parts_flagged FROM metrics", False),
        ("SELECT (parts_flagged::wrapped).x FROM metrics", False),
    ],
)
async def test_a_call_of_anything_but_what_postgres_brings_is_seen(
    clone: Database, reader: Reader, sql: str, built_in: bool
):
    await clone.write(Command("relations", RELATIONS))
    grant = "DO $$ BEGIN EXECUTE 'GRANT SELECT ON data.hidden, data.own, data.operated TO PUBLIC'; END $$"
    await clone.write(Command("grant", grant))
    assert (await reader.describe(sql)).dependencies.built_in is built_in


async def test_a_changed_setting_never_meets_the_next_borrower(clone: Database, reader: Reader):
    await clone.write(Command("relations", RELATIONS))
    await reader.run("SELECT marked(1)")
    for _ in range(2):
        rows = await reader.run("SELECT current_setting('statement_timeout')", skip_reset=True)
        assert rows.records[0][0] == "5s"
