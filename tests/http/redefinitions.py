"""Changes of a database that nobody announces, each with a metric that they touch."""

from tests.conftest import MAJOR

TABLE = "CREATE TABLE data.{t} (a int, b int); INSERT INTO data.{t} VALUES (1, 2)"
VIEW = f"{TABLE}; CREATE VIEW data.{{t}}_v AS SELECT a FROM data.{{t}}"
NESTED = f"{VIEW}; CREATE VIEW data.{{t}}_vv AS SELECT a FROM data.{{t}}_v"
GRANTED = f"{TABLE}; GRANT SELECT ON data.{{t}} TO {{reader}}"
GENERATED = (
    "CREATE TABLE data.{t} (b int, a int GENERATED ALWAYS AS (b * 2) KIND); INSERT INTO data.{t} VALUES (3)"
)
ENUM = (
    "CREATE TYPE data.{t}_mood AS ENUM ('low', 'high');"
    "CREATE TABLE data.{t} (m data.{t}_mood); INSERT INTO data.{t} VALUES ('low')"
)
COMPOSITE = (
    "CREATE TYPE data.{t}_pair AS (x int, y int);"
    "CREATE TABLE data.{t} (p data.{t}_pair); INSERT INTO data.{t} VALUES (ROW(1, 2))"
)
FUNCTION = "CREATE FUNCTION data.{t}_f() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1'"
PLPGSQL = (
    "CREATE FUNCTION data.{t}_f() RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN {value}; END $$"
)
OUTER = (
    "CREATE FUNCTION data.{t}_g() RETURNS int LANGUAGE plpgsql IMMUTABLE"
    " AS $$ BEGIN RETURN data.{t}_f() * 10; END $$"
)
HIDDEN_READ = (
    "CREATE FUNCTION data.{t}_f() RETURNS bigint LANGUAGE plpgsql IMMUTABLE"
    " AS $$ BEGIN RETURN (SELECT sum(a) FROM data.{t}); END $$"
)
OPERATOR = (
    "CREATE FUNCTION data.{t}_op(int, int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 + $2';"
    "CREATE OPERATOR data.<+> (FUNCTION = data.{t}_op, LEFTARG = int, RIGHTARG = int)"
)
REVERSED = "CREATE COLLATION data.{t}_c (provider = libc, locale = 'C')"
DOMAIN = f"{TABLE}; CREATE DOMAIN data.{{t}}_d AS int CHECK (value > 0)"
CAST = (
    "CREATE TYPE data.{t}_pair AS (x int);"
    "CREATE FUNCTION data.{t}_to(data.{t}_pair) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1.x';"
    "CREATE CAST (data.{t}_pair AS int) WITH FUNCTION data.{t}_to(data.{t}_pair)"
)
ROLE = (
    f"CREATE ROLE {{t}}_role; GRANT {{t}}_role TO {{reader}}; {TABLE};"
    " GRANT SELECT ON data.{t} TO {t}_role"
)
ONLY_GRANTED = "REVOKE ALL ON data.{t} FROM PUBLIC, {parent}"
POLICY = (
    f"{TABLE}; ALTER TABLE data.{{t}} ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON data.{{t}} USING (true)"
)
SAME_ROLES = (
    f"{TABLE}; CREATE ROLE {{t}}_owner; GRANT SELECT ON data.{{t}} TO {{t}}_owner;"
    "GRANT USAGE, CREATE ON SCHEMA data TO {t}_owner;"
    "CREATE VIEW data.{t}_v AS SELECT a FROM data.{t}; ALTER VIEW data.{t}_v OWNER TO {t}_owner;"
    "GRANT SELECT ON data.{t}_v TO {reader}"
)

A = "SELECT a FROM {t}"
ALL = "SELECT * FROM {t}"
F = "SELECT {t}_f() AS n"
ONE = [{"a": 1}]
DENIED, MISSING, WRONG = "42501", "42P01", "42703"

