"""Placeholders of other tools in SQL: a value becomes a parameter, a piece of SQL is refused."""

from typing import Any

import pytest

from service.errors import Stop
from service.metrics.exchange import READERS
from service.metrics.exchange.plan import Node, Place, Plan


def redash(sql: str, *parameters: dict[str, Any]) -> Plan:
    query = {
        "id": 1,
        "name": "Q",
        "query": sql,
        "data_source_id": 1,
        "options": {"parameters": list(parameters)},
    }
    return READERS["redash"](Node(query))


def taken(sql: str, *parameters: dict[str, Any]) -> str:
    plan = redash(sql, *parameters)
    assert not plan.left_out, plan.left_out
    return plan.queries[0].sql


def refused(sql: str, *parameters: dict[str, Any]) -> str:
    plan = redash(sql, *parameters)
    assert not plan.queries, plan.queries[0].sql
    return plan.left_out[0].why


TEXT = {"name": "p", "type": "text", "value": "a"}
NUMBER = {"name": "n", "type": "number", "value": 7}
DAY = {"name": "d", "type": "date", "value": "2025-06-01"}
RANGE = {"name": "r", "type": "date-range", "value": {"start": "2025-06-01", "end": "2025-06-30"}}
WEEK = RANGE | {"value": "d_last_7_days"}
SEVERAL = {"prefix": "'", "suffix": "'", "separator": ","}
LIST = {"name": "l", "type": "enum", "value": ["a"], "enumOptions": "a\nb", "multiValuesOptions": SEVERAL}


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("x = '{{ p }}'", "x = :p"),
        ("x = '{{p}}'::text", "x = :p::text"),
        ("x = E'{{ p }}'", "x = :p"),
        ("x LIKE '%{{ p }}%'", "x LIKE ('%' || CAST(:p AS text) || '%')"),
        ("x = 'it''s {{ p }}'", "x = ('it''s ' || CAST(:p AS text))"),
        ("x = E'a\\'{{ p }}'", "x = (E'a\\'' || CAST(:p AS text))"),
        ("x = '{{p}}{{p}}'", "x = (CAST(:p AS text) || CAST(:p AS text))"),
        ("x = '{{ p }} -- no'", "x = (CAST(:p AS text) || ' -- no')"),
        ("x -- '{{ p }}'\n= '{{ p }}'", "x -- '{{ p }}'\n= :p"),
        ("x /* {{ p }} */ = 1", "x /* {{ p }} */ = 1"),
        (
            "d > now() - interval '{{ n }} days'",
            "d > now() - CAST((CAST(:n AS text) || ' days') AS interval)",
        ),
        ("d > date '{{ d }}'", "d > CAST(:d AS date)"),
        (
            "d > timestamp with time zone '{{ d }}'",
            "d > CAST(:d AS timestamp with time zone)",
        ),
        ("d > '{{ d }} 10:00'", "d > CAST((CAST(:d AS text) || ' 10:00') AS timestamp)"),
        ("x > {{ n }}", "x > :n"),
        ("x > {{{ n }}}", "x > :n"),
        ("x IN ({{ n }})", "x IN (:n)"),
        ("x IN ({{ l }})", "x = ANY(:l)"),
        ("x NOT IN ( {{ l }} )", "x <> ALL(:l)"),
        ("LIMIT {{ n }}", "LIMIT :n"),
        ("f(1, {{ n }})", "f(1, :n)"),
        ("d BETWEEN '{{ r.start }}' AND '{{ r.end }}'", "d BETWEEN :start_date AND :end_date"),
    ],
)
def test_values_become_parameters(sql: str, expected: str):
    assert taken(f"SELECT 1 WHERE {sql}", TEXT, NUMBER, DAY, RANGE, LIST) == f"SELECT 1 WHERE {expected}"


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("FROM {{ p }}", "is a name"),
        ("FROM data.{{ p }}", "is a name"),
        ("FROM {{ p }}.orders", "is a name"),
        ("FROM orders_{{ n }}", "is a name"),
        ("FROM {{ n }}_orders", "is a name"),
        ('FROM "{{ p }}"', "a part of a name"),
        ("WHERE x = {{ p }}", "is pasted as a piece of SQL"),
        ("WHERE {{ p }}", "is pasted as a piece of SQL"),
        ("WHERE {{ p }}(1) > 2", "is a name"),
        ("ORDER BY {{ n }}", "to sort or to group"),
        ("GROUP BY 1, {{ n }}", "to sort or to group"),
        ("WHERE x = $${{ p }}$$", "a part of a name or of a text"),
        ("WHERE x = U&'{{ p }}'", "a part of a name or of a text"),
        ("WHERE x = '{{ p }}", "a text without an end"),
        ("WHERE x = '{{ l }}'", "several values, but stands in quotes"),
        ("WHERE x > {{ l }}", "can only stand alone in IN"),
        ("WHERE x IN (1, {{ l }})", "can only stand alone in IN"),
        ("{{# p }}WHERE x = 1{{/ p }}", "template block"),
        ("WHERE d > '{{ r }}'", "needs .start or .end"),
        ("WHERE x = '{{ }}'", "template block"),
    ],
)
def test_pieces_of_sql_are_refused(sql: str, why: str):
    assert why in refused(f"SELECT 1 {sql}", TEXT, NUMBER, DAY, RANGE, LIST)


