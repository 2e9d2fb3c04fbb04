"""Exports of other tools become metrics and a dashboard; what cannot be taken is told with its reason."""

import json
from pathlib import Path

import msgspec
import pytest

from service.audit import CLI
from service.database.queries import Statement
from service.metrics.exchange import READERS
from service.metrics.exchange.files import decoded
from service.metrics.exchange.plan import Node
from service.metrics.exchange.take import Options, Outcome, Taker

EXPORTS = Path(__file__).parents[1] / "exports"
ROWS = """
    INSERT INTO data.customers VALUES
        (1, 'Engineer', 'Retail'), (2, 'Doctor', 'Business'), (3, 'Doctor', 'Public');
    INSERT INTO data.external_interactions VALUES
        ('2025-06-01', 'Email', 1), ('2025-06-30 18:00', 'Email', 1), ('2025-06-30', 'Call', 2),
        (now() - interval '2 days', 'Email', 3), (current_date, 'Call', 3);
    INSERT INTO data.metrics (id, date, parts_flagged) VALUES ('a', '2025-02-03', 4), ('a', '2024-02-03', 5);
"""


class Audited(msgspec.Struct, frozen=True):
    action: str
    actor: str


@pytest.fixture
async def taking(client, clone):
    """Take a document over, as the command does."""
    for statement in ROWS.strip().removesuffix(";").split(";"):
        await clone.write(Statement("rows", statement, None))
    on = client.service.state.services
    taker = Taker(on.database, on.catalog, on.executor, on.editor, CLI)

    async def take(tool: str, document, **options):
        board, outcomes = await taker.take(READERS[tool](Node(document)), Options(**options))
        return board, {each.title: each for each in outcomes}

    return take


def export(name: str):
    return json.loads((EXPORTS / name).read_text())


async def records(client, metric_id: str, **parameters: str):
    answer = await client.get(f"/api/v1/metrics/{metric_id}", params=parameters)
    assert answer.status_code == 200, answer.text
    return answer.json()["records"]


async def parameters_of(client, metric_id: str):
    found = (await client.get(f"/api/v1/metrics/{metric_id}/definition")).json()
    return {each["name"]: each for each in found["parameters"]}


async def test_a_dashboard_of_redash(client, taking):
    board, found = await taking("redash", export("redash-dashboard.json"))
    assert board == "customer-desk"
    assert {title: each.state for title, each in found.items() if each.state != "added"} == {
        "# Customer desk Numbers of the *service* desk.": "refused",
        "Rows of any table": "refused",
        "From MySQL": "refused",
    }
    assert "no text tiles" in found["# Customer desk Numbers of the *service* desk."].why
    assert found["Rows of any table"].why.startswith("{{ table }} is a name")
    assert len(found) == 10

    ids = {title: each.id for title, each in found.items()}
    assert await records(client, ids["Customers"]) == [{"customers": 3}]
    june = await records(client, ids["Contacts per day"])
    assert sum(each["contacts"] for each in june) == 3  # also of the evening of the last day
    first = await records(client, ids["Contacts per day"], start_date="2025-06-01", end_date="2025-06-01")
    assert [each["contacts"] for each in first] == [1]
    assert sum(each["contacts"] for each in await records(client, ids["Contacts of the last 30 days"])) == 2
    assert await records(client, ids["Customers by type"], customer_type="Public") == [
        {"type": "Public", "customers": 1}
    ]
    assert len(await records(client, ids["Customers by type"])) == 2
    assert (await records(client, ids["Busy customers"]))[0] == {"customer_id": 1, "contacts": 2}
    assert await records(client, ids["Busy customers"], least="3") == []
    refused = await client.get(f"/api/v1/metrics/{ids['Busy customers']}", params={"channel": "Fax"})
    assert refused.status_code == 422
    assert await records(client, ids["Occupations like"]) == [{"occupation": "Doctor", "customers": 2}]
    assert await records(client, ids["Occupations like"], part="' OR true --") == []
    assert [each["parts"] for each in await records(client, ids["Facts since: Flagged parts"])] == [4]


