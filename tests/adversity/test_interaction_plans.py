"""How Postgres goes about counting at volume: by the index alone, and without sorting what it counts."""

from collections.abc import AsyncGenerator, Iterator
from datetime import date
from typing import Any

import msgspec
import pytest

from service.database.gateway import Database, open_database
from service.interactions import store
from service.interactions.models import Filters
from tests.conftest import Server, _cloned

CUSTOMERS, CONTACTS = 2_000, 100_000
FILL = f"""
    INSERT INTO data.customers (customer_id, type)
    SELECT n, (array['Manufacturer', 'Distributor', 'Repair shop'])[1 + n % 3]
    FROM generate_series(1, {CUSTOMERS}) AS n;
    INSERT INTO data.external_interactions (date_start, interaction, customer_id)
    SELECT timestamp '2020-01-01' + n * interval '20 minutes',
           (array['Email', 'Call', 'Bird', 'Visit'])[1 + (n / 7) % 4],
           1 + (n::bigint * 7919) % {CUSTOMERS}
    FROM generate_series(1, {CONTACTS}) AS n;
    INSERT INTO data.products_of_discussion (month, product)
    SELECT month, product
    FROM generate_series(timestamp '2020-01-01', '2023-12-01', '1 month') AS month,
         unnest(array['Pumps', 'Valves']) AS product
"""
EVERYTHING = Filters(
    channels=("Email", "Bird"), product="Pumps", start_date=date(2020, 2, 1), end_date=date(2022, 1, 31)
)


class Explained:
    """A database that keeps the plan of each statement that it reads, with the arguments it had."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.plans: dict[str, dict[str, Any]] = {}

    async def read(self, statement: Any, *args: Any) -> list[Any]:
        async with self.database._borrow() as connection:
            text = await connection.fetchval(f"EXPLAIN (FORMAT JSON) {statement.sql}", *args)
        self.plans[statement.name] = msgspec.json.decode(text)[0]["Plan"]
        return await self.database.read(statement, *args)


@pytest.fixture(scope="module")
async def explained(server: Server, template: str) -> AsyncGenerator[Any]:
    async with _cloned(server, template) as addresses, open_database(addresses.url or "") as database:
        async with database._borrow() as connection:
            await connection.execute("SET synchronous_commit = on")  # VACUUM marks only what is on disk
            await connection.execute(FILL)
            await connection.execute("VACUUM ANALYZE")  # as autovacuum leaves it
        yield Explained(database)


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


def ways(plan: dict[str, Any], table: str) -> set[tuple[str, str | None]]:
    """How a table is read: kinds of nodes and their indexes."""
    return {
        (node["Node Type"], node.get("Index Name"))
        for node in nodes(plan)
        if node.get("Relation Name") == table
    }


BY_ITS_KEY = {("Index Only Scan", "external_interactions_pkey")}


@pytest.mark.parametrize("filters", [Filters(), EVERYTHING], ids=["all", "filtered"])
async def test_a_customer_is_counted_by_the_index_alone(explained: Any, filters: Filters):
    answer = await store.of_customer(explained, 1_234, filters)
    assert sum(answer.data.interactions.values()) > 0
    plan = explained.plans["count_by_customer"]
    assert ways(plan, "external_interactions") == BY_ITS_KEY
    assert "Seq Scan" not in {kind for kind, _ in ways(plan, "customers")}


@pytest.mark.parametrize("filters", [Filters(), EVERYTHING], ids=["all", "filtered"])
async def test_a_page_reads_its_customers_only(explained: Any, filters: Filters):
    page = await store.page(explained, 1_000, 50, filters)
    assert [item.customer_id for item in page.items] == list(range(1_001, 1_051))
    plan = explained.plans["count_by_customer"]
    assert ways(plan, "external_interactions") == BY_ITS_KEY
    assert {index for _, index in ways(plan, "customers")} == {"customers_pkey"}


async def test_a_plan_made_for_any_arguments_goes_by_the_index_too(explained: Any):
    """After some runs Postgres may stop planning for the arguments at hand."""
    await store.of_customer(explained, 1, Filters())
    statement = store._COUNT_BY_CUSTOMER
    async with explained.database._borrow() as connection, connection.transaction():
        await connection.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        await connection.execute(f"PREPARE counting AS {statement.sql}")
        nulls = ", ".join(["NULL"] * 5)
        text = await connection.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE counting (1, 2, 1, {nulls})")
        await connection.execute("DEALLOCATE counting")
    assert ways(msgspec.json.decode(text)[0]["Plan"], "external_interactions") == BY_ITS_KEY


@pytest.mark.parametrize("filters", [Filters(), EVERYTHING], ids=["all", "filtered"])
@pytest.mark.parametrize(
    "by",
    [("channel",), ("customer_type",), ("product",), ("customer_type", "product", "channel")],
    ids=",".join,
)
async def test_totals_never_sort_what_they_count(explained: Any, by: Any, filters: Filters):
    totals = await store.totals(explained, by, filters)
    assert totals.data
    sorts = [node for node in nodes(explained.plans["count_totals"]) if "Sort" in node["Node Type"]]
    assert max((node["Plan Rows"] for node in sorts), default=0) < CONTACTS / 20


async def test_totals_leave_out_tables_that_they_do_not_need(explained: Any):
    await store.totals(explained, ("channel",), Filters())
    assert ways(explained.plans["count_totals"], "customers") == set()