def test_a_range_that_moves_is_the_default_of_the_window():
    sql = taken("SELECT 1 WHERE d BETWEEN '{{ r.start }}' AND '{{ r.end }}'", WEEK)
    assert sql == (
        "SELECT 1 WHERE d BETWEEN coalesce(:start_date, CURRENT_DATE - 7) AND "
        "(coalesce(:end_date, CURRENT_DATE) + time '23:59:59.999999')"
    )


START = "coalesce(:start_date, now() - interval '6 hours')"
END = "coalesce(:end_date + time '23:59:59.999999', now())"
EPOCH = "'1970-01-01 00:00:00+00'"
VARIABLES = [
    {"name": "host", "type": "query", "multi": True, "includeAll": True, "current": {"value": ["$__all"]}},
    {
        "name": "ids",
        "type": "custom",
        "multi": True,
        "current": {"value": ["1"]},
        "options": [{"value": "1"}],
    },
    {"name": "one", "type": "custom", "current": {"value": "a"}, "options": [{"value": "a"}]},
    {"name": "size", "type": "textbox", "query": "5"},
    {"name": "step", "type": "interval", "query": "1m,1h", "current": {"value": "1h"}},
    {"name": "source", "type": "datasource", "current": {"value": "pg"}},
    {"name": "table", "type": "constant", "query": "data.orders"},
    {"name": "raw", "type": "query", "includeAll": True, "allValue": ".*", "current": {"value": "$__all"}},
]


