"""Validation allows reads of the data schemas with listed names, and refuses everything else."""

import inspect
import sys
import tracemalloc

import pytest
from sqlglot import exp

from service.errors import FieldError, SqlRefused
from service.sql.validation import Unread, parse
from service.sql.validation.sizes import MAX_SIZE
from service.sql.words import FUNCTIONS, NODES
from tests.adversity.hostile import HONEST, HOSTILE, PARAMETERISED, STORED
from tests.dashboards import DASHBOARDS
from tests.pure.validating import is_allowed, refusal, relations_of


def cases(texts: dict[str, str]) -> list:
    return [pytest.param(sql, id=name.replace(" ", "-")) for name, sql in texts.items()]


# The corpus


@pytest.mark.parametrize("sql", [pytest.param(h.sql, id=h.name) for h in HOSTILE if h.wall == "validation"])
def test_refuses_hostile_sql_with_a_sentence_and_a_place(sql):
    problem = refusal(sql)

    assert problem.errors == (FieldError("sql", problem.detail),)
    assert problem.detail.startswith("The SQL ")
    assert problem.detail.endswith(".")
    assert len(problem.detail) < 400
    lines = (sql or " ").split("\n")
    assert 1 <= problem.members["line"] <= len(lines)
    assert 1 <= problem.members["column"] <= len(lines[problem.members["line"] - 1]) + 1


@pytest.mark.parametrize("sql", [pytest.param(h.sql, id=h.name) for h in HOSTILE if h.wall != "validation"])
def test_leaves_long_runs_and_own_functions_to_the_reader_limits(sql):
    assert is_allowed(sql)


@pytest.mark.parametrize("sql", cases(HONEST))
def test_allows_honest_sql(sql):
    assert is_allowed(sql)


@pytest.mark.parametrize("sql", cases(PARAMETERISED))
def test_allows_named_parameters(sql):
    assert parse(sql).tree.find(exp.Placeholder) is not None
    assert is_allowed(sql)


@pytest.mark.parametrize("sql", cases(STORED))
def test_allows_the_stored_queries_unchanged(sql):
    assert relations_of(sql) == ("metrics",)


@pytest.mark.parametrize("sql", DASHBOARDS)
def test_allows_the_sql_of_dashboards(sql):
    assert is_allowed(sql)


def test_there_are_many_dashboards():
    assert len(DASHBOARDS) >= 150


# Calls that create sizes

BOUNDED = [
    *("20", str(MAX_SIZE), "10_000", "'20'", "(20)", "20::int", "-5", "least(n, 20)", "least(20, n * 2)"),
    *("LEAST(round(n)::int, 50)", "(least(n, 5))::int", "least(n, least(m, 20))", "least(:n, 20)"),
]
UNBOUNDED = [
    *("n", ":n", "n::int", str(MAX_SIZE + 1), "1e3::int", "0x10", "5 * 5", "length(name)", "greatest(n, 5)"),
    *("coalesce(n, 5)", "least(n, m)", f"least(n, {MAX_SIZE + 1})", "least(n, 5) * 1000", "-least(n, 5)"),
    *("1 - least(n, 5)", "data.least(n, 5)", '"least"(n, 5)', "(SELECT 5)", "CASE WHEN a THEN 5 END"),
]


@pytest.mark.parametrize(
    "call",
    [
        "repeat('#', {})",
        "pg_catalog.repeat('#', {})",
        "\"repeat\" /* */ ('#', {})",
        "lpad(name, {})",
        "rpad(name, {}, '.')",
        "array_fill(0, ARRAY[{}])",
        "bpchar(name, {}, true)",
    ],
)
def test_allows_literal_sizes_only(call):
    for size in BOUNDED:
        assert is_allowed(f"SELECT {call.format(size)} FROM t"), size
    for size in UNBOUNDED:
        assert refusal(f"SELECT {call.format(size)} FROM t"), size


def test_says_how_to_bound_a_size():
    assert refusal("SELECT repeat('#', n) FROM t").detail == (
        "The SQL calls repeat with a size that nothing bounds; write repeat('#', least(n, 100)), with a "
        "number up to 10000."
    )
    assert (
        "lpad(name, least(width + 1, 100), '.')" in refusal("SELECT lpad(name, width + 1, '.') FROM t").detail
    )
    assert "size of 20000; the largest is 10000" in refusal("SELECT repeat('#', 20000)").detail


