"""Metrics over HTTP: results, definitions, formats, changes."""

import asyncio
import csv
import io
from functools import partial
from uuid import UUID, uuid4

import httpx
import msgspec
import pytest

from service.database.gateway import Database
from service.database.queries import Command
from service.errors import NotFound
from service.metrics import store
from service.metrics.execute import Executor
from tests.waiting import until

FACTS = """
    INSERT INTO data.metrics (id, date, alert_type, parts_flagged) VALUES
    ('a', '2025-06-01 08:00', 'Critical', 1), ('a', '2025-06-30 23:30', 'Warning', 2),
    ('a', '2025-07-01 00:00', 'Warning', 4), ('a', '2025-05-31 23:59', 'Info', 8)
"""
JUNE = """-- Alerts in June
SELECT alert_type, count(*) AS n FROM metrics
WHERE id = 'a' AND date(date) BETWEEN '2025-06-01' AND '2025-06-30'
GROUP BY alert_type ORDER BY alert_type;"""


@pytest.fixture
async def facts(clone: Database) -> None:
    await clone.write(Command("facts", FACTS))


def problem(answer: httpx.Response) -> dict:
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == answer.status_code
    return body


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


@pytest.fixture
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


async def test_an_unknown_metric_names_the_nearest(client, make_metric):
    metric = await make_metric("-- Only one\nSELECT 1 AS one")
    answer = await client.get(f"/metrics/{uuid4()}")
    assert answer.status_code == 404
    assert f"'Only one' ({metric})" in problem(answer)["detail"]


async def test_an_unknown_metric_names_the_nearest_also_without_a_title(client, make_metric):
    metric = await make_metric("SELECT 1 AS one")
    unknown = uuid4()
    answer = await client.get(f"/metrics/{unknown}")
    assert problem(answer)["detail"] == f"There is no metric {unknown}. The nearest is {metric}."


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


async def test_a_metric_is_made_changed_restored_and_deleted(client, clone):
    made = await client.post(
        "/api/v1/metrics",
        json={
            "sql": "SELECT count(*) AS n FROM metrics WHERE alert_type = :kind",
            "title": "By kind",
            "layouts": [{"breakpoint": "lg", "x": 0, "y": 0, "w": 4, "h": 4}],
            "parameters": {"kind": {"type": "text", "default": "Info"}},
        },
    )
    assert made.status_code == 201
    body = made.json()
    assert made.headers["location"] == f"/api/v1/metrics/{body['id']}"
    assert set(body) == {"id", "title", "query_id", "sql", "parameters", "columns", "generator"}
    address = made.headers["location"]
    assert (await client.get(f"{address}?kind=Critical")).json()["parameters"] == {"kind": "Critical"}

    before = await client.get(f"{address}/definition")
    changed = await client.patch(
        address, json={"sql": "SELECT 7 AS n", "parameters": {}}, headers={"If-Match": before.headers["etag"]}
    )
    assert changed.status_code == 200
    assert changed.json()["version"] == 2
    assert (await client.get(address)).json()["records"] == [{"n": 7}]
    stale = await client.patch(address, json={"title": "late"}, headers={"If-Match": before.headers["etag"]})
    assert (stale.status_code, problem(stale)["code"]) == (412, "precondition-failed")

    versions = (await client.get(f"{address}/versions")).json()["items"]
    assert [each["version"] for each in versions] == [2, 1]
    restored = await client.post(f"{address}/versions/1/restore")
    assert (restored.status_code, restored.json()["version"]) == (200, 3)
    assert restored.json()["sql"] == body["sql"]
    assert (await client.post(f"{address}/versions/9/restore")).status_code == 404

    assert (await client.delete(address)).status_code == 204
    assert (await client.get(address)).status_code == 404
    left = await clone._pool.fetchval("SELECT count(*) FROM catalog.query WHERE id = $1", body["query_id"])
    assert left == 0
    deeds = await clone._pool.fetch("SELECT action FROM app.audit ORDER BY id")
    assert [row[0] for row in deeds] == [
        "metrics.create",
        "metrics.change",
        "metrics.change",
        "metrics.delete",
    ]


@pytest.fixture
def meanwhile(monkeypatch):
    """What others do, each whenever a change was judged and is not yet stored."""
    others = []
    plan_metric = Executor.plan_metric
    their_turn = False

    async def interrupted(self, metric):
        nonlocal their_turn
        prepared = await plan_metric(self, metric)
        if others and not their_turn:
            their_turn = True
            await others.pop(0)()
            their_turn = False
        return prepared

    monkeypatch.setattr(Executor, "plan_metric", interrupted)
    return others