def grafana(sql: str, **time: str) -> Plan:
    panel = {"id": 1, "title": "P", "type": "timeseries", "targets": [{"refId": "A", "rawSql": sql}]}
    board = {"panels": [panel], "templating": {"list": VARIABLES}, "time": time, "uid": "u"}
    return READERS["grafana"](Node({"dashboard": board, "meta": {}}))


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("$__timeFilter(t)", f"(t >= {START} AND t <= {END})"),
        ("$__timeFilter(t -- the day\n)", f"(t >= {START} AND t <= {END})"),
        (
            "$__timeGroup(/* x, y */ t AT TIME ZONE 'UTC', '1h', 0)",
            f"date_bin(interval '1 hours', t AT TIME ZONE 'UTC', {EPOCH})",
        ),
        ('$__timeFilter("a,b".t)', f'("a,b".t >= {START} AND "a,b".t <= {END})'),
        ("t > $__timeFrom() AND t < $__timeTo()", f"t > {START} AND t < {END}"),
        ("$__time(f(a, b))", 'f(a, b) AS "time"'),
        ("$__timeGroup(t, '5m')", f"date_bin(interval '5 minutes', t, {EPOCH})"),
        ("$__timeGroup(t, 1h, NULL)", f"date_bin(interval '1 hours', t, {EPOCH})"),
        ("$__timeGroup(t,'1h'), 1", f"date_bin(interval '1 hours', t, {EPOCH}) AS \"time\", 1"),
        ("$__timeGroupAlias(t,'1M')", "date_trunc('month', t) AS \"time\""),
        ("$__timeGroup(t, $step)", f"date_bin(CAST(CAST(:step AS text) AS interval), t, {EPOCH})"),
        (
            "$__timeGroup(t, '$__interval')",
            f"date_bin(CAST(CAST(:interval AS text) AS interval), t, {EPOCH})",
        ),
        ("x > '$step'::interval", "x > CAST(:step AS text)::interval"),
        ("x = '$one'", "x = :one"),
        ("x = '${one}'", "x = :one"),
        ("x = '[[one]]'", "x = :one"),
        ("x = ${one:sqlstring}", "x = :one"),
        ("x LIKE '%$one%'", "x LIKE ('%' || CAST(:one AS text) || '%')"),
        ("x > $size", "x > :size"),
        ("a.host IN ($host)", "(:host IS NULL OR a.host = ANY(:host))"),
        ("host NOT IN (${host:singlequote})", "(:host IS NULL OR host <> ALL(:host))"),
        ("id IN (${ids:csv})", "id = ANY(:ids)"),
        ("x IN (SELECT 1 FROM $table)", "x IN (SELECT 1 FROM data.orders)"),
        ("x = 'US$cash'", "x = 'US$cash'"),
        ("x = $tag$a$tag$", "x = $tag$a$tag$"),
        ("x -- $host $__timeFilter(\n > 1", "x -- $host $__timeFilter(\n > 1"),
    ],
)
def test_macros_and_variables_of_grafana(sql: str, expected: str):
    plan = grafana(f"SELECT 1 WHERE {sql}")
    assert not plan.left_out, plan.left_out
    assert plan.queries[0].sql == f"SELECT 1 WHERE {expected}"


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("$__unknown(t)", "macro $__unknown is not known"),
        ("$__timeGroup(t, '2M')", "the width"),
        ("$__timeGroup(t)", "lacks an argument"),
        ("$__timeFilter()", "lacks an argument"),
        ("$__timeFilter(t", "not closed"),
        ("x = '$__timeFrom()'", "$__timeFrom is not known here"),
        ("x = $one", "pasted as a piece of SQL"),
        ("x = '${one:regex}'", "has a form"),
        ("x ~ '${host:regex}'", "has a form"),
        ("x IN ('$host')", "several values, but stands in quotes"),
        ("lower(x) IN ($host)", "may be all values"),
        ("x IN ($raw)", "for All, a piece of SQL"),
        ("x = '$source'", "of type datasource"),
        ("x IN (SELECT 1 FROM t_$one)", "a part of a name"),
    ],
)
def test_what_grafana_pastes_as_sql_is_refused(sql: str, why: str):
    plan = grafana(f"SELECT 1 WHERE {sql}")
    assert not plan.queries, plan.queries[0].sql
    assert why in plan.left_out[0].why


@pytest.mark.parametrize(
    ("time", "start", "end"),
    [
        ({"from": "now-2d/d", "to": "now/d"}, "date_trunc('day', now() - interval '2 days')",
         "date_trunc('day', now()) + interval '1 day' - interval '1 millisecond'"),
        ({"from": "2025-06-01T00:00:00.000Z", "to": "1751241600000"},
         "timestamptz '2025-06-01T00:00:00+00:00'", "to_timestamp(1751241600000 / 1000.0)"),
    ],
    ids=["days", "fixed"],
)  # fmt: skip
def test_the_first_range_of_grafana_is_the_default(time, start, end):
    sql = grafana("SELECT $__timeFrom(), $__timeTo()", **time).queries[0].sql
    last = f"coalesce(:end_date + time '23:59:59.999999', {end})"
    assert sql == f"SELECT coalesce(:start_date, {start}), {last}"


def test_a_time_that_is_no_time_reaches_no_sql():
    plan = grafana("SELECT 1 WHERE $__timeFilter(t)", **{"from": "now'; DROP", "to": "now"})
    assert "is not known here" in plan.left_out[0].why


