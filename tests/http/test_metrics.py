"""Metrics over HTTP: results, definitions, formats, changes."""

import csv
import io
import re
from uuid import uuid4

import msgspec
import pytest

from service.database.gateway import Database
from service.database.queries import Command
from service.errors import NotFound
from service.metrics import store
from tests.http.metrics import FACTS, JUNE, problem
from tests.waiting import until


@pytest.fixture(scope="module")
def client(shared_service):
    return shared_service.client


@pytest.fixture(scope="module")
def clone(shared_service):
    return shared_service.database


@pytest.fixture(scope="module")
async def facts(clone: Database) -> None:
    await clone.write(Command("facts", FACTS))


async def test_a_result_has_the_documented_shape(client, make_metric, facts):
    metric = await make_metric(JUNE)
    answer = await client.get(f"/api/v1/metrics/{metric}")
    assert answer.status_code == 200
    body = answer.json()
    assert list(body) == [
        "id", "title", "query_id", "is_editable", "layouts", "parameters",
        "columns", "records", "row_count", "truncated", "as_of",
    ]  # fmt: skip
    assert body["title"] == "Alerts in June"
    assert body["columns"] == [{"name": "alert_type", "type": "text"}, {"name": "n", "type": "bigint"}]
    assert body["records"] == [{"alert_type": "Critical", "n": 1}, {"alert_type": "Warning", "n": 1}]
    assert body["parameters"] == {"start_date": "2025-06-01", "end_date": "2025-06-30"}
    assert (body["row_count"], body["truncated"]) == (2, False)
    assert body["as_of"].endswith("Z")
    assert answer.headers["etag"].startswith('"')
    assert "run;dur=" in answer.headers["server-timing"]


async def test_both_addresses_give_the_same(client, make_metric, facts):
    metric = await make_metric(JUNE)
    at_root, versioned = [await client.get(f"{base}/metrics/{metric}") for base in ("", "/api/v1")]
    assert at_root.json()["records"] == versioned.json()["records"]


@pytest.mark.parametrize(
    ("query", "total"),
    [
        ("", 2),
        ("start_date=2025-05-31", 3),
        ("end_date=2025-07-01", 3),
        ("start_date=2025-05-01&end_date=2025-07-31", 4),
        ("start_date=2025-06-30&end_date=2025-06-30", 1),
    ],
)
async def test_a_window_moves_with_the_given_days(client, make_metric, facts, query, total):
    metric = await make_metric(JUNE)
    records = (await client.get(f"/metrics/{metric}?{query}")).json()["records"]
    assert sum(record["n"] for record in records) == total


@pytest.mark.parametrize(
    ("query", "field", "says"),
    [
        ("nope=1", "nope", "start_date"),
        ("start_date=yesterday", "start_date", "date"),
        ("start_date=", "start_date", "date"),
        ("start_date=2025-06-01&start_date=2025-06-02", "start_date", "twice"),
        ("start_date=2025-07-01&end_date=2025-06-01", "start_date", "after"),
        ("format=", "format", "value"),
        ("format=csv&format=csv", "format", "once"),
        ("excel=maybe", "excel", "true"),
    ],
)
async def test_a_wrong_parameter_is_named(client, make_metric, query, field, says):
    metric = await make_metric(JUNE)
    answer = await client.get(f"/metrics/{metric}?{query}")
    assert answer.status_code == 422
    error = problem(answer)["errors"][0]
    assert error["field"] == field
    assert says in error["message"]


@pytest.mark.parametrize(
    ("type_name", "text", "says"),
    [
        ("interval", "soon", "interval"),
        ("time", "25:00", "time"),
        ("json", "{", "json"),
        ("jsonb", "{", "jsonb"),
        ("jsonpath", "$$", "jsonpath"),
        ("inet", "here", "inet"),
        ("bytea", r"\xzz", "bytea"),
        ("int4range", "1", "int4range"),
        ("tsquery", "& &", "tsquery"),
        ("interval[]", "1 day,soon", "each text that Postgres reads as interval"),
        ("interval", "", "interval"),
        ("integer", "", "an integer, such as 7; it is empty"),
        ("integer", "\0", "an integer, such as 7; it has a NUL"),
        ("integer[]", "", "a list"),
    ],
)
async def test_a_value_that_only_postgres_can_read_is_refused_by_name(
    client, make_metric, type_name, text, says
):
    metric = await make_metric(f"SELECT :good::interval AS a, cast(:value AS {type_name}) AS b", trusted=True)
    answer = await client.get(f"/metrics/{metric}", params={"good": "1 day", "value": text})
    body = problem(answer)
    assert (answer.status_code, body["code"]) == (422, "invalid-input")
    (error,) = body["errors"]
    assert error["field"] == "value"
    assert error["message"].startswith("value must be ")
    assert says in error["message"]