@pytest.fixture
async def counting(client):
    """The address of a metric with a parameter."""
    declared = {"n": {"type": "integer", "default": 1}}
    made = await client.post("/metrics", json={"sql": "SELECT :n::int AS x", "parameters": declared})
    return made.headers["location"]


FIVE = {"parameters": {"n": {"type": "integer", "default": 5}}}


async def test_what_another_changed_meanwhile_is_judged_too(client, counting, meanwhile):
    meanwhile.append(lambda: client.patch(counting, json={"sql": "SELECT 2 AS x", "parameters": {}}))
    late = await client.patch(counting, json=FIVE)
    assert (late.status_code, problem(late)["detail"]) == (422, "Parameter n: the SQL has no :n.")
    assert (await client.get(counting)).json()["records"] == [{"x": 2}]
    assert (await client.get(f"{counting}/definition")).json()["version"] == 2


async def test_changes_at_the_same_time_that_go_together_are_both_kept(client, counting, meanwhile):
    meanwhile.append(
        lambda: client.patch(counting, json={"sql": "SELECT :n::int * 2 AS x", "title": "Twice"})
    )
    late = await client.patch(counting, json=FIVE)
    assert (late.status_code, late.json()["version"], late.json()["title"]) == (200, 3, "Twice")
    assert late.json()["parameters"][0]["default"] == 5
    assert (await client.get(counting)).json()["records"] == [{"x": 10}]


async def test_a_change_that_another_always_overtakes_is_a_conflict(client, counting, meanwhile):
    meanwhile += [
        partial(client.patch, counting, json={"sql": f"SELECT :n::int + {n} AS x"}) for n in range(20)
    ]
    late = await client.patch(counting, json=FIVE)
    assert (late.status_code, problem(late)["code"]) == (409, "conflict")
    meanwhile.clear()
    assert (await client.get(f"{counting}/definition")).json()["parameters"][0]["default"] == 1


async def test_a_change_of_an_old_state_is_refused_also_if_it_got_old_meanwhile(client, counting, meanwhile):
    tag = (await client.get(f"{counting}/definition")).headers["etag"]
    meanwhile.append(lambda: client.patch(counting, json={"sql": "SELECT :n::int * 2 AS x"}))
    late = await client.patch(counting, json=FIVE, headers={"If-Match": tag})
    assert (late.status_code, problem(late)["code"]) == (412, "precondition-failed")


async def test_if_match_holds_for_restoring_and_deleting(client, counting):
    old = (await client.get(f"{counting}/definition")).headers["etag"]
    new = (await client.patch(counting, json=FIVE)).headers["etag"]
    for late in (
        await client.post(f"{counting}/versions/1/restore", headers={"If-Match": old}),
        await client.delete(counting, headers={"If-Match": old}),
    ):
        assert (late.status_code, problem(late)["code"]) == (412, "precondition-failed")
    restored = await client.post(f"{counting}/versions/1/restore", headers={"If-Match": new})
    assert (restored.status_code, restored.json()["parameters"][0]["default"]) == (200, 1)
    deleted = await client.delete(counting, headers={"If-Match": restored.headers["etag"]})
    assert deleted.status_code == 204


async def test_a_version_comes_back_as_it_was_imported(client, make_metric):
    metric = await make_metric("SELECT 1 AS n", fresh_for_s=10**9)
    assert (await client.patch(f"/metrics/{metric}", json={"fresh_for_s": 1})).status_code == 200
    restored = await client.post(f"/metrics/{metric}/versions/1/restore")
    assert (restored.status_code, restored.json()["fresh_for_s"]) == (200, 10**9)


async def test_sql_shared_by_two_metrics_changes_for_one_alone(client, clone, make_metric):
    metric = await make_metric("SELECT 1 AS n")
    query = (await client.get(f"/metrics/{metric}/definition")).json()["query_id"]
    await clone.write(Command("m", "INSERT INTO catalog.metric (query_id, title) VALUES ($1, 'twin')"), query)
    answer = await client.patch(f"/metrics/{metric}", json={"sql": "SELECT 2 AS n"})
    assert answer.json()["query_id"] != query
    assert await clone._pool.fetchval("SELECT sql FROM catalog.query WHERE id = $1", query) == "SELECT 1 AS n"


