"""Counts are held as results: ETag and 304, hits, and new answers as soon as a table behind them changes."""

import asyncio
from collections.abc import AsyncGenerator

import httpx
import pytest

from service.database.gateway import Database
from service.database.queries import Command
from service.settings import Settings
from tests.conftest import serving
from tests.waiting import until

ROUTES = [
    "/api/v1/interactions/1",
    "/api/v1/interactions",
    "/api/v1/interactions/by/channel",
    "/api/v1/interactions/by/customer_type,product",
    "/api/v1/stats",
]
FILL = """
    WITH customers AS (
        INSERT INTO data.customers (customer_id, type) VALUES (1, 'Manufacturer') RETURNING customer_id
    )
    INSERT INTO data.external_interactions (date_start, interaction, customer_id)
    SELECT '2024-01-01', 'Email', customer_id FROM customers
"""
MORE = """
    INSERT INTO data.external_interactions (date_start, interaction, customer_id)
    VALUES ('2024-01-02', 'Call', 1)
"""
QUARANTINE = """
    INSERT INTO quarantine.row
        (id, dataset, source, line, raw, cells, reason, message, import_id, import_number)
    VALUES (gen_random_uuid(), 'customers', 'x.csv', 2, '{}', '{}', 'wrong-type', '', gen_random_uuid(), 1)
"""


@pytest.fixture
async def filled(clone: Database, settings: Settings) -> AsyncGenerator[httpx.AsyncClient]:
    """The service, begun when its data were there: nothing of them is announced while a test runs."""
    await clone.write(Command("fill", FILL))
    async with serving(settings) as client:
        yield client


async def changed(client: httpx.AsyncClient, path: str, etag: str) -> httpx.Response:
    """The first answer that is not the one held before."""

    async def other() -> httpx.Response | None:
        answer = await client.get(path)
        return answer if answer.headers["etag"] != etag else None

    return await until(other)


async def test_answers_are_held_and_known_by_their_tags(filled: httpx.AsyncClient):
    for path in ROUTES:
        first = await filled.get(path)
        assert first.status_code == 200
        assert first.headers["cache-status"] == "tally; fwd=miss"
        again = await filled.get(path)
        assert again.headers["cache-status"] == "tally; hit"
        assert again.content == first.content
        assert again.headers["etag"] == first.headers["etag"]
        held = await filled.get(path, headers={"If-None-Match": first.headers["etag"]})
        assert (held.status_code, held.content) == (304, b"")
        forced = await filled.get(path, headers={"Cache-Control": "no-cache"})
        assert forced.headers["cache-status"] == "tally; fwd=request"


async def test_a_new_interaction_makes_new_answers(filled: httpx.AsyncClient, clone: Database):
    before = [await filled.get(path) for path in ROUTES]
    await clone.write(Command("more", MORE))
    for path, held in zip(ROUTES, before, strict=True):
        answer = await changed(filled, path, held.headers["etag"])
        assert answer.json() != held.json()
        assert answer.json() == (await filled.get(path, headers={"Cache-Control": "no-cache"})).json()


@pytest.mark.parametrize(
    ("change", "dataset"),
    [(QUARANTINE, "customers"), ("INSERT INTO catalog.query (id, sql) VALUES ('q', 'SELECT 1')", "queries")],
    ids=["quarantine", "catalogue"],
)
async def test_figures_follow_what_waits_and_what_is_stored(
    filled: httpx.AsyncClient, clone: Database, change: str, dataset: str
):
    before = await filled.get("/api/v1/stats")
    await clone.write(Command("change", change))
    answer = await changed(filled, "/api/v1/stats", before.headers["etag"])
    assert answer.json()["data"][dataset] != before.json()["data"][dataset]


async def test_a_refusal_is_never_one_of_before(filled: httpx.AsyncClient, clone: Database):
    assert (await filled.get("/api/v1/interactions/2")).status_code == 404
    assert (await filled.get("/api/v1/interactions/1?channel=Call")).status_code == 422
    await clone.write(Command("customer", "INSERT INTO data.customers (customer_id) VALUES (2)"))
    await clone.write(Command("more", MORE))
    assert (await filled.get("/api/v1/interactions/2")).status_code == 200
    answer = await filled.get("/api/v1/interactions/1?channel=Call")
    assert answer.json()["data"]["interactions"] == {"Email": 0, "Call": 1}


async def test_questions_that_differ_are_held_apart(filled: httpx.AsyncClient):
    paths = [
        "interactions/1", "interactions/1?channel=Email", "interactions/1?end_date=2023-12-31",
        "interactions?limit=1", "interactions", "interactions/by/channel", "interactions/by/channel,product",
        "interactions/by/product,channel", "interactions/by/channel?customer_type=Manufacturer",
    ]  # fmt: skip
    first = [await filled.get(f"/api/v1/{path}") for path in paths]
    assert {answer.headers["cache-status"] for answer in first} == {"tally; fwd=miss"}
    again = [await filled.get(f"/api/v1/{path}") for path in paths]
    assert [answer.content for answer in again] == [answer.content for answer in first]
    assert {answer.headers["cache-status"] for answer in again} == {"tally; hit"}


async def test_many_callers_at_once_share_one_count(filled: httpx.AsyncClient):
    answers = await asyncio.gather(*(filled.get("/api/v1/interactions/by/channel") for _ in range(20)))
    assert {answer.content for answer in answers} == {b'{"data":{"Email":1}}'}
    status = [answer.headers["cache-status"] for answer in answers]
    assert status.count("tally; fwd=miss") == 1
    assert set(status) <= {"tally; fwd=miss", "tally; fwd=miss; collapsed", "tally; hit"}


async def test_a_table_that_is_defined_otherwise_ends_what_was_counted(
    filled: httpx.AsyncClient, clone: Database
):
    async def status() -> str:
        answer = await filled.get("/api/v1/interactions/1")
        return answer.headers.get("cache-status", "none")

    async def hit() -> bool:
        return await status() == "tally; hit"

    async def ended() -> bool:
        return not await hit()

    await until(hit)
    await clone.write(Command("alter", "ALTER TABLE data.external_interactions RENAME interaction TO kind"))
    await until(ended, 5)
    assert await status() == "none" or "detail=stale" in await status()