async def test_every_value_that_postgres_cannot_read_is_named(client, make_metric):
    metric = await make_metric("SELECT :length::interval AS i, :more::jsonb AS j, 1 / :n::int AS n")
    wrong = {"length": "soon", "more": "{", "n": "0"}
    alone = problem(await client.get(f"/metrics/{metric}", params=wrong))
    assert [error["field"] for error in alone["errors"]] == ["length", "more"]
    answer = await client.post("/metrics/batch", json={"metrics": [{"id": metric, "parameters": wrong}]})
    assert answer.json()["results"][0]["problem"]["errors"] == alone["errors"]
    fine = {"length": "1 day", "more": "{}", "n": "0"}
    answer = await client.get(f"/metrics/{metric}", params=fine)
    assert (problem(answer)["code"], answer.json()["sqlstate"]) == ("query-failed", "22012")


@pytest.fixture(scope="module")
async def word(clone: Database) -> None:
    await clone.write(Command("t", "CREATE DOMAIN data.word AS text CHECK (VALUE ~ '^[a-z]+$')"))


@pytest.mark.usefixtures("word")
@pytest.mark.parametrize(
    ("written", "text", "says"),
    [
        (":value::numeric(3, 1)", "1234", "a number, such as 12.5: numeric field overflow"),
        ("cast(:value AS word)", "two words", "text, such as abc: value for domain word violates"),
        ("(:value)::data.word[]", "one,two words", "a list"),
        (":value::numeric(3, 1), 1 / (:value - :value::int)", "1", None),
    ],
)
async def test_a_value_that_its_cast_refuses_is_named(client, make_metric, written, text, says):
    metric = await make_metric(f"SELECT {written}")
    body = problem(await client.get(f"/metrics/{metric}", params={"value": text}))
    if says is None:
        assert (body["code"], body["sqlstate"]) == ("query-failed", "22012")
    else:
        assert body["errors"][0]["field"] == "value"
        assert body["errors"][0]["message"].startswith(f"value must be {says}")


async def test_a_text_that_its_cast_refuses_is_named(client, make_metric):
    declared = {"value": {"type": "text", "default": "1 day"}}
    metric = await make_metric("SELECT :value::interval AS i", parameters=declared)
    (error,) = problem(await client.get(f"/metrics/{metric}?value=soon"))["errors"]
    says = 'value must be text, such as abc: invalid input syntax for type interval: "soon"'
    assert error == {"field": "value", "message": says}


async def test_an_id_that_is_no_uuid_is_422(client):
    answer = await client.get("/metrics/abc")
    assert answer.status_code == 422
    assert problem(answer)["errors"] == [{"field": "id", "message": "'abc' is not a UUID"}]


async def test_csv_has_a_header_row_and_leaves_formulas_alone(client, make_metric):
    metric = await make_metric(
        """SELECT * FROM (VALUES ('=1+1', 1.50, NULL), ('a,"b"', 2, 'x')) AS t("a b", n, m)"""
    )
    answer = await client.get(f"/metrics/{metric}", headers={"Accept": "text/csv"})
    assert answer.headers["content-type"].startswith("text/csv")
    assert list(csv.reader(io.StringIO(answer.text))) == [
        ["a b", "n", "m"],
        ["=1+1", "1.50", ""],
        ['a,"b"', "2", "x"],
    ]
    excel = await client.get(f"/metrics/{metric}?format=csv&excel=true")
    assert "'=1+1" in excel.text