async def test_sql_that_stops_being_shared_meanwhile_does_not_lose_its_metric(client, clone, make_metric):
    metric = await make_metric("SELECT 1 AS n")
    query = (await client.get(f"/metrics/{metric}/definition")).json()["query_id"]
    async with clone.transaction() as other:
        await other.write(Command("q", "INSERT INTO catalog.query (id, sql) VALUES ('own', 'SELECT 2 AS n')"))
        await other.write(
            Command("m", "UPDATE catalog.metric SET query_id = 'own' WHERE query_id = $1"), query
        )
        waiting = asyncio.create_task(client.patch(f"/metrics/{metric}", json={"title": "x"}))
        held_up = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'"
        await until(lambda: clone._pool.fetchval(held_up))
    answer = await waiting
    assert (answer.status_code, answer.json()["sql"], answer.json()["title"]) == (200, "SELECT 2 AS n", "x")


@pytest.mark.parametrize("shown_by", [1, 2])
async def test_sql_that_a_caller_changes_is_trusted_no_more(client, clone, make_metric, shown_by):
    refused = "SELECT current_setting('server_version_num')::int > 0 AS modern"
    metric = await make_metric("SELECT current_setting('server_version') AS v", trusted=True)
    query = (await client.get(f"/metrics/{metric}/definition")).json()["query_id"]
    for _ in range(1, shown_by):
        await clone.write(Command("m", "INSERT INTO catalog.metric (query_id) VALUES ($1)"), query)
    named = await client.patch(f"/metrics/{metric}", json={"title": "Version"})
    assert named.status_code == 200
    answer = await client.patch(f"/metrics/{metric}", json={"sql": refused})
    assert (answer.status_code, problem(answer)["code"]) == (422, "sql-refused")
    assert (await client.patch(f"/metrics/{metric}", json={"sql": "SELECT 1 AS v"})).status_code == 200
    changed = (
        "SELECT q.trusted FROM catalog.query q JOIN catalog.metric m ON m.query_id = q.id WHERE m.id = $1"
    )
    assert await clone._pool.fetchval(changed, UUID(metric)) is False


async def test_a_metric_that_is_not_editable_stays(client, make_metric):
    metric = await make_metric("SELECT 1 AS n", is_editable=False)
    for answer in (
        await client.patch(f"/metrics/{metric}", json={"title": "x"}),
        await client.delete(f"/metrics/{metric}"),
    ):
        assert (answer.status_code, problem(answer)["code"]) == (409, "not-editable")


async def test_a_prompt_is_never_passed_over(client, clone, make_metric):
    metric = await make_metric("SELECT 1 AS n", is_editable=False)
    unheard = "SET LOCAL session_replication_role = replica"
    async with clone.transaction() as other:
        await other.write(Command("s", unheard))
        await other.write(Command("m", "UPDATE catalog.metric SET is_editable = true"))
    answer = await client.patch(f"/metrics/{metric}", json={"prompt": "alerts by type"})
    assert (answer.status_code, problem(answer)["code"]) == (409, "not-editable")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"sql": "DELETE FROM metrics"}, 422, "sql-refused"),
        ({"sql": "SELECT * FROM pg_authid"}, 422, "sql-refused"),
        ({"sql": "SELECT 1; SELECT 2"}, 422, "sql-refused"),
        ({"sql": "SELECT nope FROM metrics"}, 422, "query-failed"),
        ({"sql": "SELECT 1", "colour": "red"}, 422, "invalid-input"),
        ({"title": "no sql"}, 422, "invalid-input"),
        ({"sql": "SELECT :a", "parameters": {"b": {"type": "text"}}}, 422, "invalid-input"),
    ],
)
async def test_what_cannot_run_is_not_stored(client, clone, body, status, code):
    answer = await client.post("/metrics", json=body)
    assert (answer.status_code, problem(answer)["code"]) == (status, code)
    assert await clone._pool.fetchval("SELECT count(*) FROM catalog.query") == 0


async def test_postgres_says_where_the_fault_is(client):
    body = problem(await client.post("/metrics", json={"sql": "SELECT nope FROM metrics"}))
    assert (body["sqlstate"], body["position"]) == ("42703", 8)
    assert 'column "nope" does not exist' in body["detail"]


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [(b"{", "application/json", 422), (b"[]", "application/json", 422), (b"a=1", "text/plain", 415)],
)
async def test_a_body_that_is_no_json_is_refused(client, content, kind, status):
    answer = await client.post("/metrics", content=content, headers={"Content-Type": kind})
    assert answer.status_code == status
    problem(answer)