def test_functions_of_the_data_schemas_may_take_any_size():
    assert is_allowed("SELECT data.repeat('#', n), data.format(x) FROM t")


def test_functions_that_only_transform_are_not_limited():
    assert is_allowed("SELECT translate(:a, :b, :c), replace(x, y, z), btrim(x, :b) FROM t")


# Names of the connected database, claims and types


def test_the_connected_database_may_precede_a_schema():
    sql = "SELECT shop.data.own(1) FROM shop.data.metrics"

    assert relations_of(sql, database="shop") == ("data.metrics",)
    assert "reads shop.data.metrics" in refusal(sql).detail
    assert "reads shop.data.metrics" in refusal(sql, database="other").detail
    assert "reads app.item" in refusal("SELECT * FROM shop.app.item", database="shop").detail


@pytest.mark.parametrize("kind", ["date", "numeric(10, 2)", "timestamp with time zone", "int[]"])
def test_may_ask_whether_a_text_is_of_a_type(kind):
    assert is_allowed(f"SELECT pg_input_is_valid(x, '{kind}') FROM t")


# Messages


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        pytest.param(
            "SELECT PG_Sleep (5)",
            "The SQL calls pg_sleep, which stored SQL may not; listed functions of pg_catalog and functions "
            "of data, written as data.name(...), are allowed.",
            id="function",
        ),
        pytest.param(
            "SELECT * FROM pg_authid",
            "The SQL reads pg_authid, a catalog of Postgres; stored SQL reads only data.",
            id="catalog",
        ),
        pytest.param(
            "SELECT * FROM app.item", "The SQL reads app.item; stored SQL reads only data.", id="schema"
        ),
        pytest.param(
            "SELECT 1; SELECT 2",
            "The SQL is more than one statement; store each on its own.",
            id="two-statements",
        ),
        pytest.param(
            "DELETE FROM metrics",
            "The SQL begins with DELETE; stored SQL is one SELECT, WITH, VALUES or TABLE.",
            id="not a query",
        ),
        pytest.param(
            "WITH x AS (DELETE FROM metrics RETURNING *) SELECT 1",
            "The SQL holds a DELETE; stored SQL only reads.",
            id="writes inside",
        ),
        pytest.param(
            "SELECT * FROM metrics FOR UPDATE",
            "The SQL locks rows (FOR UPDATE, FOR SHARE), which stored SQL may not; leave that clause out.",
            id="locks",
        ),
        pytest.param(
            "SELECT current_setting('port')",
            "The SQL reads a setting; current_setting is allowed for 'request.claims' alone.",
            id="setting",
        ),
        pytest.param("", "The SQL is empty; write a SELECT.", id="empty"),
        pytest.param(
            "SELECT\u00a01",
            "The SQL has the invisible character U+00A0 outside of strings; remove it.",
            id="no-break space",
        ),
        pytest.param(
            "SELECT 1 FROM metrics WHERE id = $1",
            "The SQL uses $1-style parameters; name them, as in :start_date.",
            id="numbered parameter",
        ),
    ],
)
def test_names_the_refused_part_and_its_fix(sql, message):
    assert refusal(sql).detail == message


def test_names_the_place_where_the_text_cannot_be_read():
    problem = refusal("SELECT id,\n  count(*\nFROM metrics")

    assert "line 3, column 1, near 'FROM metrics'" in problem.detail
    assert (problem.members["line"], problem.members["column"]) == (3, 1)


@pytest.mark.parametrize(
    ("sql", "advice"),
    [
        ("SELECT 1 FROM t WHERE $__timeFilter(at)", "BETWEEN :start_date AND :end_date"),
        ("SELECT $__timeGroup(at, '1h') FROM t", "date_trunc("),
        ("SELECT 1 FROM t WHERE a = '$x' AND b = $host", ":host"),
        ("SELECT 1 FROM t WHERE a = ${host}", ":host"),
        ("SELECT 1 FROM t WHERE a = {{ host }}", ":host"),
        ("SELECT 1 FROM t {% if a %} WHERE b {% endif %}", "(:kind IS NULL OR kind = :kind)"),
        ("SELECT 1 FROM t WHERE true [[AND a = :host]]", "(:kind IS NULL OR kind = :kind)"),
        ("SELECT 1 FROM t WHERE a = ?", ":start_date"),
        ("SELECT 1 FROM t WHERE a IN (?, ?)", ":start_date"),
        ("SELECT 1 FROM t WHERE a = %(host)s", ":host"),
        ("SELECT 1 FROM t WHERE a = %s AND b = 1", "write the parameter"),
        ("SELECT `a` FROM t", 'in double quotes, "a"'),
        ("SELECT 1 FROM t WHERE a IN ('x' 'y')", "put a comma between them"),
        ("SELECT similarity(a, 'x') FROM t", "DATA_SCHEMAS"),
    ],
)
def test_advises_what_to_write_instead_of_another_tools_spelling(sql, advice):
    assert advice in refusal(sql).detail


