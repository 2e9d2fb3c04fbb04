"""Windows of stored SQL: the days that a caller gives replace its own, or its placeholders."""

import pytest

from service.sql.parameters import Declared
from tests.pure.stored_sql import AUTHORED, END, START, conditions, read, refusal, trusted, where

DAY = "($1::text::date)"


WHOLE_DAY = f"({DAY} + time '23:59:59.999999')"


@pytest.mark.parametrize(
    ("condition", "pairs", "expected"),
    [
        ("d BETWEEN '2025-06-01' AND '2025-06-30'", [START], f"d BETWEEN {DAY} AND '2025-06-30'"),
        ("d BETWEEN '2025-06-01' AND '2025-06-30'", [END], f"d BETWEEN '2025-06-01' AND {WHOLE_DAY}"),
        ("d >= DATE '2025-06-01'", [START], f"d >= {DAY}"),
        ("d > '2025-06-01'::timestamp", [START], f"d > ({DAY} - interval '1 microsecond')"),
        (
            "d >= '2025-06-01' AND d < CAST('2025-07-01' AS date)",
            [END],
            f"d >= '2025-06-01' AND d < ({DAY} + 1)",
        ),
        (
            "d >= '2025-06-01' AND d <= '2025-06-30 23:59:59'",
            [END],
            f"d >= '2025-06-01' AND d <= {WHOLE_DAY}",
        ),
        ("'2025-06-01' <= d", [START], f"{DAY} <= d"),
        ("d >= '2025-06-01'", [END], f"d >= '2025-06-01' AND d <= {WHOLE_DAY}"),
        (
            "DATE ( m.\"D\" ) >= '2025-06-01'",
            [END],
            f'DATE ( m."D" ) >= \'2025-06-01\' AND DATE ( m . "D" ) <= {WHOLE_DAY}',
        ),
        ("(x OR y) AND (d >= '2025-06-01' AND z)", [START], f"(x OR y) AND (d >= {DAY} AND z)"),
        ("d >= now() - interval '7 days'", [START], f"d >= {DAY}"),
        ("d >= date_trunc('month', now())", [START], f"d >= {DAY}"),
        (
            "d BETWEEN now() - interval '7 days' AND now()",
            [END],
            f"d BETWEEN now() - interval '7 days' AND {WHOLE_DAY}",
        ),
        ("d >= '2025-06-01' /* AND */ AND -- {x}\n x", [START], f"d >= {DAY} /* AND */ AND -- {{x}}\n x"),
    ],
)
def test_a_given_day_replaces_the_literal(condition, pairs, expected):
    assert conditions(condition, *pairs) == expected


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (
            "d >= CURRENT_DATE - INTERVAL '30' DAY",
            "d >= CURRENT_DATE - make_interval(days => ($1::text::int4))",
        ),
        ("d >= CURRENT_DATE - 30", "d >= CURRENT_DATE - ($1::text::int4)"),
        (
            "d >= (now() - interval '1 month')::date",
            "d >= (now() - make_interval(days => ($1::text::int4)))::date",
        ),
        (
            "d > now() - '2 weeks'::interval AND d < now()",
            "d > now() - make_interval(days => ($1::text::int4)) AND d < now()",
        ),
        (
            "d BETWEEN '2025-06-01' AND '2025-06-30'",
            "d BETWEEN (CURRENT_DATE - ($1::text::int4)) AND (CURRENT_DATE + time '23:59:59.999999')",
        ),
        (
            "d >= '2025-06-01' AND d < '2025-07-01'",
            "d >= (CURRENT_DATE - ($1::text::int4)) AND d < (CURRENT_DATE + 1)",
        ),
        ("d >= '2025-06-01'", "d >= (CURRENT_DATE - ($1::text::int4))"),
        (
            "d >= date_trunc('month', now()) - interval '1 month' AND d < date_trunc('month', now())",
            "d >= (CURRENT_DATE - ($1::text::int4)) AND d < (CURRENT_DATE + 1)",
        ),
    ],
)
def test_a_day_range_replaces_the_interval_or_ends_today(condition, expected):
    assert conditions(condition, ("day_range", "10")) == expected


@pytest.mark.parametrize(
    ("condition", "defaults"),
    [
        ("d BETWEEN '2025-06-01' AND '2025-06-30'", ("2025-06-01", "2025-06-30", None)),
        ("d >= '2025-06-01' AND d < '2025-07-01'", ("2025-06-01", "2025-06-30", None)),
        ("d::date > '2025-05-31'", ("2025-06-01", None, None)),
        ("d BETWEEN '2025-06-01 00:00' AND '2025-06-30 23:59:59'", ("2025-06-01", "2025-06-30", None)),
        ("d >= '2025-06-01 08:30'", (None, None, None)),
        ("d >= '2025-06-01 08:30'::date", ("2025-06-01", None, None)),
        ("d::date > '2025-05-31 08:30'", ("2025-06-01", None, None)),
        ("d > '2025-06-01 08:30 +02'", (None, None, None)),
        ("d >= CURRENT_DATE - INTERVAL '30' DAY", (None, None, 30)),
        ("d >= now() - interval '2 weeks'", (None, None, 14)),
        ("d >= now() - interval '1 month'", (None, None, None)),
        ("d >= CURRENT_DATE - 7 AND d <= CURRENT_DATE", (None, None, 7)),
    ],
)
def test_the_literal_is_the_default(condition, defaults):
    parameters = where(condition).parameters
    assert tuple(parameter.default for parameter in parameters) == defaults
    assert [parameter.name for parameter in parameters] == ["start_date", "end_date", "day_range"]
    assert not any(parameter.required for parameter in parameters)