async def test_csv_for_spreadsheets_has_a_mark_safe_cells_and_a_name(client, make_metric):
    metric = await make_metric(
        "SELECT '=1' AS t, :kind::text AS kind, -1.50 AS n WHERE :day::date IS NOT NULL", title="Größe; x"
    )
    path = f"/metrics/{metric}?format=csv&kind=a%0D%0AX-Y:%20z%22&day=2025-06-01"
    marked = await client.get(f"{path}&bom=1")
    assert marked.content.startswith(b"\xef\xbb\xbf")
    assert list(csv.reader(io.StringIO(marked.content.decode("utf-8-sig"), newline="")))[1] == [
        "'=1", 'a\r\nX-Y: z"', "-1.50"
    ]  # fmt: skip
    assert "x-y" not in marked.headers
    plain = await client.get(f"{path}&bom=1&excel=false")
    assert "\n=1," in plain.text
    found = re.fullmatch(
        r'attachment; filename="(Groe-x_kind=a-X-Y-z_day=2025-06-01_as-of-\d{8}T\d{6}Z\.csv)";'
        r" filename\*=UTF-8''(Gr%C3%B6%C3%9Fe-x_kind%3Da-X-Y-z_day%3D2025-06-01_as-of-\d{8}T\d{6}Z\.csv)",
        marked.headers["content-disposition"],
    )
    assert found, marked.headers["content-disposition"]
    again = await client.get(f"{path}&bom=1")
    assert again.headers["content-disposition"] == marked.headers["content-disposition"]
    same = await client.get(f"{path}&bom=1", headers={"If-None-Match": marked.headers["etag"]})
    assert (same.status_code, "content-disposition" in same.headers) == (304, False)
    for form in ("json", "ndjson"):
        answer = await client.get(path.replace("csv", form))
        assert "content-disposition" not in answer.headers


async def test_the_time_in_a_name_is_that_of_the_result(client, clone, make_metric):
    metric = await make_metric("SELECT count(*) AS n FROM metrics")
    as_of = (await client.get(f"/metrics/{metric}")).json()["as_of"]
    answer = await client.get(f"/metrics/{metric}?format=csv")
    (told,) = re.findall(r"as-of-(\d{8}T\d{6}Z).csv\"", answer.headers["content-disposition"])
    assert told >= re.sub(r"[-:]|\.\d+", "", as_of)


async def test_ndjson_is_a_line_per_record(client, make_metric):
    metric = await make_metric("SELECT n, '{\"a\":\n 1}'::json AS j FROM generate_series(1, 3) AS n")
    answer = await client.get(f"/metrics/{metric}?format=ndjson")
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert [msgspec.json.decode(line) for line in answer.text.splitlines()] == [
        {"n": n, "j": {"a": 1}} for n in (1, 2, 3)
    ]


@pytest.mark.parametrize(
    ("query", "accept"), [("", "image/png"), ("?format=xml", "*/*"), ("?format=xml", "text/csv")]
)
async def test_a_format_that_cannot_be_served_is_406(client, make_metric, query, accept):
    metric = await make_metric("SELECT 1 AS one")
    answer = await client.get(f"/metrics/{metric}{query}", headers={"Accept": accept})
    assert answer.status_code == 406
    assert "text/csv" in problem(answer)["detail"]
    assert answer.headers["vary"] == "Accept, Accept-Encoding"


async def test_sql_that_fails_when_run_says_why(client, make_metric):
    metric = await make_metric("SELECT 1 / (count(*) - count(*)) AS n FROM metrics")
    answer = await client.get(f"/metrics/{metric}")
    body = problem(answer)
    assert (answer.status_code, body["code"], body["sqlstate"]) == (422, "query-failed", "22012")
    assert "division by zero" in body["detail"]


async def test_a_definition_tells_parameters_tables_and_columns(client, make_metric):
    metric = await make_metric(
        "SELECT c.type, count(*) AS n FROM external_interactions i JOIN customers c USING (customer_id) "
        "WHERE i.interaction = :channel AND i.customer_id > :least GROUP BY c.type",
        parameters={"channel": {"type": "text", "default": "Email"}},
    )
    answer = await client.get(f"/metrics/{metric}/definition")
    assert answer.status_code == 200
    body = answer.json()
    assert body["tables"] == ["data.customers", "data.external_interactions"]
    found = {each["name"]: (each["type"], each["required"], each["default"]) for each in body["parameters"]}
    assert found == {"channel": ("text", False, "Email"), "least": ("integer", True, None)}
    assert body["estimated_cost"] > 0