def test_reports_sql_that_only_postgres_can_read():
    assert isinstance(refusal("SELECT id, count(* FROM metrics"), Unread)
    assert not isinstance(refusal("SELECT pg_sleep(1)"), Unread)
    assert "operator" not in refusal("SELECT id, count(* FROM metrics").detail


def test_a_tree_that_leaves_out_a_clause_is_lossy():
    assert parse("SELECT * FROM t ORDER BY a USING >").lossy
    assert parse("SELECT json_array(1 RETURNING jsonb)").lossy
    assert not parse("SELECT 'a'\n'b', 1_000, a <<= b FROM ONLY (t) ORDER BY a").lossy


def test_literals_keep_their_value():
    assert (
        parse("SELECT 'a'\n 'b', 1_000, a <<= b").tree.sql("postgres")
        == "SELECT 'ab', 1000, a OPERATOR(<<=) b"
    )


def test_gives_the_place_of_a_refused_name():
    problem = refusal("SELECT 1,\n       pg_sleep(1)")

    assert problem.members == {"line": 2, "column": 8}


# Relations, schemas, functions, claims


@pytest.mark.parametrize(
    ("sql", "relations"),
    [
        pytest.param("SELECT 1", (), id="none"),
        pytest.param(
            "SELECT * FROM Metrics m, data.customers", ("metrics", "data.customers"), id="as-written"
        ),
        pytest.param('SELECT * FROM "Odd Name"', ("Odd Name",), id="quoted"),
        pytest.param("TABLE metrics", ("metrics",), id="table"),
        pytest.param("WITH a AS (SELECT * FROM metrics) SELECT * FROM a", ("metrics",), id="with"),
        pytest.param("WITH metrics AS (SELECT 1) SELECT * FROM metrics", (), id="shadowed"),
        pytest.param(
            "WITH metrics AS (SELECT * FROM metrics) TABLE metrics", ("metrics",), id="shadowed-after"
        ),
        pytest.param("WITH RECURSIVE t AS (SELECT 1 UNION SELECT * FROM t) TABLE t", (), id="recursive"),
        pytest.param("SELECT * FROM metrics a JOIN metrics b USING (id)", ("metrics",), id="once"),
        pytest.param("SELECT * FROM generate_series(1, 2) AS metrics", (), id="function"),
    ],
)
def test_lists_the_relations_that_the_text_names(sql, relations):
    assert relations_of(sql) == relations


def test_allows_each_of_the_data_schemas():
    assert relations_of("SELECT * FROM sales.a, public.b", "public", "sales") == ("sales.a", "public.b")
    assert "public and sales" in refusal("SELECT * FROM data.a", "public", "sales").detail


def test_folds_names_as_postgres_does():
    assert relations_of("SELECT * FROM DATA.Metrics") == ("data.metrics",)
    assert "reads DATA.metrics" in refusal('SELECT * FROM "DATA".metrics').detail


@pytest.mark.parametrize(
    "call", ["data.own(1)", 'data."Own"(1)', "DATA . own /* */ (1)", "own(1)", '"own"(1)']
)
def test_allows_functions_of_the_data_schemas(call):
    assert is_allowed(f"SELECT {call}, x FROM data.own(2) AS x", functions=frozenset({"own"}))


@pytest.mark.parametrize(
    "call", ["own(1)", "app.own(1)", "postgres.data.own(1)", '"DATA".own(1)', '"OWN"(1)']
)
def test_refuses_unlisted_functions(call):
    assert "calls" in refusal(f"SELECT {call}").detail


@pytest.mark.parametrize("name", ["data.mood", "mood", "data.mood[]", "public.mood"])
def test_types_of_the_data_schemas_are_allowed_and_others_are_not(name):
    allowed = "public" not in name

    if allowed:
        assert is_allowed(f"SELECT 'sad'::{name}")
    else:
        assert "uses the type public.mood" in refusal(f"SELECT 'sad'::{name}").detail