async def test_types_and_defaults_are_those_of_redash_and_of_the_columns(client, taking):
    _, found = await taking("redash", export("redash-dashboard.json"))
    busy = await parameters_of(client, found["Busy customers"].id)
    assert (busy["channel"]["type"], busy["channel"]["values"]) == ("enum", ["Email", "Call", "Bird"])
    assert (busy["least"]["type"], busy["least"]["default"]) == ("integer", 1)
    window = await parameters_of(client, found["Contacts per day"].id)
    assert window["start_date"]["default"] == "2025-06-01"
    assert window["day_range"]["source"] == "window"
    since = await parameters_of(client, found["Facts since: Flagged parts"].id)
    assert (since["since"]["type"], since["since"]["default"]) == ("timestamp", "2025-01-01T00:00:00.000000")
    assert (since["lag"]["type"], since["lag"]["default"]) == ("number", 0)


async def test_defaults_keep_their_digits(client, taking):
    text = (EXPORTS / "redash-dashboard.json").read_text()
    lag = text.index('"name": "lag"')
    text = text[:lag] + text[lag:].replace('"value": 0', '"value": 1234567890.12345678901234567890125', 1)
    document = decoded(text.encode(), "board.json").value
    for state in ("added", "unchanged"):
        _, found = await taking("redash", document)
        facts = found["Facts since: Flagged parts"]
        assert facts.state == state
    definition = await client.get(f"/api/v1/metrics/{facts.id}/definition")
    assert '"default":1234567890.12345678901234567890125' in definition.text


async def test_places_charts_and_descriptions_come_along(client, taking):
    board, found = await taking("redash", export("redash-dashboard.json"))
    shown = (await client.get(f"/api/v1/dashboards/{board}")).json()
    assert shown["title"] == "Customer desk"
    names = {each.id: title for title, each in found.items()}
    places = {names[each["i"]]: each for each in shown["layouts"]["lg"]}
    assert [places["Contacts per day"][each] for each in "xywh"] == [4, 3, 8, 11]
    assert [places["Customers"][each] for each in "xywh"] == [0, 3, 4, 5]
    charts = {names[each["id"]]: each["chart"] for each in shown["items"]}
    assert charts == {
        "Customers": "number", "Contacts per day": "stacked", "Contacts of the last 30 days": None,
        "Customers by type": "bar", "Busy customers": "table", "Occupations like": "table",
        "Facts since: Flagged parts": "line",
    }  # fmt: skip
    assert found["Contacts of the last 30 days"].notes == ("drawn by the shape of its result, not as pie",)
    sql = (await client.get(f"/api/v1/metrics/{found['Contacts per day'].id}/definition")).json()["sql"]
    assert sql.splitlines()[:3] == [
        "-- Redash: dashboard customer-desk, widget 3, query 32", "-- By channel.", "-- Both days count."
    ]  # fmt: skip


async def test_a_second_run_changes_nothing_and_overwrites_only_when_asked(client, clone, taking):
    document = export("redash-dashboard.json")
    board, first = await taking("redash", document)
    again, second = await taking("redash", document)
    assert again == board
    taken = {title for title, each in first.items() if each.state == "added"}
    assert {second[title].state for title in taken} == {"unchanged"}
    assert {second[title].id for title in taken} == {first[title].id for title in taken}

    document["widgets"][1]["visualization"]["query"]["query"] = "SELECT 7 AS customers"
    document["widgets"][1]["options"]["position"]["col"] = 1
    _, third = await taking("redash", document)
    assert third["Customers"].state == "differs"
    assert await records(client, first["Customers"].id) == [{"customers": 3}]
    _, dry = await taking("redash", document, replace=True, dry_run=True)
    assert dry["Customers"].state == "would update"
    assert await records(client, first["Customers"].id) == [{"customers": 3}]
    _, fourth = await taking("redash", document, replace=True)
    assert fourth["Customers"].state == "updated"
    assert await records(client, first["Customers"].id) == [{"customers": 7}]
    shown = (await client.get(f"/api/v1/dashboards/{board}")).json()["layouts"]["lg"]
    assert {each["x"] for each in shown if each["i"] == first["Customers"].id} == {2}
    deeds = await clone.read(Statement("deeds", "SELECT action, actor FROM app.audit ORDER BY id", Audited))
    assert [each.action for each in deeds].count("metrics.create") == len(taken)
    assert {each.actor for each in deeds} == {"cli"}


