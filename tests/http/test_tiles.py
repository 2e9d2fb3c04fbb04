"""How a dashboard draws a metric is kept on the server; SQL can be tried before it is stored."""

import msgspec
import pytest

from service.database.queries import Statement

DASHBOARDS = "/api/v1/dashboards"
ONE = {"sql": "SELECT 1 AS n", "dashboards": [{"id": "team"}]}


class Audited(msgspec.Struct, frozen=True):
    action: str
    target: str
    before_hash: str | None
    after_hash: str | None


@pytest.fixture
async def tile(client) -> str:
    """A metric on a dashboard: the address of its tile."""
    await client.post(DASHBOARDS, json={"title": "Team"})
    made = (await client.post("/api/v1/metrics", json=ONE)).json()
    return f"{DASHBOARDS}/team/tiles/{made['id']}"


async def charts(client) -> list[str | None]:
    return [each["chart"] for each in (await client.get(f"{DASHBOARDS}/team")).json()["items"]]


async def test_a_chart_is_chosen_kept_and_given_back(client, clone, tile):
    assert await charts(client) == [None]
    chosen = await client.patch(tile, json={"chart": "table"})
    assert (chosen.status_code, chosen.json()["items"][0]["chart"]) == (200, "table")
    await client.patch(tile, json={"chart": "number"})
    assert await charts(client) == ["number"]

    layouts = (await client.get(f"{DASHBOARDS}/team")).json()["layouts"]
    await client.put(f"{DASHBOARDS}/team/layouts", json=layouts)
    assert await charts(client) == ["number"]

    await client.patch(tile, json={"chart": None})
    assert await charts(client) == [None]
    sql = (
        "SELECT action, target, before_hash, after_hash FROM app.audit "
        "WHERE action = 'dashboards.tile' ORDER BY id"
    )
    deeds = await clone.read(Statement("deeds", sql, Audited))
    assert {deed.target for deed in deeds} == {tile.removeprefix(f"{DASHBOARDS}/").replace("/tiles", "")}
    assert [deed.after_hash for deed in deeds[:2]] == [deed.before_hash for deed in deeds[1:]]
    assert deeds[0].before_hash == deeds[2].after_hash


async def test_a_chosen_chart_goes_with_its_dashboard(client, tile):
    await client.patch(tile, json={"chart": "table"})
    await client.delete(f"{DASHBOARDS}/team")
    await client.post(DASHBOARDS, json={"title": "Team"})
    metric = tile.rsplit("/", 1)[1]
    place = {"lg": [{"i": metric, "x": 0, "y": 0, "w": 4, "h": 4}]}
    await client.put(f"{DASHBOARDS}/team/layouts", json=place)
    assert await charts(client) == [None]


@pytest.mark.parametrize(
    "body",
    [{}, {"chart": "pie"}, {"chart": 1}, {"chart": "bar", "x": 1}],
    ids=["none", "kind", "type", "more"],
)
async def test_an_unknown_chart_is_refused(client, tile, body):
    answer = await client.patch(tile, json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid-input")


async def test_a_tile_that_is_not_there_is_not_found(client, tile):
    await client.post(DASHBOARDS, json={"title": "Other"})
    for address in (tile.replace("/team/", "/nobody/"), tile.replace("/team/", "/other/")):
        assert (await client.patch(address, json={"chart": "bar"})).status_code == 404
    assert (await client.patch(f"{DASHBOARDS}/team/tiles/x", json={"chart": "bar"})).status_code == 422


async def test_sql_is_tried_without_being_stored(client):
    before = (await client.get("/api/v1/metrics")).json()
    draft = {
        "sql": "SELECT :n + 12345678901234567890 AS n",
        "parameters": {"n": {"type": "number", "default": 2}},
    }
    tried = await client.post("/api/v1/metrics/preview", json=draft)
    assert tried.status_code == 200, tried.text
    assert "12345678901234567892" in tried.text
    assert tried.json()["columns"] == [{"name": "n", "type": "numeric"}]
    many = await client.post("/api/v1/metrics/preview", json={"sql": "SELECT generate_series(1, 600) AS n"})
    assert (len(many.json()["records"]), many.json()["truncated"]) == (500, True)
    assert (await client.get("/api/v1/metrics")).json() == before


@pytest.mark.parametrize(
    ("draft", "code"),
    [
        ({"sql": "SELECT 1 FROM nothing"}, "query-failed"),
        ({"sql": "DELETE FROM metrics"}, "sql-refused"),
        ({"sql": "SELECT 1 / 0 AS n"}, "query-failed"),
        ({"sql": "SELECT :n AS n", "parameters": {"n": {"type": "integer"}}}, "invalid-input"),
        ({"sql": ""}, "invalid-input"),
    ],
    ids=["unknown table", "change", "division", "no default", "empty"],
)
async def test_sql_that_cannot_run_says_why(client, draft, code):
    answer = await client.post("/api/v1/metrics/preview", json=draft)
    assert (answer.status_code, answer.json()["code"]) == (422, code), answer.text
    assert answer.json()["detail"]