async def test_a_batch_answers_each_entry_alone_and_in_order(client, make_metric, facts):
    good, bad = await make_metric(JUNE), await make_metric("SELECT 1 / (count(*) - count(*)) FROM metrics")
    unknown = str(uuid4())
    answer = await client.post(
        "/metrics/batch",
        json={
            "metrics": [
                {"id": good, "parameters": {"start_date": "2025-05-01"}},
                {"id": bad},
                {"id": unknown},
                {"id": "abc"},
                {"id": good, "parameters": {"nope": 1}},
                {"id": good},
            ]
        },
    )
    assert answer.status_code == 200
    results = answer.json()["results"]
    assert [each["id"] for each in results] == [good, bad, unknown, "abc", good, good]
    assert [each["status"] for each in results] == [200, 422, 404, 422, 422, 200]
    assert results[0]["result"]["row_count"] == 3
    assert results[1]["problem"]["code"] == "query-failed"
    assert results[5]["etag"].startswith('"')


async def test_what_does_not_fit_into_a_batch_is_told_tile_by_tile(client, make_metric):
    large = "SELECT repeat('x', 10000) AS t, :n::int AS k FROM generate_series(1, 700)"
    metric, small = await make_metric(large), await make_metric("SELECT 1 AS n")
    entries = [{"id": metric, "parameters": {"n": n}} for n in range(6)]
    answer = await client.post("/metrics/batch", json={"metrics": [*entries, {"id": small}]})
    *large_results, small_result = answer.json()["results"]
    assert sorted(each["status"] for each in large_results) == [200, 200, 200, 200, 413, 413]
    assert small_result["status"] == 200
    refused = next(each for each in large_results if each["status"] == 413)
    assert refused["problem"]["code"] == "result-too-large"
    alone = await client.post("/metrics/batch", json={"metrics": [entries[large_results.index(refused)]]})
    assert alone.json()["results"][0]["status"] == 200


async def test_an_entry_of_a_batch_that_is_too_large_fails_alone(client, make_metric):
    metric = await make_metric("SELECT 1 AS n")
    large = {"id": metric, "parameters": {f"p{n}": "x" * 20 for n in range(20_000)}}
    answer = await client.post("/metrics/batch", json={"metrics": [large, {"id": metric}]})
    refused, good = answer.json()["results"]
    assert (refused["id"], refused["status"], good["status"]) == (metric, 422, 200)
    assert refused["problem"]["errors"] == [{"field": "entry", "message": "it takes more than 524288 bytes"}]


async def test_copies_of_a_result_in_a_batch_are_counted(client, make_metric):
    metric = await make_metric("SELECT repeat('x', 10000) AS t FROM generate_series(1, 700)")
    answer = await client.post("/metrics/batch", json={"metrics": [{"id": metric}] * 5})
    assert {each["status"] for each in answer.json()["results"]} == {413}


async def post_batch(client, text):
    return await client.post("/metrics/batch", content=text, headers={"Content-Type": "application/json"})


@pytest.mark.parametrize(
    ("entry", "named", "fault"),
    [
        ("5", None, "entry: Expected `object`"),
        ("null", None, "entry: Expected `object`"),
        ('{"parameters": {}}', None, "entry.id: Object missing"),
        ('{"id": 5}', None, "entry.id: Expected `str`"),
        ('{"id": "abc", "parameters": []}', "abc", "entry.parameters: Expected `object`"),
        ('{"id": "abc", "parameters": null}', "abc", "entry.parameters: Expected `object`"),
        ('{"id": "abc", "colour": "red"}', "abc", "entry.colour: Object contains unknown"),
        (
            f'{{"id": "abc", "parameters": {{"n": 1e{"9" * 20}}}}}',
            "abc",
            "entry.parameters[...]: Number out of",
        ),
        (
            f'{{"id": "abc", "parameters": {{"n": {"1" * 5000}}}}}',
            "abc",
            "entry.parameters[...]: Integer value out",
        ),
    ],
)
async def test_an_entry_that_cannot_be_read_fails_alone(client, make_metric, entry, named, fault):
    good = await make_metric("SELECT 1 AS n")
    answer = await post_batch(client, f'{{"metrics": [{{"id": "{good}"}}, {entry}, {{"id": "{good}"}}]}}')
    assert answer.status_code == 200
    first, wrong, last = answer.json()["results"]
    assert (first["status"], last["status"]) == (200, 200)
    assert (wrong["id"], wrong["status"]) == (named, 422)
    assert '{"id": "<UUID' in wrong["problem"]["detail"]
    [error] = wrong["problem"]["errors"]
    assert f"{error['field']}: {error['message']}".startswith(fault)