async def test_a_definition_names_types_as_postgres_does(client, clone, make_metric):
    await clone.write(Command("t", """CREATE TYPE data."My ""mood" AS ENUM ('glad', 'sad')"""))
    metric = await make_metric(
        """SELECT :a::interval, :b::"char", :c::"My ""mood", :d::jsonb[], :e::int""", trusted=True
    )
    body = (await client.get(f"/metrics/{metric}/definition")).json()
    assert [each["postgres_type"] for each in body["parameters"]] == [
        "interval", "char", 'My "mood', "jsonb[]", "int4",
    ]  # fmt: skip
    given = {"a": "1 day", "b": "x", "c": "sad", "d": "[]", "e": "1"}
    assert (await client.get(f"/metrics/{metric}", params=given)).status_code == 200


async def test_a_view_depends_on_its_tables(client, clone, make_metric):
    await clone.write(
        Command("v", "CREATE VIEW data.critical AS SELECT * FROM data.metrics WHERE alert_type = 'Critical'")
    )
    metric = await make_metric("SELECT count(*) AS n FROM critical")
    assert (await client.get(f"/metrics/{metric}/definition")).json()["tables"] == ["data.metrics"]


@pytest.mark.parametrize(
    ("declaration", "field", "says"),
    [
        (5, "parameters.n", "object"),
        ({}, "parameters.n.type", "missing"),
        ({"type": "money"}, "parameters.n.type", "money"),
        ({"type": "text", "colour": "red"}, "parameters.n.colour", "unknown"),
        ({"type": "enum", "values": [1]}, "parameters.n.values[0]", "`str`"),
        ({"type": "enum", "values": ["a\0b"]}, "parameters.n.values[0]", "regex"),
        ({"type": "number", "default": "x"}, "parameters.n", "number"),
    ],
)
async def test_a_declaration_that_is_none_is_named(client, make_metric, declaration, field, says):
    made = await client.post("/metrics", json={"sql": "SELECT :n AS n", "parameters": {"n": declaration}})
    changed = await client.patch(
        f"/metrics/{await make_metric('SELECT :n AS n')}", json={"parameters": {"n": declaration}}
    )
    for answer in (made, changed):
        assert answer.status_code == 422
        [error] = problem(answer)["errors"]
        assert error["field"] == field
        assert says in error["message"]


async def test_a_stored_declaration_that_is_none_is_the_metrics_own_problem(client, make_metric):
    metric = await make_metric("SELECT :n AS n", parameters={"n": {"type": "money"}})
    answer = await client.get(f"/metrics/{metric}")
    assert (answer.status_code, problem(answer)["errors"][0]["field"]) == (422, "parameters.n.type")


async def test_the_document_shows_what_is_read_later(client):
    shapes = (await client.get("/openapi.json")).json()["components"]["schemas"]
    entry = shapes["Batch"]["properties"]["metrics"]["items"]
    assert (entry["required"], set(entry["properties"])) == (["id"], {"id", "parameters"})
    for body in ("NewMetric", "MetricChange"):
        declared = shapes[body]["properties"]["parameters"]["additionalProperties"]
        assert set(declared["properties"]) == {"type", "array", "values", "default"}


async def test_a_dashboard_gives_every_tile_and_says_what_was_ignored(client, make_metric, facts):
    windowed = await make_metric(JUNE)
    plain = await make_metric("SELECT 1 AS n")
    broken = await make_metric("SELECT 1 / (count(*) - count(*)) FROM metrics")
    places = [{"i": each, "x": n, "y": 0, "w": 1, "h": 1} for n, each in enumerate((windowed, plain, broken))]
    put = await client.put("/api/v1/dashboards/default/layouts", json={"lg": places})
    assert put.status_code == 200
    view = (await client.get("/dashboards/default")).json()
    assert [each["id"] for each in view["items"]] == [windowed, plain, broken]
    assert view["layouts"]["lg"][0] == {**places[0], "static": False}

    answer = await client.get("/dashboards/default/data?start_date=2025-05-01")
    results = answer.json()["results"]
    assert [each["status"] for each in results] == [200, 200, 422]
    assert results[0]["result"]["row_count"] == 3
    assert "ignored_parameters" not in results[0]
    assert results[1]["ignored_parameters"] == ["start_date"]
    assert answer.headers["etag"]


async def test_layouts_of_an_unknown_metric_or_dashboard_are_refused(client):
    place = {"i": str(uuid4()), "x": 0, "y": 0, "w": 1, "h": 1}
    assert (await client.put("/dashboards/default/layouts", json={"lg": [place]})).status_code == 422
    assert (await client.put("/dashboards/nope/layouts", json={})).status_code == 404
    assert (await client.get("/dashboards/nope")).status_code == 404
    assert (await client.get("/dashboards/nope/data")).status_code == 404