@pytest.mark.parametrize(
    "call",
    [
        "current_setting('request.claims')",
        "current_setting('request.claims', true)",
        "pg_catalog.current_setting('request.claims')",
        "\"current_setting\" ( 'request.claims' , true )",
    ],
)
def test_allows_to_read_the_claims(call):
    assert is_allowed(f"SELECT {call}")


def test_a_parsed_tree_saves_the_parse():
    sql = "WITH a AS (SELECT 1 AS x) SELECT x FROM a, metrics AS m(b)"

    assert relations_of(parse(sql)) == relations_of(sql)


def test_parse_returns_values_as_a_query():
    assert parse("VALUES (1), (2)").tree.sql("postgres") == "SELECT * FROM (VALUES (1), (2)) AS _values"


# Size and depth


def test_counts_bytes_not_characters():
    fits = "SELECT '" + "é" * 49_995 + "'"

    assert len(fits.encode()) < 100_000
    assert is_allowed(fits)
    assert "more than 100000 bytes" in refusal(fits + "é" * 20).detail


def test_refuses_half_a_surrogate_pair():
    assert "surrogate" in refusal("SELECT '\ud800'").detail


@pytest.mark.parametrize(
    "sql",
    [
        pytest.param(lambda n: "SELECT " + "(" * n + "1" + ")" * n, id="parentheses"),
        pytest.param(lambda n: "SELECT " + "abs(" * n + "1" + ")" * n, id="calls"),
        pytest.param(lambda n: "SELECT " + "CASE WHEN true THEN " * n + "1" + " END" * n, id="cases"),
        pytest.param(lambda n: "SELECT 1 WHERE " + "NOT " * n + "true", id="nots"),
    ],
)
def test_allows_some_depth_and_refuses_more(sql):
    assert is_allowed(sql(15))
    assert "nested too deep" in refusal(sql(40)).detail


def test_refuses_instead_of_overflowing_a_nearly_full_stack():
    def deeper(frames: int) -> SqlRefused:
        return deeper(frames - 1) if frames else refusal("SELECT " + "(" * 25 + "1" + ")" * 25)

    room = sys.getrecursionlimit() - len(inspect.stack(0)) - 150

    assert "nested too deep" in deeper(room).detail


@pytest.mark.parametrize("name", ["honest", "hostile"])
def test_validated_trees_can_be_copied_and_rendered(name):
    chains = {"honest": " OR a" * 499, "hostile": "::int" * 140}

    tree = parse("SELECT 1 WHERE a" + chains[name]).tree

    assert tree.copy().sql("postgres")


def test_memory_for_many_ctes_grows_with_their_number():
    def peak(count: int) -> int:
        sql = "WITH " + ",".join(f"a{n}(x) AS (TABLE m)" for n in range(count)) + " SELECT 1"
        statement = parse(sql)
        tracemalloc.start()
        try:
            relations_of(statement)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(4000) < 6 * peak(1000)


# The lists


def test_every_listed_node_exists_in_sqlglot():
    assert {name for name in NODES if not hasattr(exp, name)} == set()


@pytest.mark.parametrize(
    "name",
    [
        "pg_sleep",
        "pg_read_file",
        "pg_ls_dir",
        "pg_terminate_backend",
        "pg_notify",
        "pg_advisory_lock",
        "set_config",
        "lo_get",
        "lo_import",
        "loread",
        "query_to_xml",
        "table_to_xml",
        "cursor_to_xml",
        "ts_stat",
        "ts_rewrite",
        "nextval",
        "setval",
        "currval",
        "lastval",
        "setseed",
        "version",
        "has_table_privilege",
        "to_regclass",
        "col_description",
        "obj_description",
        "pg_get_viewdef",
        "pg_input_is_valid",
        "txid_current",
        "pg_logical_emit_message",
        "pg_export_snapshot",
        "inet_server_addr",
        "pg_stat_get_activity",
        "pg_relation_size",
        "dblink",
    ],
)
def test_no_dangerous_function_is_listed(name):
    assert name not in FUNCTIONS


def test_dashes_in_a_text_are_read_once():
    """A pattern that could part them in several ways would try them all."""
    assert is_allowed(f"SELECT format(E'%5s a\\'{'--' * 500}x', 5::text)")