def test_a_library_panel_is_taken_from_the_file_that_brings_it():
    model = {"title": "Shared", "type": "stat", "targets": [{"refId": "A", "rawSql": "SELECT 1"}], "id": 9}
    panel = {"id": 4, "title": "", "libraryPanel": {"uid": "u1"}, "gridPos": {"x": 12, "w": 12, "h": 4}}
    board = {"panels": [panel], "__elements": {"u1": {"kind": 1, "model": model}}}
    (found,) = READERS["grafana"](Node(board)).queries
    assert (found.title, found.chart, found.sql) == ("Shared", "number", "SELECT 1")
    assert found.key.endswith("panel 4, query A")
    assert found.place is not None
    assert found.place.x == 6
    named = READERS["grafana"](Node({**board, "panels": [{**panel, "title": "Mine"}]})).queries
    assert [each.title for each in named] == ["Mine"]
    (left,) = READERS["grafana"](Node({"panels": [panel]})).left_out
    assert "not in this file" in left.why


def test_dashboards_of_old_and_new_releases_of_grafana():
    target = {"refId": "A", "rawSql": "SELECT 1"}
    panel = {"id": 1, "title": "P", "type": "graph", "targets": [target], "datasource": "PG"}
    old = {"rows": [{"panels": [panel]}], "schemaVersion": 14, "title": "Old"}
    assert [each.title for each in READERS["grafana"](Node(old)).queries] == ["P"]
    resource = {"apiVersion": "dashboard.grafana.app/v1beta1", "metadata": {"name": "n"}}
    new = resource | {"spec": {"title": "New", "panels": [panel]}}
    assert READERS["grafana"](Node(new)).queries[0].key == "Grafana: dashboard n, panel 1, query A"
    elements = {"panel-1": {"kind": "Panel", "spec": {}}}
    with pytest.raises(Stop, match="schema v2"):
        READERS["grafana"](Node(resource | {"spec": {"elements": elements}}))


def metabase(sql: str, **tags: Any) -> Plan:
    tags |= {"d": {"type": "date"}, "n": {"type": "number"}, "t": {"type": "text"}}
    native = {"query": sql, "template-tags": tags}
    card = {"id": 1, "name": "Q", "dataset_query": {"type": "native", "native": native}}
    return READERS["metabase"](Node(card | {"param_fields": {"7": {"id": 7, "name": "at"}}}))