async def test_trusted_sql_runs_though_our_parser_cannot_read_it(client, make_metric):
    sql = "SELECT current_setting('server_version_num')::int > 0 AS modern"
    refused = await make_metric(sql)
    assert (await client.get(f"/metrics/{refused}")).status_code == 422
    trusted = await make_metric(sql, trusted=True)
    assert (await client.get(f"/metrics/{trusted}")).json()["records"] == [{"modern": True}]


async def test_a_head_request_has_the_headers_alone(client, make_metric):
    metric = await make_metric("SELECT 1 AS n")
    answer = await client.head(f"/metrics/{metric}")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["etag"]


async def test_an_operator_can_trust_a_query_and_take_it_back(client, clone, make_metric):
    metric = await make_metric("SELECT 1 AS n")
    query = (await client.get(f"/metrics/{metric}/definition")).json()["query_id"]

    async def said(name, value):
        return (await client.get(f"/metrics/{metric}")).json().get(name) == value

    await store.trust(clone, query, "SELECT current_setting('server_version_num')::int > 0 AS modern")
    await until(lambda: said("records", [{"modern": True}]))
    await store.distrust(clone, query)
    await until(lambda: said("code", "sql-refused"))
    with pytest.raises(NotFound, match="--file"):
        await store.trust(clone, "nope")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT nope",
        "SELECT :k::int + :longer_name::int, nope",
        "SELECT ROW(1), nope, :k::text",
        "SELECT id FROM metrics WHERE id = :k AND date BETWEEN '2025-06-01' AND '2025-06-30' AND nope = 1",
        "SELECT 'é𝄞', :k::date, nope;",
    ],
)
async def test_a_failure_points_into_the_stored_text(client, make_metric, sql):
    posted = await client.post("/metrics", json={"sql": sql})
    assert posted.status_code == 422
    assert problem(posted)["position"] == sql.index("nope") + 1
    stored = await make_metric(sql)
    assert problem(await client.get(f"/metrics/{stored}"))["position"] == sql.index("nope") + 1


ANEW = {"Cache-Control": "no-cache"}  # DDL is not announced: held results learn of it within seconds


async def test_a_changed_table_is_described_anew(client, make_metric, clone):
    await clone.write(Command("t", "CREATE TABLE data.changing AS SELECT 1 AS a, ROW(1, 2) IS NULL AS b"))
    plain = await make_metric("SELECT * FROM changing")
    odd = await make_metric("SELECT *, ROW(a) AS r FROM changing", trusted=True)
    assert (await client.get(f"/metrics/{plain}", headers=ANEW)).json()["records"] == [{"a": 1, "b": False}]
    assert (await client.get(f"/metrics/{odd}", headers=ANEW)).json()["records"] == [
        {"a": 1, "b": False, "r": {"f1": 1}}
    ]
    await clone.write(Command("t", "ALTER TABLE data.changing ADD COLUMN c text"))
    body = (await client.get(f"/metrics/{plain}", headers=ANEW)).json()
    assert body["records"] == [{"a": 1, "b": False, "c": None}]
    assert [column["name"] for column in body["columns"]] == ["a", "b", "c"]
    records = (await client.get(f"/metrics/{odd}", headers=ANEW)).json()["records"]
    assert records == [{"a": 1, "b": False, "c": None, "r": {"f1": 1}}]
    await clone.write(Command("t", "ALTER TABLE data.changing DROP COLUMN b"))
    await clone.write(Command("t", "ALTER TABLE data.changing ALTER COLUMN a TYPE text"))
    body = (await client.get(f"/metrics/{plain}", headers=ANEW)).json()
    assert body["records"] == [{"a": "1", "c": None}]
    assert body["columns"][0] == {"name": "a", "type": "text"}
    records = (await client.get(f"/metrics/{odd}", headers=ANEW)).json()["records"]
    assert records == [{"a": "1", "c": None, "r": {"f1": "1"}}]
    await clone.write(Command("t", "DROP TABLE data.changing"))
    gone = await client.get(f"/metrics/{plain}", headers=ANEW)
    assert (gone.status_code, problem(gone)["code"], problem(gone)["sqlstate"]) == (
        422,
        "query-failed",
        "42P01",
    )