async def test_an_entry_in_another_encoding_fails_alone(client, make_metric):
    good = await make_metric("SELECT 1 AS n")
    text = f'{{"metrics": [{{"id": "caf\xe9"}}, {{"id": "{good}"}}]}}'.encode("latin-1")
    results = (await post_batch(client, text)).json()["results"]
    assert [(each["id"], each["status"]) for each in results] == [(None, 422), (good, 200)]
    assert results[0]["problem"]["errors"] == [{"field": "entry", "message": "JSON must be UTF-8"}]


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "{}", '{"metrics": 5}', '{"metrics": {}}', '{"metrics": []}', '{"metrics": [tru]}',
        '{"metrics": [{"id": "abc"}], "colour": "red"}', '{"metrics": [' + "[" * 100_000,
        '{"metrics": [' + ",".join(['{"id": "abc"}'] * 101) + "]}",
    ],
    ids=range(11),
)  # fmt: skip
async def test_a_body_that_is_no_batch_is_422(client, text):
    answer = await post_batch(client, text)
    assert (answer.status_code, problem(answer)["code"]) == (422, "invalid-input")


EXACT = ["12345678901234567890.12", "9007199254740993", "0.1000000000000000055511151231257827"]


@pytest.mark.parametrize("number", EXACT)
async def test_a_number_in_a_batch_is_taken_as_it_is_written(client, make_metric, number):
    metric = await make_metric("SELECT :n::numeric AS n, CAST(:all AS numeric[]) AS all")
    entry = f'{{"id": "{metric}", "parameters": {{"n": {number}, "all": [{number}, 1.5e0]}}}}'
    answer = await post_batch(client, f'{{"metrics": [{entry}]}}')
    assert f'"records":[{{"n":{number},"all":[{number},1.5]}}]' in answer.text


@pytest.mark.parametrize("number", EXACT)
async def test_a_declared_default_stays_as_it_is_written(client, clone, number):
    declared = f'{{"n": {{"type": "number", "default": {number}}}}}'
    kind = {"Content-Type": "application/json"}
    text = f'{{"sql": "SELECT :n AS n", "parameters": {declared}}}'
    made = await client.post("/metrics", content=text, headers=kind)
    assert f'"default":{number},' in made.text
    address = made.headers["location"]
    assert f'"records":[{{"n":{number}}}]' in (await client.get(address)).text
    stored = "SELECT parameters->'n'->>'default' FROM catalog.metric"
    assert await clone._pool.fetchval(stored) == number

    other = await client.patch(address, content=text.replace(number, "0.5"), headers=kind)
    assert other.json()["parameters"][0]["default"] == 0.5
    restored = await client.post(f"{address}/versions/1/restore")
    assert f'"default":{number},' in restored.text
    assert f'"default":{number},' in (await client.get(f"{address}/definition")).text
    versions = (await client.get(f"{address}/versions")).text
    assert versions.count(f'"default": {number}') == 2
    assert f'"records":[{{"n":{number}}}]' in (await client.get(address)).text


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


async def test_a_number_and_its_text_are_not_the_same_entry(client, make_metric):
    metric = await make_metric("SELECT :t::text AS t")
    entries = [{"id": metric, "parameters": {"t": value}} for value in ("1.5", 1.5)]
    results = (await client.post("/metrics/batch", json={"metrics": entries})).json()["results"]
    assert [each["status"] for each in results] == [200, 422]


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


async def test_lists_page_by_cursor(client, make_metric):
    made = sorted([await make_metric(f"SELECT {n} AS n") for n in range(5)])
    seen, cursor = [], None
    while True:
        page = (
            await client.get("/metrics", params={"limit": 2, **({"cursor": cursor} if cursor else {})})
        ).json()
        seen += [each["id"] for each in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == made
    assert (await client.get("/metrics?cursor=zzz")).status_code == 422


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