async def test_a_dry_run_tells_the_same_and_stores_nothing(client, taking):
    board, found = await taking("redash", export("redash-dashboard.json"), dry_run=True)
    assert board is None
    assert sorted(each.state for each in found.values()) == ["refused"] * 3 + ["would add"] * 7
    assert [each["id"] for each in (await client.get("/api/v1/dashboards")).json()["items"]] == ["default"]


async def test_a_file_of_which_nothing_can_be_taken_leaves_no_dashboard(client, taking):
    document = export("redash-dashboard.json")
    document["widgets"] = document["widgets"][8:]
    assert (await taking("redash", document))[0] is None
    assert [each["id"] for each in (await client.get("/api/v1/dashboards")).json()["items"]] == ["default"]


async def test_panels_without_ids_are_told_apart_and_found_again(client, clone, taking):
    panels = [
        {"title": f"P{number}", "targets": [{"refId": "A", "rawSql": f"SELECT {number} AS n"}]}
        for number in range(3)
    ]
    document = {"panels": panels, "title": "No ids", "uid": "u", "schemaVersion": 39}
    board, first = await taking("grafana", document)
    assert [each.state for each in first.values()] == ["added"] * 3
    assert [await records(client, each.id) for each in first.values()] == [[{"n": n}] for n in range(3)]
    unchanged = {title: Outcome("unchanged", title, each.id) for title, each in first.items()}
    again, second = await taking("grafana", document)
    assert again == board
    assert {title: msgspec.structs.replace(each, notes=()) for title, each in second.items()} == unchanged


async def test_tiles_come_below_those_of_a_dashboard_that_is_named(client, taking):
    await client.post("/api/v1/dashboards", json={"title": "Team"})
    place = {"id": "team", "x": 0, "y": 0, "w": 12, "h": 9}
    await client.post("/api/v1/metrics", json={"sql": "SELECT 1 AS n", "dashboards": [place]})
    board, found = await taking("redash", export("redash-dashboard.json"), dashboard="team")
    assert board == "team"
    places = (await client.get("/api/v1/dashboards/team")).json()["layouts"]["lg"]
    assert [each["y"] for each in places if each["i"] == found["Customers"].id] == [12]


async def test_queries_without_a_dashboard(client, taking):
    query = export("redash-dashboard.json")["widgets"][5]["visualization"]["query"]
    for document in (query, [query], {"count": 1, "page": 1, "page_size": 25, "results": [query]}):
        board, found = await taking("redash", document)
        assert board == "queries-from-redash"
        assert (await records(client, found["Busy customers"].id))[0]["contacts"] == 2
    assert found["Busy customers"].state == "unchanged"


async def test_a_dashboard_of_grafana(client, taking):
    board, found = await taking("grafana", export("grafana-dashboard.json"))
    assert board == "customer-desk"
    assert {title: each.why for title, each in found.items() if each.state != "added"} == {
        "About": "it shows no query: Tally has no tiles of type text",
        "CPU": "its data source is prometheus, not Postgres",
        "Rows": "$type is a name, or a part of one: a parameter can only be a value",
        "Shared": "it is a library panel, whose query is not in this file",
        "Filters": "ad hoc filters have no counterpart here",
    }
    assert len(found) == 12
    ids = {title: each.id for title, each in found.items()}
    assert await records(client, ids["Contacts"]) == [{"contacts": 2}]
    assert await records(client, ids["Contacts"], channel="Email") == [{"contacts": 1}]
    june = {"start_date": "2025-06-01", "end_date": "2025-06-30"}
    assert await records(client, ids["Contacts"], **june) == [{"contacts": 3}]
    assert await records(client, ids["Contacts"], channel="Email,Call", **june) == [{"contacts": 3}]
    assert await records(client, ids["Contacts"], day_range="1") == [{"contacts": 1}]
    days = await records(client, ids["Contacts per day"], **june)
    assert sorted((each["time"][:10], each["metric"]) for each in days) == [
        ("2025-06-01", "Email"), ("2025-06-30", "Call"), ("2025-06-30", "Email"),
    ]  # fmt: skip
    assert len(await records(client, ids["Contacts by step"], step="1 hours", **june)) == 3
    wide = await records(client, ids["Contacts by width of the screen"], interval="30 days", **june)
    assert sum(each["contacts"] for each in wide) == 3
    assert await records(client, ids["Customers of a type"]) == [{"occupation": "Engineer", "customers": 1}]
    assert await records(client, ids["Customers of a type"], least="2") == []
    assert await records(client, ids["Parts and contacts: B"]) == [{"contacts": 5}]


