"""The seeds, imported as `make seed` does: the routes and the stored metrics give the same numbers."""

from calendar import monthrange
from collections.abc import AsyncGenerator
from functools import partial
from pathlib import Path

import httpx
import pytest

from service.audit import Actor
from service.database.gateway import open_database
from service.imports.folder import import_folder
from service.imports.run.imports import Options
from service.sql.validation import validate_sql
from tests.conftest import Server, _cloned, everybody, serving

SEEDS = Path(__file__).parents[2] / "seeds"
PER_CHANNEL = "295552a0-d704-406c-ba92-f7e866c621fe"
PER_MONTH = "aec1218a-cba9-41fe-8277-d16e14e2ce16"
PER_TYPE = "422ec430-224c-48a4-a34e-ef44293a9ce4"
PER_PRODUCT = "69519bdf-13eb-4438-a3d3-0b810d75def3"
TOP_CUSTOMERS = "eef95d29-5433-4a7f-a982-2c1101fb4419"


@pytest.fixture(scope="module")
async def seeded(
    server: Server, template: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[httpx.AsyncClient]:
    async with _cloned(server, template) as addresses:
        async with open_database(addresses.url or "") as database:
            options = Options(
                validate_sql=partial(validate_sql, schemas=("data",)),
                bytes_limit=1 << 24,
                actor=Actor("test", None),
            )
            done = await import_folder(database, SEEDS, options)
        assert done.refusals == []
        async with serving(everybody(addresses, tmp_path_factory.mktemp("data"))) as client:
            yield client


async def data(client: httpx.AsyncClient, path: str) -> dict:
    answer = await client.get(f"/api/v1/{path}")
    assert answer.status_code == 200
    return answer.json()["data"]


async def records(client: httpx.AsyncClient, metric_id: str) -> list[dict]:
    answer = await client.get(f"/api/v1/metrics/{metric_id}")
    assert answer.status_code == 200
    return answer.json()["records"]


async def test_the_default_dashboard_shows_interactions(seeded: httpx.AsyncClient):
    dashboard = (await seeded.get("/api/v1/dashboards/default")).json()
    shown = {item["id"] for item in dashboard["items"]}
    assert {PER_CHANNEL, PER_MONTH, PER_TYPE, PER_PRODUCT, TOP_CUSTOMERS} <= shown


@pytest.mark.parametrize(
    ("by", "metric_id", "column"),
    [
        ("channel", PER_CHANNEL, "channel"),
        ("customer_type", PER_TYPE, "customer_type"),
        ("product", PER_PRODUCT, "product"),
    ],
)
async def test_totals_are_what_the_stored_metric_says(
    seeded: httpx.AsyncClient, by: str, metric_id: str, column: str
):
    stored = {record[column] or "null": record["interactions"] for record in await records(seeded, metric_id)}
    totals = await data(seeded, f"interactions/by/{by}")
    assert {label: n for label, n in totals.items() if n} == stored
    assert sum(stored.values()) >= 594


async def test_a_month_of_totals_is_what_the_stored_metric_says(seeded: httpx.AsyncClient):
    months = await records(seeded, PER_MONTH)
    assert len(months) == 12
    for record in months:
        year, month, _ = map(int, record["month"].split("-"))
        window = f"start_date={record['month']}&end_date={year}-{month:02}-{monthrange(year, month)[1]}"
        totals = await data(seeded, f"interactions/by/channel?{window}")
        assert sum(totals.values()) == record["interactions"]


async def test_the_top_customers_are_those_of_the_list(seeded: httpx.AsyncClient):
    listed = (await seeded.get("/api/v1/interactions?limit=200")).json()["items"]
    assert len(listed) == 60
    sums = {item["customer_id"]: sum(item["interactions"].values()) for item in listed}
    top = sorted(sums.items(), key=lambda item: (-item[1], item[0]))[:10]
    stored = await records(seeded, TOP_CUSTOMERS)
    assert [(record["customer_id"], record["interactions"]) for record in stored] == top
    one = await data(seeded, f"interactions/{top[0][0]}")
    assert sum(one["interactions"].values()) == top[0][1]


async def test_a_channel_that_only_a_waiting_row_used_is_known(seeded: httpx.AsyncClient):
    totals = await data(seeded, "interactions/by/channel")
    assert totals["Fax"] == 0
    assert list(totals)[:5] == ["Email", "Call", "Visit", "Video call", "Trade fair"]


@pytest.mark.parametrize(("customer", "waiting"), [(64, 3), (65, 1)])
async def test_rows_of_unknown_customers_wait(seeded: httpx.AsyncClient, customer: int, waiting: int):
    answer = await seeded.get(f"/api/v1/interactions/{customer}")
    assert answer.status_code == 404
    assert f" {waiting} interactions of this customer are in quarantine" in answer.json()["detail"]


async def test_what_waits_is_what_the_seeds_say_is_bad(seeded: httpx.AsyncClient):
    stats = await data(seeded, "stats")
    assert {name: (figures["rows"], figures["waiting_rows"]) for name, figures in stats.items()} == {
        "queries": (17, 6),
        "metrics": (16, 6),
        "layouts": (42, 5),
        "metric_records": (1446, 6),
        "customers": (60, 9),
        "external_interactions": (594, 14),
        "products_of_discussion": (15, 5),
    }
    assert stats["external_interactions"]["first_date"] == "2025-01-02"