def field(widget: str, **more: Any) -> dict[str, Any]:
    return {"type": "dimension", "dimension": ["field", 7, None], "widget-type": widget, **more}


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("WHERE x = {{t}}", "WHERE x = :t"),
        ("WHERE x IN ({{ t }}, 'b')", "WHERE x IN (:t, 'b')"),
        ("WHERE a [[AND x = {{t}}]]", "WHERE a AND (:t IS NULL OR (x = :t))"),
        ("WHERE a [[and x = {{t}} AND y > {{n}}]]",
         "WHERE a AND (:t IS NULL OR :n IS NULL OR (x = :t AND y > :n))"),
        ("WHERE a [[AND x = {{t}} -- only {{n}}\n]]", "WHERE a AND (:t IS NULL OR (x = :t))"),
        ("WHERE [[x = {{t}} AND]] a", "WHERE (:t IS NULL OR (x = :t)) AND a"),
        ("WHERE [[at BETWEEN {{d}} AND {{n}} /* both */ and]] a",
         "WHERE (:d IS NULL OR :n IS NULL OR (at BETWEEN :d AND :n)) AND a"),
        ("WHERE [[{{f}} AND]] a", 'WHERE (:f IS NULL OR "at" = ANY(:f)) AND a'),
        ("[[WHERE x = {{t}}]]", "WHERE (:t IS NULL OR (x = :t))"),
        ("WHERE a [[OR x = {{t}}]]", "WHERE a OR (:t IS NOT NULL AND (x = :t))"),
        ("WHERE a [[AND (x = {{t}} OR y = {{t}})]]", "WHERE a AND (:t IS NULL OR ((x = :t OR y = :t)))"),
        ("[[LIMIT {{n}}]]", "LIMIT :n"),
        ("[[HAVING count(*) > {{n}}]]", "HAVING (:n IS NULL OR (count(*) > :n))"),
        ("WHERE x = a[1] [[AND y = '[[' || {{t}}]]",
         "WHERE x = a[1] AND (:t IS NULL OR (y = '[[' || :t))"),
        ("WHERE {{f}}", 'WHERE (:f IS NULL OR "at" = ANY(:f))'),
        ("WHERE a [[AND {{f}}]]", 'WHERE a AND (:f IS NULL OR "at" = ANY(:f))'),
        ("WHERE {{c}}", 'WHERE (:c IS NULL OR strpos(lower("at"), lower(:c)) > 0)'),
        ("WHERE {{w}}",
         ('WHERE ((:start_date IS NULL OR "at" >= :start_date)'
         ' AND (:end_date IS NULL OR "at" < :end_date + 1))')),
    ],
)  # fmt: skip
def test_variables_and_optional_parts_of_metabase(sql: str, expected: str):
    tags = {"f": field("string/="), "c": field("string/contains"), "w": field("date/range")}
    plan = metabase(f"SELECT 1 {sql}", **tags)
    assert not plan.left_out, plan.left_out
    assert plan.queries[0].sql == f"SELECT 1 {expected}"


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("WHERE a [[AND x = {{t}} OR y]]", "has OR in it"),
        ("WHERE a [[AND x = 1]]", "has no variable"),
        ("WHERE a [[]]", "is empty"),
        ("WHERE a [[AND]]", "has no variable"),
        ("WHERE [['b' = {{t}} OR]] a", "has OR in it"),
        ("WHERE a [[AND x = {{t}} [[AND y = {{n}}]]]]", "stands in another one"),
        ("WHERE a [[AND x = {{t}}", "has no end"),
        ("WHERE x = [[ {{t}} --]] 'none'", "has no end"),
        ("[[, {{t}}]]", "that begins with ','"),
        ("[[GROUP BY {{t}}]]", "that begins with 'group'"),
        ("ORDER BY {{t}}", "to sort or to group"),
        ("FROM {{t}}", "is a name"),
        ("WHERE {{u}}", "whose column this file does not name"),
        ("WHERE {{b}}", "number/between, which is not known"),
        ("WHERE {{k}}", "a temporal-unit variable"),
        ("WHERE {{}}", "is no variable"),
    ],
)
def test_what_metabase_pastes_as_sql_is_refused(sql: str, why: str):
    unknown = field("string/=") | {"dimension": ["field", 99, None]}
    plan = metabase(f"SELECT 1 {sql}", u=unknown, b=field("number/between"), k={"type": "temporal-unit"})
    assert not plan.queries, plan.queries[0].sql
    assert why in plan.left_out[0].why


@pytest.mark.parametrize(
    ("more", "column"),
    [
        ({"dimension": ["field", ["Desk", "public", "orders", 'a"t'], None]}, '"a""t"'),
        ({"dimension": ["field", "at", {"base-type": "type/Date"}]}, '"at"'),
        ({"dimension": ["field", {"base-type": "type/Date"}, 7]}, '"at"'),
        ({"alias": "o.created_at"}, "o.created_at"),
        ({"alias": "1; DROP"}, '"at"'),
    ],
    ids=["path", "name", "new order", "alias", "no alias"],
)
def test_columns_of_field_filters(more: dict[str, Any], column: str):
    sql = metabase("SELECT 1 WHERE {{f}}", f=field("string/=") | more).queries[0].sql
    assert sql == f"SELECT 1 WHERE (:f IS NULL OR {column} = ANY(:f))"


def test_defaults_of_metabase():
    def parameters(default: str) -> tuple[str, list[Any]]:
        query = metabase("SELECT 1 WHERE {{w}}", w=field("date/range", default=default)).queries[0]
        return query.sql, [each.default for each in query.parameters]

    assert parameters("2025-06-01~2025-06-30")[1] == ["2025-06-01", "2025-06-30"]
    assert parameters("2025-06-01~")[1] == ["2025-06-01", None]
    assert parameters("2025-06-03")[1] == ["2025-06-03", "2025-06-03"]
    assert parameters("2024-02")[1] == ["2024-02-01", "2024-02-29"]
    assert parameters("Q4-2025")[1] == ["2025-10-01", "2025-12-31"]
    assert "CURRENT_DATE" in parameters("past7days")[0]
    assert "date_trunc('month', CURRENT_DATE)" in parameters("thismonth")[0]
    query = metabase("SELECT 1 WHERE {{w}}", w=field("date/range", default="2025-W1")).queries[0]
    assert query.notes == ("the default '2025-W1' of {{w}} is not kept",)
    given = metabase("SELECT {{n}}, {{t}} [[LIMIT {{n}}]]").queries[0]
    assert [each.has_default for each in given.parameters] == [False, False]


