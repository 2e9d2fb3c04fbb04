"""Items and an outside API that misbehaves: the right error, the item as it was, no connection held."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from litestar.types import Message

from service.app import layered
from service.audit import Actor
from service.database.gateway import Database, Transaction, open_database
from service.database.queries import Statement
from service.errors import UpstreamFailed
from service.items import store
from service.items.enrich import POSTS, POSTS_FRESH_S, POSTS_STALE_IF_ERROR_S, ExternalApi
from service.items.models import NewItem
from service.items.summary import Summariser, summarise
from service.outbound import FAILURES_TO_OPEN, Outbound
from service.settings import Auth, Settings
from service.settings import Database as DatabaseSettings
from service.settings import Outbound as OutboundSettings
from tests.adversity.fake_clock import on_fake_clock
from tests.adversity.misbehaving import (
    Act,
    Misbehaving,
    answer,
    drip,
    hang,
    hundred_megabytes,
)
from tests.conftest import opened_app, serving
from tests.db.test_item_store import EVENTS, Line

API = "/api/v1"
POST = b'{"userId": 1, "id": 1, "title": "theirs", "body": "so it is", "score": 0.10000000000000000555}'


@asynccontextmanager
async def service(
    addresses: DatabaseSettings, *acts: Act, timeout_s: float = 10
) -> AsyncGenerator[tuple[httpx.AsyncClient, Misbehaving]]:
    async with Misbehaving(*acts) as outside:
        outbound = OutboundSettings(timeout_s=timeout_s, external_api_url=f"{outside.url}/api/")
        async with serving(Settings(database=addresses, auth=Auth(mode="off"), outbound=outbound)) as client:
            yield client, outside


async def make(client: httpx.AsyncClient) -> dict[str, Any]:
    return (await client.post(f"{API}/items", json={"title": "Buy milk", "description": "mine"})).json()


@pytest.mark.parametrize(
    ("method", "address"),
    [("GET", f"{API}/external/fetch-data/{{}}"), ("POST", f"{API}/items/{{}}/enrich")],
    ids=["fetch-data", "enrich"],
)
async def test_an_item_keeps_the_whole_document_apart_from_its_own_fields(
    addresses: DatabaseSettings, method: str, address: str
):
    async with service(addresses, answer(body=POST)) as (client, outside):
        item = await make(client)
        enriched = await client.request(method, address.format(item["id"]))
        assert enriched.status_code == 200
        assert outside.requests[0].startswith(f"GET /api/posts/{item['id']} HTTP/1.1")
        document = enriched.json()["external_data"]
        assert document.pop("fetched_at") > item["created_at"]
        assert document == {"userId": 1, "id": 1, "title": "theirs", "body": "so it is", "score": 0.1}
        assert '"score":0.10000000000000000555' in enriched.text
        assert (enriched.json()["title"], enriched.json()["description"]) == ("Buy milk", "mine")
        kept = await client.get(f"{API}/items/{item['id']}")
        assert (kept.json(), kept.headers["ETag"]) == (enriched.json(), enriched.headers["ETag"])
        put = await client.put(f"{API}/items/{item['id']}", json={"title": "Buy oats"})
        assert put.json()["external_data"] == enriched.json()["external_data"]


@pytest.mark.parametrize(
    ("act", "status", "code"),
    [
        pytest.param(answer(404), 502, "upstream-failed", id="404"),
        pytest.param(answer(500), 502, "upstream-failed", id="500"),
        pytest.param(answer(429, retry_after="60"), 502, "upstream-failed", id="429"),
        pytest.param(answer(302, location="/"), 502, "upstream-failed", id="redirect"),
        pytest.param(answer(body=b"<html>"), 502, "upstream-failed", id="no JSON"),
        pytest.param(answer(body=b"[1]"), 502, "upstream-failed", id="wrong type"),
        pytest.param(answer(body=b'{"a": "\\u0000"}'), 502, "upstream-failed", id="not storable"),
        pytest.param(answer(body=b'{"a": ' + b"[" * 900_000), 502, "upstream-failed", id="nested too deep"),
        pytest.param(hundred_megabytes, 502, "upstream-failed", id="100 MB"),
        pytest.param(hang, 504, "upstream-timeout", id="silent"),
        pytest.param(drip, 504, "upstream-timeout", id="slow drip"),
    ],
)
async def test_after_a_failure_the_item_is_as_it_was(
    addresses: DatabaseSettings, clone: Database, act: Act, status: int, code: str
):
    timeout_s = 0.15 if status == 504 else 10
    async with service(addresses, act, timeout_s=timeout_s) as (client, _):
        item = await make(client)
        failed = await client.get(f"{API}/external/fetch-data/{item['id']}")
        assert (failed.status_code, failed.json()["code"]) == (status, code)
        assert failed.headers["Content-Type"] == "application/problem+json"
        assert (await client.get(f"{API}/items/{item['id']}")).json() == item
        assert [event.action for event in await clone.read(EVENTS)] == ["items.create"]


async def test_a_failing_outside_is_left_alone(addresses: DatabaseSettings):
    async with service(addresses, answer(500)) as (client, outside):
        item = await make(client)
        for _ in range(FAILURES_TO_OPEN):
            await client.post(f"{API}/items/{item['id']}/enrich")
        refused = await client.post(f"{API}/items/{item['id']}/enrich")
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "30")
        assert len(outside.requests) == FAILURES_TO_OPEN


async def test_an_unknown_item_is_not_asked_for_outside(addresses: DatabaseSettings):
    async with service(addresses, answer(body=POST)) as (client, outside):
        for method, address in (
            ("GET", "external/fetch-data/1"),
            ("POST", "items/1/enrich"),
            ("POST", "items/1/summary"),
        ):
            assert (await client.request(method, f"{API}/{address}")).status_code == 404
        assert outside.requests == []


async def test_an_item_deleted_meanwhile_is_not_found(addresses: DatabaseSettings):
    async with service(addresses, waits := Gate()) as (client, outside):
        item = await make(client)
        enriching = asyncio.create_task(client.post(f"{API}/items/{item['id']}/enrich"))
        await outside.asked(1)
        await client.delete(f"{API}/items/{item['id']}")
        waits.open()
        assert (await enriching).status_code == 404


class Gate:
    """Answers only once it is opened."""

    def __init__(self) -> None:
        self._opened = asyncio.Event()

    def open(self) -> None:
        self._opened.set()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened, left = asyncio.ensure_future(self._opened.wait()), asyncio.ensure_future(reader.read())
        await asyncio.wait({opened, left}, return_when=asyncio.FIRST_COMPLETED)
        opened.cancel()
        left.cancel()
        await answer(body=POST)(reader, writer)


async def test_no_database_connection_is_held_while_the_outside_is_waited_for(
    addresses: DatabaseSettings, clone: Database
):
    busy = Statement(
        "busy",
        "SELECT query FROM pg_stat_activity"
        " WHERE datname = current_database() AND state LIKE 'idle in transaction%'",
        Line,
    )
    async with service(addresses, waits := Gate()) as (client, outside):
        item = await make(client)
        enriching = [asyncio.create_task(client.post(f"{API}/items/{item['id']}/enrich")) for _ in range(40)]
        await outside.asked(40)  # more than the pool has connections
        assert await clone.read(busy) == []
        assert (await client.get(f"{API}/items")).status_code == 200
        waits.open()
        assert {answered.status_code for answered in await asyncio.gather(*enriching)} == {200}


async def test_when_the_caller_leaves_the_outside_is_hung_up_on(addresses: DatabaseSettings):
    async with Misbehaving(hang) as outside:
        outbound = OutboundSettings(timeout_s=300, external_api_url=outside.url)
        settings = Settings(database=addresses, auth=Auth(mode="off"), outbound=outbound)
        async with opened_app(settings) as app, open_database(addresses.url or "") as database:
            item = await store.create(database, NewItem("x"), Actor("robin", None))
            sent: list[Message] = []
            body_read = False

            async def receive() -> Message:
                nonlocal body_read
                if body_read:
                    await outside.asked(1)
                    return {"type": "http.disconnect"}
                body_read = True
                return {"type": "http.request", "body": b"", "more_body": False}

            async def send(message: Message) -> None:
                sent.append(message)

            async with asyncio.timeout(20):
                await layered(app)(post_scope(f"{API}/items/{item.id}/enrich"), receive, send)  # type: ignore[arg-type]
                await outside.deserted()
            assert (await store.get(database, item.id)).external_data is None


def post_scope(path: str) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
    }


def posts(count: int) -> bytes:
    one = '{"userId": 1, "id": %d, "title": "t", "body": "b", "more": true}'
    return f"[{','.join(one % number for number in range(1, count + 1))}]".encode()


async def test_posts_are_passed_through_typed(addresses: DatabaseSettings):
    async with service(addresses, answer(body=posts(POSTS))) as (client, outside):
        five = await client.get(f"{API}/external/posts")
        assert five.json() == [{"userId": 1, "id": n, "title": "t", "body": "b"} for n in range(1, 6)]
        assert five.headers["Cache-Status"].startswith("tally; fwd=miss; stored")
        assert "max-age=60" in five.headers["Cache-Control"]
        all_of_them = await client.get(f"{API}/external/posts", params={"limit": str(POSTS)})
        assert len(all_of_them.json()) == POSTS
        assert all_of_them.headers["Cache-Status"].startswith("tally; hit; ttl=")
        assert len(outside.requests) == 1


@pytest.mark.parametrize("limit", ["0", "101", "x", ""])
async def test_a_wrong_number_of_posts_is_refused(addresses: DatabaseSettings, limit: str):
    async with service(addresses, answer(body=posts(1))) as (client, outside):
        refused = await client.get(f"{API}/external/posts", params={"limit": limit})
        assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "limit")
        assert outside.requests == []


async def test_posts_of_another_shape_are_a_failure_of_the_outside(addresses: DatabaseSettings):
    async with service(addresses, answer(body=b'[{"id": "one"}]')) as (client, _):
        assert (await client.get(f"{API}/external/posts")).status_code == 502


@asynccontextmanager
async def outside_of(*acts: Act) -> AsyncGenerator[tuple[ExternalApi, Misbehaving]]:
    async with Misbehaving(*acts) as server, Outbound(timeout_s=10, cooldown_s=30) as outbound:
        yield ExternalApi(outbound, server.url), server


def test_posts_are_fetched_anew_after_a_minute_and_kept_a_day_when_that_fails():
    async def main() -> list[str]:
        async with outside_of(answer(body=posts(9)), answer(body=posts(8)), answer(500)) as (outside, _):
            seen: list[str] = []
            for sleep_s in (0, POSTS_FRESH_S - 1, 2, POSTS_FRESH_S + 1, POSTS_STALE_IF_ERROR_S - 100):
                await asyncio.sleep(sleep_s)
                got = await outside.posts(100)
                seen.append(f"{got.origin} {len(got.items)}")
            await asyncio.sleep(200)
            with pytest.raises(UpstreamFailed):
                await outside.posts(100)
            return seen

    assert on_fake_clock(main()) == ["fetched 9", "kept 9", "fetched 8", "stale 8", "stale 8"]


def test_callers_who_wait_for_posts_share_one_fetch_and_its_failure():
    async def main() -> None:
        async with outside_of(hang) as (outside, server):
            calls = [asyncio.create_task(outside.posts(5)) for _ in range(20)]
            ends = await asyncio.gather(*calls, return_exceptions=True)
            assert {type(end).__name__ for end in ends} == {"UpstreamTimeout"}
            assert asyncio.get_running_loop().time() == pytest.approx(10.0)
            assert len(server.requests) == 2, "one call's tries"

    on_fake_clock(main())


def test_a_caller_who_leaves_hands_the_fetch_to_the_next():
    async def main() -> None:
        async with outside_of(hang, answer(body=posts(3))) as (outside, server):
            first = asyncio.create_task(outside.posts(5))
            await server.asked(1)
            second = asyncio.create_task(outside.posts(5))
            first.cancel()
            assert len((await second).items) == 3

    on_fake_clock(main())


async def test_a_summary_is_stored_with_the_name_of_its_writer(addresses: DatabaseSettings):
    async with service(addresses, answer(body=POST)) as (client, _):
        item = await make(client)
        await client.post(f"{API}/items/{item['id']}/enrich")
        summarised = (await client.post(f"{API}/items/{item['id']}/summary")).json()
        assert summarised["generator"] == "extractive"
        assert summarised["summary"] == "Buy milk. mine. theirs."
        kept = (await client.get(f"{API}/items/{item['id']}")).json()
        assert {**kept, "generator": "extractive"} == summarised
        assert (await client.post(f"{API}/items/{item['id']}/summary")).json()["summary"] == kept["summary"]


async def test_a_model_that_writes_nothing_leaves_the_item_as_it_was(clone: Database):
    async def blank(_: str) -> str:
        return " \0\n"

    item = await store.create(clone, NewItem("x"), Actor("robin", None))
    with pytest.raises(UpstreamFailed, match="model:small wrote nothing"):
        await summarise(clone, Summariser("model:small", blank), item.id, Actor("robin", None))
    assert await store.get(clone, item.id) == item


async def test_a_models_summary_is_kept_up_to_its_limit_without_nul(tx: Transaction):
    read: list[str] = []

    async def long(text: str) -> str:
        read.append(text)
        return "a\0b" + "x" * 5000

    item = await store.create(tx, NewItem("Buy milk", "two litres"), Actor("robin", None))
    done = await summarise(tx, Summariser("model:small", long), item.id, Actor("robin", None))
    assert read == ["Buy milk\ntwo litres"]
    assert (done.summary or "")[:4] == "abxx"
    assert len(done.summary or "") == 2000
    generator = Statement("generator", "SELECT summary_generator FROM app.item WHERE id = $1", Line)
    assert await tx.read_one(generator, item.id) == Line("model:small")