@pytest.mark.parametrize(
    "condition",
    [
        "d >= '2025-06-01' OR x",
        "NOT d >= '2025-06-01'",
        "d NOT BETWEEN '2025-06-01' AND '2025-06-30'",
        "d BETWEEN SYMMETRIC '2025-06-01' AND '2025-06-30'",
        "d = '2025-06-01'",
        "date_trunc('month', d) >= '2025-06-01'",
        "year >= EXTRACT(year FROM now())",
        "version >= '1.2'",
        "d >= (SELECT max(d) FROM u) - 30",
        "d >= '2025-02-30'",
        "d >= other - interval '1 day'",
        "age > interval '30 days'",
    ],
)
def test_other_conditions_are_not_windows(condition):
    assert where(condition).parameters == ()


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1 FROM t WHERE d >= '2025-06-01' UNION SELECT 2 FROM t WHERE d >= '2025-05-01'",
        "SELECT count(*) FILTER (WHERE d >= CURRENT_DATE - 7) FROM t WHERE d >= CURRENT_DATE - 30",
        "SELECT 1 FROM t WHERE a <= CURRENT_DATE AND d >= CURRENT_DATE - 30",
        "SELECT 1 FROM t WHERE d >= '2025-06-01' AND d >= '2025-05-01'",
        "WITH RECURSIVE c AS (SELECT 1 UNION SELECT d + 1 FROM c WHERE d < '2025-06-30') SELECT * FROM c",
    ],
    ids=["union", "filter", "columns", "twice", "recursion"],
)
def test_windows_that_differ_or_control_a_recursion_are_not_adjustable(sql):
    template = read(sql)
    assert template.parameters == ()
    assert "not adjustable" in refusal(template, START)["start_date"]


def test_windows_that_agree_move_together():
    sql = (
        "WITH a AS (SELECT * FROM t WHERE d BETWEEN '2025-06-01' AND '2025-06-30')"
        " SELECT * FROM a JOIN u ON u.id = a.id AND u.at >= '2025-06-01' AND u.at < '2025-07-01'"
    )
    assert read(sql).bind([START, END]).sql == (
        f"WITH a AS (SELECT * FROM t WHERE d BETWEEN {DAY} AND {WHOLE_DAY.replace('$1', '$2')})"
        f" SELECT * FROM a JOIN u ON u.id = a.id AND u.at >= {DAY} AND u.at < ({DAY.replace('$1', '$2')} + 1)"
    )


def test_a_bound_of_another_kind_stays_and_its_name_is_not_accepted():
    template = where("d >= :origin::date AND d < '2025-07-01'")
    assert template.accepted == ("origin", "end_date")


def test_windows_that_postgres_cannot_prepare_can_be_removed():
    template = where("d >= '2025-06-01'")
    assert len(template.trials()) == 2
    given_up = template.without_windows("The column is no date.")
    assert given_up.parameters == given_up.trials() == ()
    assert "The column is no date" in refusal(given_up, START)["start_date"]


def test_sql_without_a_tree_keeps_its_placeholders_and_has_no_window():
    template = trusted("SELECT :n FROM t WHERE d >= '2025-06-01'")
    assert [parameter.name for parameter in template.parameters] == ["n"]


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("d <= :end_date", f"d <= {WHOLE_DAY}"),
        ("d < :end_date", f"d < ({DAY} + 1)"),
        ("d <= :end_date::date", f"d <= {WHOLE_DAY}"),
        ("d <= :end_date::timestamp without time zone", f"d <= {WHOLE_DAY}"),
        ("d <= CAST(:end_date AS date) AND x", f"d <= {WHOLE_DAY} AND x"),
        ("d <= DATE(:end_date)", f"d <= {WHOLE_DAY}"),
        ("d <= (:end_date)", f"d <= {WHOLE_DAY}"),
        (":end_date >= d", f"{WHOLE_DAY} >= d"),
        ("NOT d <= :end_date", f"NOT d <= {WHOLE_DAY}"),
        ("(:end_date IS NULL OR d <= :end_date)", f"({DAY} IS NULL OR d <= {WHOLE_DAY})"),
        ("d < :end_date + 1", f"d < {DAY} + 1"),
        ("d < :end_date::date + interval '1 day'", f"d < {DAY}::date + interval '1 day'"),
        ("d = :end_date", f"d = {DAY}"),
        ("f(:end_date) >= d", f"f({DAY}) >= d"),
        ("d BETWEEN '2025-01-01' AND :end_date", f"d BETWEEN '2025-01-01' AND {WHOLE_DAY}"),
    ],
)
def test_an_authored_end_date_covers_its_whole_day_where_it_is_a_bound(condition, expected):
    assert conditions(condition, END) == expected


def test_an_authored_window_accepts_a_day_range():
    assert read(AUTHORED).bind([("day_range", "7")]).sql == (
        "SELECT * FROM t WHERE day BETWEEN (CURRENT_DATE - ($1::text::int4))"
        " AND (CURRENT_DATE + time '23:59:59.999999')"
    )


def test_an_authored_day_range_is_an_integer_of_its_own():
    assert conditions("d >= CURRENT_DATE - :day_range", ("day_range", "7")) == (
        "d >= CURRENT_DATE - ($1::text::int4)"
    )


def test_an_end_date_declared_as_a_timestamp_covers_its_whole_day():
    template = read("SELECT * FROM t WHERE d <= :end_date", end_date=Declared("timestamp"))
    assert template.bind([END]).args == ("2025-06-20T23:59:59.999999",)
    assert template.bind([("end_date", "2025-06-20T12:00:00Z")]).args == ("2025-06-20T12:00:00.000000",)
