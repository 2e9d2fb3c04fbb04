"""The WebSocket `/live`: many subscriptions, errors as messages, limits."""

import asyncio
from uuid import uuid4

import asyncpg
import pytest

from service.database.gateway import open_database
from service.settings import Auth, Live, Settings
from tests.conftest import _cloned, held, serving, store_metric, visible
from tests.live import conversing

COUNT = "SELECT count(*) AS n FROM data.counted WHERE k = :k"


@pytest.fixture(scope="module")
async def service(server, template):
    async with held(_cloned(server, template)) as addresses:
        connection = await asyncpg.connect(addresses.url)
        await connection.execute("CREATE TABLE data.counted (k int); SELECT app.watch('data.counted')")
        settings = Settings(database=addresses, auth=Auth(mode="off"), live=Live(heartbeat_s=0.2))
        async with held(open_database(addresses.url or "")) as database, held(serving(settings)) as client:
            metric = await store_metric(database, COUNT)
            await visible(client, metric)
            yield client, connection, database, metric
        await connection.close()


async def test_a_hundred_subscriptions_on_one_socket(service):
    client, connection, _, metric = service
    async with conversing(client) as socket:
        for k in range(1000, 1100):
            await socket.say(type="subscribe", id=metric, parameters={"k": k})
        found = [await socket.hear() for _ in range(100)]
        assert {each["parameters"]["k"] for each in found} == set(range(1000, 1100))
        assert {each["result"]["records"][0]["n"] for each in found} == {0}
        await connection.execute("INSERT INTO data.counted VALUES (1042)")
        while (changed := await socket.hear())["type"] in {"stale", "fresh"}:  # on a slow machine
            pass
        assert (changed["type"], changed["id"], changed["parameters"]) == ("result", metric, {"k": 1042})
        assert changed["result"]["records"] == [{"n": 1}]
        answer = await client.get(f"/metrics/{metric}?k=1042")
        assert changed["etag"] == answer.headers["ETag"]


async def test_with_auth_off_a_token_is_taken_and_says_nothing(service):
    async with conversing(service[0]) as socket:
        for token in ("", "anything", "a.b.c"):
            await socket.say(type="auth", token=token)
        await socket.say(type="ping")
        assert (await socket.hear())["type"] == "pong"


async def test_what_the_client_holds_is_not_sent(service):
    client, connection, _, metric = service
    etag = (await client.get(f"/metrics/{metric}?k=1")).headers["ETag"]
    async with conversing(client) as socket:
        await socket.say(type="subscribe", id=metric, parameters={"k": 1}, etag=etag)
        await socket.say(type="ping")
        assert (await socket.hear())["type"] == "pong"
        await connection.execute("INSERT INTO data.counted VALUES (1)")
        assert (await socket.hear())["result"]["records"] == [{"n": 1}]


async def test_an_ended_subscription_says_no_more(service):
    client, connection, _, metric = service
    async with conversing(client) as socket:
        for k in (2, 3):
            await socket.say(type="subscribe", id=metric, parameters={"k": k})
            await socket.hear()
        await socket.say(type="unsubscribe", id=metric, parameters={"k": 2})
        await socket.say(type="ping")
        assert (await socket.hear())["type"] == "pong"
        await connection.execute("INSERT INTO data.counted VALUES (2), (3)")
        assert (await socket.hear())["parameters"] == {"k": 3}


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "invalid-input"),
        ("no JSON", "invalid-input"),
        ("[]", "invalid-input"),
        ('{"type": "other"}', "invalid-input"),
        ('{"type": "subscribe"}', "invalid-input"),
        ('{"type": "subscribe", "id": "x"}', "invalid-input"),
        ('{"type": "subscribe", "id": "%s"}', "invalid-input"),
        ('{"type": "subscribe", "id": "%s", "parameters": {"k": "x"}}', "invalid-input"),
        ('{"type": "subscribe", "id": "00000000-0000-0000-0000-000000000000"}', "gone"),
        ('{"type": "unsubscribe", "id": "%s", "parameters": {"k": 9}}', "not-found"),
        ("[" * 5000, "invalid-input"),
    ],
)
async def test_a_bad_message_leaves_the_socket_open(service, text, code):
    client, _, _, metric = service
    async with conversing(client) as socket:
        await socket.say_text(text.replace("%s", metric))
        told = await socket.hear()
        assert told["type"] == ("gone" if code == "gone" else "error")
        assert told.get("code", "gone") == code
        await socket.say(type="ping")
        assert (await socket.hear())["type"] == "pong"


async def test_frames_rate_and_silence_are_limited(service, monkeypatch):
    client, _, _, _ = service
    async with conversing(client) as socket:
        await socket.say_text('"' + "x" * 70_000 + '"')
        assert [(await socket.hear())["code"], await socket.hear()] == ["too-large", 1009]
    async with conversing(client) as socket:
        for _ in range(201):
            await socket.say(type="ping")
        answers = [await socket.hear() for _ in range(202)]
        assert [answers[199]["type"], answers[200]["code"], answers[201]] == [
            "pong",
            "too-many-requests",
            1008,
        ]
    monkeypatch.setattr("service.live.sockets.SILENCE_S", 0.05)
    async with conversing(client) as socket:
        assert await socket.hear() == 1008


async def test_a_client_that_asks_and_never_reads_is_cut_off(service):
    client, _, _, _ = service
    async with conversing(client) as socket:
        socket.reads.clear()
        for _ in range(150):
            await socket.say(type="ping")
        await asyncio.sleep(0)
        socket.reads.set()
        while (message := await socket.hear()) != 1008:
            assert message["type"] == "pong"


async def test_a_deleted_metric_is_gone_on_its_subscription_alone(service):
    client, _, database, metric = service
    other = await store_metric(database, "SELECT 1 AS n")
    await visible(client, other)
    async with conversing(client) as socket:
        await socket.say(type="subscribe", id=other)
        await socket.hear()
        await client.delete(f"/metrics/{other}")
        assert await socket.hear() == {"type": "gone", "id": other, "parameters": {}}
        await socket.say(type="subscribe", id=metric, parameters={"k": uuid4().int % 1000 + 5000})
        assert (await socket.hear())["type"] == "result"
