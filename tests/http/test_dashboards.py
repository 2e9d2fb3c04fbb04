"""Dashboards are created, renamed, arranged and deleted; new metrics find a place on them."""

import asyncio

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.database.queries import Statement
from service.metrics.dashboards import COLUMNS, find_place
from service.metrics.models import DashboardPlace, Layout

DASHBOARDS = "/api/v1/dashboards"
ONE = "SELECT 1 AS n"


class Audited(msgspec.Struct, frozen=True):
    action: str
    target: str


async def test_a_dashboard_is_created_renamed_and_deleted_and_each_change_is_audited(client, clone):
    made = await client.post(DASHBOARDS, json={"title": "Sales & Stöße, Köln"})
    assert made.status_code == 201
    assert made.headers["location"] == f"{DASHBOARDS}/sales-stosse-koln"
    shown = {"id": "sales-stosse-koln", "title": "Sales & Stöße, Köln", "items": [], "layouts": {}}
    assert made.json() == shown == (await client.get(made.headers["location"])).json()

    renamed = await client.patch(f"{DASHBOARDS}/sales-stosse-koln", json={"title": "Sales"})
    assert (renamed.status_code, renamed.json()["title"]) == (200, "Sales")
    assert (await client.get(f"{DASHBOARDS}/sales-stosse-koln/data")).json() == {
        "id": "sales-stosse-koln",
        "results": [],
    }
    assert (await client.delete(f"{DASHBOARDS}/sales-stosse-koln")).status_code == 204
    for call in (client.get, client.delete):
        assert (await call(f"{DASHBOARDS}/sales-stosse-koln")).status_code == 404
    assert (await client.patch(f"{DASHBOARDS}/sales-stosse-koln", json={"title": "x"})).status_code == 404
    deeds = await clone.read(
        Statement(
            "deeds", "SELECT action, target FROM app.audit WHERE action LIKE 'dash%' ORDER BY id", Audited
        )
    )
    assert [deed.action for deed in deeds] == ["dashboards.create", "dashboards.change", "dashboards.delete"]
    assert {deed.target for deed in deeds} == {"sales-stosse-koln"}


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE", "PUT"])
async def test_an_id_with_a_nul_character_is_refused(client, method):
    path = f"{DASHBOARDS}/a%00b{'/layouts' if method == 'PUT' else ''}"
    body = {"PATCH": {"title": "x"}, "PUT": {}}.get(method)
    answer = await client.request(method, path, json=body)
    expected = (404, "not-found") if method == "GET" else (422, "invalid-input")
    assert (answer.status_code, answer.json()["code"]) == expected


async def test_an_id_from_a_title_takes_a_number_where_it_is_taken_and_a_given_one_does_not(client):
    made = await asyncio.gather(*(client.post(DASHBOARDS, json={"title": "Team"}) for _ in range(3)))
    assert sorted(each.json()["id"] for each in made) == ["team", "team-2", "team-3"]
    again = await client.post(DASHBOARDS, json={"title": "Other", "id": "team"})
    assert (again.status_code, again.json()["code"]) == (409, "conflict")
    assert "'team'" in again.json()["detail"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "title"),
        ({"title": ""}, "title"),
        ({"title": "x" * 256}, "title"),
        ({"title": "日本"}, "id"),
        ({"title": "x", "id": "Upper"}, "id"),
        ({"title": "x", "id": "a\n"}, "id"),
        ({"title": "x", "id": "x" * 65}, "id"),
        ({"title": "x", "name": "y"}, "name"),
    ],
)
async def test_a_wrong_dashboard_is_refused_by_field(client, body, field):
    refused = await client.post(DASHBOARDS, json=body)
    assert refused.status_code == 422
    assert field in refused.text
    assert (await client.get(DASHBOARDS)).json()["items"] == [
        {"id": "default", "title": "Default", "metrics": 0}
    ]


async def test_the_default_dashboard_is_renamed_but_never_deleted(client):
    assert (await client.delete(f"{DASHBOARDS}/default")).status_code == 409
    assert (await client.patch(f"{DASHBOARDS}/default", json={"title": "Company"})).json()[
        "title"
    ] == "Company"


async def test_dashboards_are_listed_in_pages(client):
    for name in ("a", "b", "c"):
        await client.post(DASHBOARDS, json={"title": name})
    first = (await client.get(f"{DASHBOARDS}?limit=3")).json()
    assert [each["id"] for each in first["items"]] == ["a", "b", "c"]
    rest = (await client.get(f"{DASHBOARDS}?limit=3&cursor={first['next_cursor']}")).json()
    assert ([each["id"] for each in rest["items"]], rest["next_cursor"]) == (["default"], None)


async def test_a_new_metric_goes_onto_dashboards_and_finds_a_place_there(client):
    for name in ("one", "two"):
        await client.post(DASHBOARDS, json={"title": name})
    wanted = [{"id": "one", "x": 0, "y": 0, "w": 8, "h": 4}, {"id": "two"}]
    first = await client.post("/metrics", json={"sql": ONE, "title": "first", "dashboards": wanted})
    assert first.status_code == 201, first.text
    second = (
        await client.post("/metrics", json={"sql": ONE, "dashboards": [{"id": "one", "w": 4, "h": 2}]})
    ).json()
    third = (await client.post("/metrics", json={"sql": ONE, "dashboards": [{"id": "one", "w": 6}]})).json()
    one = (await client.get(f"{DASHBOARDS}/one")).json()
    assert one["items"][0]["title"] == "first"
    places = {place["i"]: tuple(place[key] for key in "xywh") for place in one["layouts"]["lg"]}
    assert places == {
        first.json()["id"]: (0, 0, 8, 4),
        second["id"]: (8, 0, 4, 2),
        third["id"]: (0, 4, 6, 8),
    }
    assert len((await client.get(f"{DASHBOARDS}/two/data")).json()["results"]) == 1

    await client.delete(f"{DASHBOARDS}/one")
    assert (await client.get(f"/metrics/{second['id']}")).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        {"dashboards": [{"id": "nowhere"}]},
        {"dashboards": [{"id": "default", "x": 1}]},
        {"dashboards": [{"id": "default", "w": 0}]},
        {"dashboards": [{"id": "default"}, {"id": "default"}]},
        {
            "dashboards": [{"id": "default"}],
            "layouts": [{"breakpoint": "lg", "x": 0, "y": 0, "w": 1, "h": 1}],
        },
    ],
)
async def test_a_wrong_place_stores_nothing(client, body):
    refused = await client.post("/metrics", json={"sql": ONE, **body})
    assert refused.status_code == 422
    assert "dashboards" in refused.text
    assert (await client.get("/metrics")).json()["items"] == []


PLACES = st.builds(
    Layout, st.just("lg"), st.integers(0, 11), st.integers(0, 30), st.integers(1, 12), st.integers(1, 10)
)


@given(
    taken=st.lists(PLACES, max_size=15),
    wanted=st.lists(st.tuples(st.integers(1, 14), st.integers(1, 9)), max_size=6),
)
def test_found_places_overlap_nothing_and_stay_within_the_columns(taken, wanted):
    def cells(place):
        columns, rows = range(place.x, place.x + place.w), range(place.y, place.y + place.h)
        return {(column, row) for column in columns for row in rows}

    covered = set().union(*map(cells, taken))
    for w, h in wanted:
        place = find_place(DashboardPlace("any", w=w, h=h), taken)
        assert (place.w, place.h) == (w, h)
        assert not cells(place) & covered
        assert place.x + w <= max(COLUMNS, w)
        taken = [*taken, place]
        covered |= cells(place)