async def test_variables_and_macros_of_grafana_are_parameters(client, taking):
    _, found = await taking("grafana", export("grafana-dashboard.json"))
    contacts = await parameters_of(client, found["Contacts"].id)
    assert (contacts["channel"]["array"], contacts["channel"]["default"]) == (True, None)
    assert (contacts["start_date"]["required"], contacts["day_range"]["source"]) == (False, "window")
    step = (await parameters_of(client, found["Contacts by step"].id))["step"]
    assert (step["values"], step["default"]) == (["1 hours", "1 days", "7 days"], "1 days")
    assert found["Contacts by step"].notes == (
        "gaps are not filled: the page shows them as gaps", ":step does not offer 1M",
    )  # fmt: skip
    kind = (await parameters_of(client, found["Customers of a type"].id))["type"]
    assert (kind["values"], kind["default"]) == (["Retail", "Business", "Public"], "Retail")
    board = (await client.get("/api/v1/dashboards/customer-desk")).json()
    names = {each.id: title for title, each in found.items()}
    assert {names[each["id"]]: each["chart"] for each in board["items"]} == {
        "Contacts": "number", "Contacts per day": "stacked", "Contacts by step": "line",
        "Contacts by width of the screen": "line", "Customers of a type": "bar",
        "Parts and contacts: A": "table", "Parts and contacts: B": "table",
    }  # fmt: skip


async def test_a_dashboard_of_metabase(client, taking):
    board, found = await taking("metabase", export("metabase-dashboard.json"))
    assert board == "customer-desk"
    assert {title: each.why for title, each in found.items() if each.state != "added"} == {
        "Desk": "Tally's dashboards have no heading tiles",
        "Built in the editor": (
            "it was built in the editor and has no SQL: convert it to SQL in Metabase first"
        ),
        "With a snippet": (
            "{{snippet: good customers}} is a snippet, which is not in this file: write its SQL in its place"
        ),
        "From another question": "{{#43}} is another question: write its SQL in its place",
    }
    assert len(found) == 8
    ids = {title: each.id for title, each in found.items()}
    june = {"start_date": "2025-06-01", "end_date": "2025-06-30"}
    assert await records(client, ids["Contacts"]) == [{"contacts": 2}]
    assert await records(client, ids["Contacts"], **june) == [{"contacts": 3}]
    assert await records(client, ids["Contacts"], channel="Email,Bird", **june) == [{"contacts": 2}]
    days = await records(client, ids["Contacts by day"], channel="Call", **june)
    assert [(each["interaction"], each["contacts"]) for each in days] == [("Call", 1)]
    assert len(await records(client, ids["Contacts by day"], **june)) == 3
    busy = ids["Busy customers"]
    assert len(await records(client, busy)) == 3
    assert len(await records(client, busy, top="2")) == 2
    assert await records(client, busy, since="2025-06-30", least="2") == [{"customer_id": 3, "contacts": 2}]
    assert await records(client, ids["Customers by occupation"], customer_type="Public") == [
        {"occupation": "Doctor", "customers": 1}
    ]
    assert await records(client, ids["Customers by occupation"]) == [
        {"occupation": "Engineer", "customers": 1}
    ]


async def test_tabs_of_metabase_follow_each_other(client, taking):
    board, found = await taking("metabase", export("metabase-dashboard.json"))
    shown = (await client.get(f"/api/v1/dashboards/{board}")).json()
    names = {each.id: title for title, each in found.items()}
    places = {names[each["i"]]: each for each in shown["layouts"]["lg"]}
    assert places["Busy customers"]["y"] + places["Busy customers"]["h"] == 17
    assert [places["Customers by occupation"][each] for each in "xywh"] == [0, 17, 6, 8]
    assert {names[each["id"]]: each["chart"] for each in shown["items"]} == {
        "Contacts": "number", "Contacts by day": "stacked", "Busy customers": "table",
        "Customers by occupation": None,
    }  # fmt: skip
