"""Metrics made, changed, restored and deleted over HTTP, also by several at once and past the API."""

import asyncio
from functools import partial
from uuid import UUID, uuid4

import pytest

from service.database.queries import Command
from service.metrics.execute import Executor
from tests.http.metrics import EXACT, problem
from tests.waiting import until


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


async def test_what_another_changed_meanwhile_is_validated_too(client, counting, meanwhile):
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


@pytest.mark.parametrize("coding", ["identity", "gzip", "zstd"])
async def test_if_match_takes_the_tag_of_the_definition_as_it_was_sent(client, make_metric, coding):
    metric = await make_metric("SELECT 1 AS one -- " + "a long remark " * 100)
    read = await client.get(f"/metrics/{metric}/definition", headers={"Accept-Encoding": coding})
    assert read.headers.get("content-encoding", "identity") == coding
    tag = read.headers["etag"]
    assert tag.endswith(f'-{coding}"') is (coding != "identity")
    other = await client.patch(
        f"/metrics/{metric}", json={"title": "other"}, headers={"If-Match": f'{tag[:-1]}-br"'}
    )
    assert (other.status_code, problem(other)["code"]) == (412, "precondition-failed")
    for title, status in (("first", 200), ("late", 412)):
        changed = await client.patch(
            f"/metrics/{metric}", json={"title": title}, headers={"If-Match": f'"x", {tag}'}
        )
        assert changed.status_code == status


async def test_if_match_that_is_no_list_of_tags_is_told_so(client, counting):
    for late in (
        await client.patch(counting, json={"title": "other"}, headers={"If-Match": "v1"}),
        await client.delete(counting, headers={"If-Match": ""}),
    ):
        assert (late.status_code, problem(late)["errors"][0]["field"]) == (422, "If-Match")


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
