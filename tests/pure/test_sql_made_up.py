"""Validation of made-up SQL: plain parts are allowed, one forbidden part is enough, any text is decided."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import SqlRefused
from service.sql.validation import validate_sql
from tests.pure.validating import is_allowed, refusal, relations_of

NUMBERS = st.sampled_from(["1", "2.5", "parts_flagged", "m.obsolescence", ":least::int", "1e3", "length(id)"])


TEXTS = st.sampled_from(["'a'", "id", "alert_type", "m.alert_category", "$$x$$", "E'\\n'", "upper(id)"])


FORBIDDEN = st.sampled_from(
    [
        "pg_sleep(1)",
        '"pg_sleep"(1)',
        "pg_catalog.pg_sleep(1)",
        "PG_SLEEP/**/(1)",
        "pg_read_file('a')",
        "set_config('role', 'x', false)",
        "query_to_xml('a', true, true, '')",
        "current_setting('port')",
        "app.anything(1)",
        "'a'::regclass",
        "(SELECT max(rolname) FROM pg_roles)",
        "(SELECT id FROM app.item)",
        "(TABLE pg_authid)",
        "current_user",
    ]
)


def grow(inner):
    """Nest expressions in every place where Postgres accepts one."""
    return st.one_of(
        st.builds(
            "({} {} {})".format,
            inner,
            st.sampled_from(["+", "-", "*", "/", "||", "=", "<>", "<", "AND", "OR"]),
            inner,
        ),
        st.builds("coalesce({}, {})".format, inner, inner),
        st.builds("CASE WHEN {} IS NULL THEN {} ELSE {} END".format, inner, inner, inner),
        st.builds("CAST({} AS text)".format, inner),
        st.builds("({})::numeric(10, 2)".format, inner),
        st.builds("ARRAY[{}, {}]".format, inner, inner),
        st.builds("(NOT {})".format, inner),
        st.builds("({} BETWEEN {} AND {})".format, inner, inner, inner),
        st.builds("({} IN ({}, {}))".format, inner, inner, inner),
        st.builds("(SELECT max({}) FROM customers c WHERE {} IS NOT NULL)".format, inner, inner),
        st.builds("EXISTS (SELECT 1 FROM unnest(ARRAY[{}]) AS u(x))".format, inner),
        st.builds("sum({}) OVER (PARTITION BY {} ORDER BY {})".format, inner, inner, inner),
        st.builds("count(*) FILTER (WHERE {} IS NULL)".format, inner),
        st.builds("(data.own({}))".format, inner),
        st.builds("jsonb_build_object('k', {})".format, inner),
        st.builds("ROW({}, {})".format, inner, inner),
        st.builds("({} LIKE {} ESCAPE '!')".format, inner, inner),
    )


def expressions(leaves):
    return st.recursive(leaves, grow, max_leaves=8)


def statements(expression):
    return st.one_of(
        st.builds("SELECT {} AS a FROM metrics m".format, expression),
        st.builds("SELECT 1 FROM data.metrics AS m WHERE {} IS NULL".format, expression),
        st.builds(
            "SELECT id, count(*) FROM metrics m GROUP BY id, {} HAVING {} > 1".format, expression, expression
        ),
        st.builds("SELECT id FROM metrics m ORDER BY {} DESC NULLS LAST LIMIT 5".format, expression),
        st.builds("SELECT DISTINCT ON ({}) {} FROM metrics m".format, expression, expression),
        st.builds("WITH w(a) AS (SELECT {} FROM metrics m) SELECT a FROM w".format, expression),
        st.builds("SELECT 1 FROM metrics m JOIN customers c ON {} IS NULL".format, expression),
        st.builds("SELECT 1 FROM metrics m, LATERAL (SELECT {} AS b) AS l".format, expression),
        st.builds("SELECT 1 UNION ALL (SELECT 2 FROM metrics m WHERE {} IS NULL)".format, expression),
        st.builds("SELECT * FROM generate_series(1, 2) AS g(n), unnest(ARRAY[{}]) x".format, expression),
        st.builds("VALUES ({}), (2)".format, expression),
    )


def injected(plain: str):
    """`plain` next to or inside an expression that contains one forbidden part."""
    around = st.recursive(FORBIDDEN, lambda inner: grow(inner | inner), max_leaves=2)
    return around.map(lambda bad: f"coalesce({plain}, {bad})")


@given(statements(expressions(NUMBERS | TEXTS)))
@settings(max_examples=80)
def test_allows_any_sql_of_plain_parts(sql):
    assert is_allowed(sql)


@given(statements(expressions(NUMBERS | TEXTS).flatmap(injected)))
@settings(max_examples=80)
def test_refuses_any_sql_with_one_forbidden_part(sql):
    assert isinstance(refusal(sql), SqlRefused)


PIECES = st.sampled_from(
    [
        "SELECT",
        "FROM",
        "WHERE",
        "metrics",
        "(",
        ")",
        ",",
        ";",
        "'",
        '"',
        "$$",
        "$a$",
        "/*",
        "*/",
        "--",
        "\\",
        "E'",
        'U&"',
        "::",
        ":",
        ".",
        "*",
        "=",
        "[",
        "]",
        "1",
        "x",
        "pg_sleep",
        "AS",
        "WITH",
        "TABLE",
        "UNION",
        "CASE",
        "END",
        "NOT",
        "LATERAL",
        "VALUES",
        "é",
        "{",
        "#",
        "@",
        "?",
        "%(",
        ":=",
        "=>",
        "0x",
        "1e",
        "'",
        "INTERVAL",
        "ONLY",
        "ROWS",
        "ORDER",
        "BY",
        "\x00",
        "\xa0",
        "\u017f",
    ]
)


@given(
    st.one_of(st.text(max_size=60), st.lists(PIECES, max_size=25).map(" ".join)),
    st.sampled_from(["", "SELECT "]),
)
@settings(max_examples=400)
def test_any_text_is_allowed_or_refused_and_nothing_else_happens(text, start):
    try:
        relations_of(start + text)
    except SqlRefused as problem:
        assert problem.errors  # noqa: PT017 (either outcome is right, this one must be whole)


@pytest.mark.parametrize(
    "sql",
    ["SELECT jsonb_array_elements_text(v -> 'n') FROM t", "SELECT upper(v -> 'a' ->> 'b') FROM t"],
)
def test_a_json_arrow_in_a_call_is_an_operator(sql: str):
    validate_sql(sql, schemas=("data",))


@pytest.mark.parametrize(
    "sql",
    ["SELECT upper(x -> pg_sleep(1)::text)", "SELECT upper(x -> (SELECT rolname FROM pg_authid))"],
)
def test_nothing_hides_behind_an_arrow_in_a_call(sql: str):
    with pytest.raises(SqlRefused):
        validate_sql(sql, schemas=("data",))