# name: set up, the metric, the change, and what is answered then: rows or an SQLSTATE.
CASES = {
    # Columns
    "add a column": (TABLE, ALL, "ALTER TABLE data.{t} ADD c int DEFAULT 3", [{"a": 1, "b": 2, "c": 3}]),
    "rename a column": (TABLE, A, "ALTER TABLE data.{t} RENAME a TO z", WRONG),
    "rename a column of all": (TABLE, ALL, "ALTER TABLE data.{t} RENAME a TO z", [{"z": 1, "b": 2}]),
    "swap two columns": (
        TABLE,
        A,
        "ALTER TABLE data.{t} RENAME a TO z; ALTER TABLE data.{t} RENAME b TO a",
        [{"a": 2}],
    ),
    "drop a column": (TABLE, A, "ALTER TABLE data.{t} DROP a", WRONG),
    "drop a column of all": (TABLE, ALL, "ALTER TABLE data.{t} DROP b", ONE),
    "drop and add again": (
        TABLE,
        A,
        "ALTER TABLE data.{t} DROP a; ALTER TABLE data.{t} ADD a int DEFAULT 9",
        [{"a": 9}],
    ),
    "another type": (TABLE, A, "ALTER TABLE data.{t} ALTER a TYPE text", [{"a": "1"}]),
    "another type, by an expression": (
        TABLE,
        A,
        "ALTER TABLE data.{t} ALTER a TYPE int USING a + 40",
        [{"a": 41}],
    ),
    "a stored expression": (
        GENERATED.replace("KIND", "STORED"),
        A,
        "ALTER TABLE data.{t} DROP a; ALTER TABLE data.{t} ADD a int GENERATED ALWAYS AS (b * 5) STORED",
        [{"a": 15}],
    ),
    "a key that grouping hangs on": (
        "CREATE TABLE data.{t} (a int PRIMARY KEY, b int); INSERT INTO data.{t} VALUES (1, 2)",
        "SELECT a, b FROM {t} GROUP BY a",
        "ALTER TABLE data.{t} DROP CONSTRAINT {t}_pkey",
        "42803",
    ),
    # Tables
    "rename a table": (TABLE, A, "ALTER TABLE data.{t} RENAME TO {t}_z", MISSING),
    "drop a table": (TABLE, A, "DROP TABLE data.{t}", MISSING),
    "drop and make again": (
        TABLE,
        A,
        "DROP TABLE data.{t}; CREATE TABLE data.{t} AS SELECT 7 AS a",
        [{"a": 7}],
    ),
    "another schema": (TABLE, A, "ALTER TABLE data.{t} SET SCHEMA app", MISSING),
    "a namesake in an earlier schema": (
        TABLE,
        A,
        "CREATE TABLE early.{t} AS SELECT 8 AS a; GRANT SELECT ON early.{t} TO PUBLIC",
        [{"a": 8}],
    ),
    "a view in an earlier schema": (
        TABLE,
        A,
        "CREATE VIEW early.{t} AS SELECT 8 AS a; GRANT SELECT ON early.{t} TO PUBLIC",
        [{"a": 8}],
    ),
    "attach a partition": (
        "CREATE TABLE data.{t} (a int) PARTITION BY LIST (a); CREATE TABLE data.{t}_1 AS SELECT 1 AS a",
        "SELECT count(*) AS n FROM {t}",
        "ALTER TABLE data.{t} ATTACH PARTITION data.{t}_1 FOR VALUES IN (1)",
        [{"n": 1}],
    ),
    "detach a partition": (
        (
            "CREATE TABLE data.{t} (a int) PARTITION BY LIST (a);"
            "CREATE TABLE data.{t}_1 PARTITION OF data.{t} FOR VALUES IN (1); INSERT INTO data.{t} VALUES (1)"
        ),
        "SELECT count(*) AS n FROM {t}",
        "ALTER TABLE data.{t} DETACH PARTITION data.{t}_1",
        [{"n": 0}],
    ),
    # Views
    "a view": (
        VIEW,
        "SELECT a FROM {t}_v",
        "CREATE OR REPLACE VIEW data.{t}_v AS SELECT a + 1 AS a FROM data.{t}",
        [{"a": 2}],
    ),
    "a view of a view": (
        NESTED,
        "SELECT a FROM {t}_vv",
        "CREATE OR REPLACE VIEW data.{t}_v AS SELECT b AS a FROM data.{t}",
        [{"a": 2}],
    ),
    "a column of a view": (NESTED, "SELECT a FROM {t}_vv", "ALTER VIEW data.{t}_vv RENAME a TO z", WRONG),
    "drop a view": (NESTED, "SELECT a FROM {t}_vv", "DROP VIEW data.{t}_vv", MISSING),
    "the upper of two views": (
        NESTED,
        "SELECT a FROM {t}_vv",
        "CREATE OR REPLACE VIEW data.{t}_vv AS SELECT a + 5 AS a FROM data.{t}_v",
        [{"a": 6}],
    ),
    # Types
    "rename a value of an enum": (
        ENUM,
        "SELECT m FROM {t}",
        "ALTER TYPE data.{t}_mood RENAME VALUE 'low' TO 'down'",
        [{"m": "down"}],
    ),
    "a value of an enum that is asked for": (
        ENUM,
        "SELECT count(*) AS n FROM {t} WHERE m = 'low'",
        "ALTER TYPE data.{t}_mood RENAME VALUE 'low' TO 'down'",
        "22P02",
    ),
    "a value more": (
        ENUM,
        "SELECT count(*) AS n FROM unnest(enum_range(NULL::{t}_mood)) AS v",
        "ALTER TYPE data.{t}_mood ADD VALUE 'lower' BEFORE 'low'",
        [{"n": 3}],
    ),
    "rename an attribute": (
        COMPOSITE,
        "SELECT to_jsonb(p) AS p FROM {t}",
        "ALTER TYPE data.{t}_pair RENAME ATTRIBUTE y TO z",
        [{"p": {"x": 1, "z": 2}}],
    ),
    "an attribute that is asked for": (
        COMPOSITE,
        "SELECT (p).y AS y FROM {t}",
        "ALTER TYPE data.{t}_pair RENAME ATTRIBUTE y TO z",
        WRONG,
    ),
    "an attribute of a composite within": (
        (
            f"{COMPOSITE}; CREATE TABLE data.{{t}}_o (q data.{{t}}[]);"
            "INSERT INTO data.{t}_o VALUES (ARRAY[ROW(ROW(1, 2)::data.{t}_pair)::data.{t}])"
        ),
        "SELECT to_jsonb(q) AS q FROM {t}_o",
        "ALTER TYPE data.{t}_pair RENAME ATTRIBUTE y TO z",
        [{"q": [{"p": {"x": 1, "z": 2}}]}],
    ),
    "rows of a table as a type": (
        TABLE,
        "SELECT * FROM json_populate_record(NULL::{t}, '{{\"a\": 4}}')",
        "ALTER TABLE data.{t} DROP b",
        [{"a": 4}],
    ),
    "a check of a domain": (
        DOMAIN,
        "SELECT count(a::{t}_d) AS n FROM {t}",
        "ALTER DOMAIN data.{t}_d ADD CHECK (value > 5)",
        "23514",
    ),
    "rename a type": (
        DOMAIN,
        "SELECT a::{t}_d AS a FROM {t}",
        "ALTER TYPE data.{t}_d RENAME TO {t}_z",
        "42704",
    ),
    "a cast": (
        CAST,
        "SELECT ROW(5)::{t}_pair::int AS n",
        (
            "CREATE OR REPLACE FUNCTION data.{t}_to(data.{t}_pair) RETURNS int LANGUAGE sql IMMUTABLE"
            " AS 'SELECT $1.x * 2'"
        ),
        [{"n": 10}],
    ),
    "drop a cast": (
        CAST,
        "SELECT ROW(5)::{t}_pair::int AS n",
        "DROP CAST (data.{t}_pair AS int)",
        "42846",
    ),
    "a collation": (
        f"{REVERSED}; CREATE TABLE data.{{t}} (a text); INSERT INTO data.{{t}} VALUES ('x')",
        'SELECT a FROM {t} ORDER BY a COLLATE "{t}_c"',
        "DROP COLLATION data.{t}_c",
        "42704",
    ),
    # Functions
    "a function": (
        FUNCTION,
        F,
        FUNCTION.replace("CREATE", "CREATE OR REPLACE", 1).replace("SELECT 1", "SELECT 2"),
        [{"n": 2}],
    ),
    "a function in plpgsql": (
        PLPGSQL.replace("{value}", "1"),
        F,
        PLPGSQL.replace("{value}", "2").replace("CREATE", "CREATE OR REPLACE", 1),
        [{"n": 2}],
    ),
    "a function within a function": (
        f"{PLPGSQL.replace('{value}', '1')}; {OUTER}",
        "SELECT {t}_g() AS n",
        PLPGSQL.replace("{value}", "2").replace("CREATE", "CREATE OR REPLACE", 1),
        [{"n": 20}],
    ),
    "a column that only a function reads": (
        f"{TABLE}; {HIDDEN_READ}",
        F,
        "ALTER TABLE data.{t} RENAME a TO z",
        WRONG,
    ),
    "a table that only a function within a function reads": (
        f"{TABLE}; {HIDDEN_READ}; {OUTER}",
        "SELECT {t}_g() AS n",
        "DROP TABLE data.{t}",
        MISSING,
    ),
    "drop a function": (FUNCTION, F, "DROP FUNCTION data.{t}_f()", "42883"),
    "a function in an earlier schema": (
        FUNCTION,
        F,
        "CREATE FUNCTION early.{t}_f() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 6'",
        [{"n": 6}],
    ),
    "a function that suits better": (
        "CREATE FUNCTION data.{t}_f(numeric) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1'",
        "SELECT {t}_f(1) AS n",
        "CREATE FUNCTION data.{t}_f(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 2'",
        [{"n": 2}],
    ),
    "what an operator does": (
        OPERATOR,
        "SELECT 2 OPERATOR(data.<+>) 3 AS n",
        (
            "CREATE OR REPLACE FUNCTION data.{t}_op(int, int) RETURNS int LANGUAGE sql IMMUTABLE"
            " AS 'SELECT $1 * $2'"
        ),
        [{"n": 6}],
    ),
    "drop an operator": (
        OPERATOR.replace("<+>", "<->>"),
        "SELECT 2 OPERATOR(data.<->>) 3 AS n",
        "DROP OPERATOR data.<->> (int, int)",
        "42883",
    ),
    "an aggregate": (
        (
            "CREATE FUNCTION data.{t}_s(int, int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 + $2';"
            "CREATE AGGREGATE data.{t}_agg(int) (SFUNC = data.{t}_s, STYPE = int, INITCOND = '0')"
        ),
        "SELECT {t}_agg(n::int) AS n FROM generate_series(1, 3) AS n",
        (
            "CREATE OR REPLACE FUNCTION data.{t}_s(int, int) RETURNS int LANGUAGE sql IMMUTABLE"
            " AS 'SELECT $1 + 10'"
        ),
        [{"n": 30}],
    ),
    "text search": (
        "CREATE TEXT SEARCH CONFIGURATION data.{t}_ts (COPY = pg_catalog.simple)",
        "SELECT to_tsvector('data.{t}_ts'::regconfig, 'cats')::text AS n",
        "ALTER TEXT SEARCH CONFIGURATION data.{t}_ts ALTER MAPPING FOR asciiword WITH english_stem",
        [{"n": "'cat':1"}],
    ),
    # Rights
    "a right to a table": (
        f"{GRANTED}; {ONLY_GRANTED}",
        A,
        "REVOKE SELECT ON data.{t} FROM {reader}",
        DENIED,
    ),
    "a right to a column": (
        f"{TABLE}; {ONLY_GRANTED}; GRANT SELECT (a) ON data.{{t}} TO {{reader}}",
        A,
        "REVOKE SELECT (a) ON data.{t} FROM {reader}",
        DENIED,
    ),
    "a right by membership": (f"{ROLE}; {ONLY_GRANTED}", A, "REVOKE {t}_role FROM {reader}", DENIED),
    "a membership that is not inherited": (
        f"{ROLE}; {ONLY_GRANTED}",
        A,
        "GRANT {t}_role TO {reader} WITH INHERIT FALSE",
        DENIED,
    ),
    "a membership two roles away": (
        (
            f"{ROLE}; {ONLY_GRANTED}; CREATE ROLE {{t}}_far; GRANT {{t}}_far TO {{t}}_role;"
            "REVOKE SELECT ON data.{t} FROM {t}_role; GRANT SELECT ON data.{t} TO {t}_far"
        ),
        A,
        "REVOKE {t}_far FROM {t}_role",
        DENIED,
    ),
    "a right below a view": (
        SAME_ROLES,
        "SELECT a FROM {t}_v",
        "REVOKE SELECT ON data.{t} FROM {t}_owner",
        DENIED,
    ),
    "a view with the rights of its caller": (
        f"{SAME_ROLES}; {ONLY_GRANTED}",
        "SELECT a FROM {t}_v",
        "ALTER VIEW data.{t}_v SET (security_invoker = true)",
        DENIED,
    ),
    "an owner without rights": (
        f"{SAME_ROLES}; CREATE ROLE {{t}}_new",
        "SELECT a FROM {t}_v",
        "ALTER VIEW data.{t}_v OWNER TO {t}_new",
        DENIED,
    ),
    "a right to a function": (
        FUNCTION,
        F,
        "REVOKE EXECUTE ON FUNCTION data.{t}_f() FROM PUBLIC, {parent}",
        DENIED,
    ),
    "row security": (TABLE, A, "ALTER TABLE data.{t} ENABLE ROW LEVEL SECURITY", []),
    "a policy changed": (POLICY, A, "ALTER POLICY p ON data.{t} USING (a > 5)", []),
    "a policy dropped": (POLICY, A, "DROP POLICY p ON data.{t}", []),
    "a policy more": (POLICY, A, "CREATE POLICY q ON data.{t} AS RESTRICTIVE USING (false)", []),
    "a policy of a table below a view": (
        f"{POLICY}; CREATE VIEW data.{{t}}_v WITH (security_invoker) AS SELECT a FROM data.{{t}}",
        "SELECT a FROM {t}_v",
        "ALTER POLICY p ON data.{t} USING (false)",
        [],
    ),
}
if MAJOR >= 18:
    CASES["a virtual expression"] = (
        GENERATED.replace("KIND", "VIRTUAL"),
        A,
        "ALTER TABLE data.{t} ALTER a SET EXPRESSION AS (b * 5)",
        [{"a": 15}],
    )