def test_several_defaults_of_a_variable_of_metabase_are_a_list():
    several = {"s": {"type": "text", "default": ["a", "b"]}}
    query = metabase("SELECT 1 WHERE x NOT IN ({{s}}) [[AND y IN ({{s}})]]", **several).queries[0]
    assert query.sql == "SELECT 1 WHERE x <> ALL(:s) AND (:s IS NULL OR (y = ANY(:s)))"
    assert [(each.array, each.default) for each in query.parameters] == [(True, ["a", "b"])]
    assert "several values" in metabase("SELECT 1 WHERE x = {{s}}", **several).left_out[0].why
    one = metabase("SELECT 1 WHERE x = {{s}}", s={"type": "text", "default": ["a"]}).queries[0]
    assert [each.default for each in one.parameters] == ["a"]
    yes = metabase("SELECT {{s}}", s={"type": "boolean", "default": [True]}).queries[0]
    assert [each.default for each in yes.parameters] == ["true"]
    none = metabase("SELECT {{s}}", s={"type": "text", "default": []}).queries[0]
    assert [each.has_default for each in none.parameters] == [False]


def test_questions_of_new_releases_of_metabase():
    stage = {"lib/type": "mbql.stage/native", "native": "SELECT 1 WHERE x = {{t}}", "template-tags": {}}
    card = {"id": 1, "name": "Q", "dataset_query": {"lib/type": "mbql/query", "stages": [stage]}}
    assert READERS["metabase"](Node([card])).queries[0].sql == "SELECT 1 WHERE x = :t"
    built = {"id": 1, "name": "Q", "dataset_query": {"lib/type": "mbql/query", "stages": [{"source": 1}]}}
    assert "built in the editor" in READERS["metabase"](Node(built)).left_out[0].why
    old = {"ordered_cards": [{"id": 2, "card": card, "row": 0, "col": 9, "sizeX": 9, "sizeY": 3}], "id": 1}
    assert READERS["metabase"](Node(old)).queries[0].place == Place(6, 0, 6, 4)


def test_two_ranges_are_parameters_of_their_own():
    other = RANGE | {"name": "before"}
    sql = "SELECT 1 WHERE d > '{{ r.start }}' OR d > '{{ before.start }}'"
    assert taken(sql, RANGE, other) == "SELECT 1 WHERE d > :r_start OR d > :before_start"


def test_a_tag_in_a_comment_asks_callers_for_nothing():
    plan = metabase("SELECT 1 WHERE a [[AND x = {{t}}]] -- {{t}} may be left out\n")
    (found,) = plan.queries[0].parameters
    assert found.has_default


def test_a_value_that_a_widget_of_redash_fixes_is_told():
    text = {"name": "t", "type": "text", "value": "a"}
    query = {"id": 1, "name": "Q", "query": "SELECT '{{ t }}', '{{ t }}'", "options": {"parameters": [text]}}
    fixed = {"parameterMappings": {"t": {"type": "static-value", "value": "b"}}}
    widget = {"id": 1, "options": fixed, "visualization": {"type": "TABLE", "query": query}}
    (found,) = READERS["redash"](Node({"widgets": [widget]})).queries
    assert found.parameters[0].default == "b"
    assert found.notes == ("{{ t }} is fixed in this widget there; callers may change it here",)


def test_names_are_safe_and_differ():
    names = ("Länge (cm)", "länge cm", "format", "2nd", "r.start", "売上")
    sql = "SELECT " + ", ".join(f"'{{{{ {name} }}}}'" for name in names)
    assert taken(sql, RANGE) == "SELECT :lange_cm, :lange_cm_2, :p_format, :p_2nd, :start_date, :p"
