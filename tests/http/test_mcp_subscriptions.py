"""`subscriptions/listen`: which changes are told, to whom, and how a stream ends."""

import json
from contextlib import asynccontextmanager
from uuid import uuid4

import asyncpg
import msgspec
import pytest

from service.auth.issuer import Issuer, KeyFile
from service.connect.mcp.server import MOST_FOLLOWED
from service.database.gateway import open_database
from service.settings import Auth, Live, Settings
from tests.conftest import _cloned, held, serving, store_metric, visible
from tests.http.mcp import SUBSCRIPTION, Assistant, headers_of, message, uri
from tests.live import nothing_more, watching
from tests.waiting import until

UPDATED = "notifications/resources/updated"
LISTED = "notifications/resources/list_changed"
OPENED = "notifications/subscriptions/acknowledged"


class Service:
    def __init__(self, client, connection, database):
        self.client, self.connection, self.database = client, connection, database

    async def metric(self, sql="SELECT count(*) AS n FROM data.told WHERE k = :k", **fields):
        metric = await store_metric(self.database, sql, **fields)
        await visible(self.client, metric)
        return metric

    async def write(self, k):
        await self.connection.execute(f"INSERT INTO data.told VALUES ({k})")


@pytest.fixture(scope="module")
async def service(server, template):
    async with held(_cloned(server, template)) as addresses:
        connection = await asyncpg.connect(addresses.url)
        await connection.execute("CREATE TABLE data.told (k int); SELECT app.watch('data.told')")
        settings = Settings(database=addresses, auth=Auth(mode="off"), live=Live(heartbeat_s=0.2))
        async with (
            held(open_database(addresses.url or "")) as database,
            held(serving(settings)) as client,
        ):
            yield Service(client, connection, database)
        await connection.close()


@pytest.fixture
def k():
    return uuid4().int % 2**31


def asking(*uris, request_id="listen-1", **more):
    return message(
        "subscriptions/listen",
        {"notifications": {"resourceSubscriptions": list(uris), **more}},
        request_id=request_id,
    )


@asynccontextmanager
async def listening(client, said, **headers):
    fields = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
    sent = fields | {name.lower(): value for name, value in headers_of(said).items()} | headers
    async with watching(client, "/mcp", json.dumps(said).encode(), **sent) as stream:
        yield stream


async def told(stream):
    event = await stream.event()
    assert event.name == "message"
    assert event.data["jsonrpc"] == "2.0"
    return event.data


async def opened(stream, request_id="listen-1"):
    first = await told(stream)
    assert first["method"] == OPENED
    assert first["params"]["_meta"] == {SUBSCRIPTION: request_id}
    return first["params"]["notifications"]


async def test_a_changed_result_is_told_once_and_others_are_not(service, k):
    metric = await service.metric()
    mine = uri(metric, f"?k={k}")
    async with listening(service.client, asking(mine)) as stream:
        assert (stream.status, stream.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        assert await opened(stream) == {"resourceSubscriptions": [mine]}
        await service.write(k + 1)
        await service.write(k)
        change = await told(stream)
        assert change == {
            "jsonrpc": "2.0", "method": UPDATED, "params": {"uri": mine, "_meta": {SUBSCRIPTION: "listen-1"}}
        }  # fmt: skip
        read = await Assistant(service.client).ask("resources/read", {"uri": mine})
        assert json.loads(read["contents"][0]["text"])["records"] == [{"n": 1}]
        await service.write(k)
        assert (await told(stream))["params"]["uri"] == mine


async def test_several_resources_and_the_list(service, k):
    metric = await service.metric()
    uris = [uri(metric, f"?k={k + n}") for n in range(3)]
    said = asking(*uris, uris[0], resourcesListChanged=True, toolsListChanged=True, request_id=7)
    async with listening(service.client, said) as stream:
        assert await opened(stream, 7) == {"resourceSubscriptions": uris, "resourcesListChanged": True}
        await service.write(k + 2)
        assert (await told(stream))["params"]["uri"] == uris[2]
        await service.metric("SELECT 2 AS n")
        assert (await told(stream))["method"] == LISTED


async def test_a_changed_and_a_deleted_definition_are_told(service):
    metric = await service.metric("SELECT 1 AS n")
    async with listening(service.client, asking(uri(metric))) as stream:
        await opened(stream)
        await service.client.patch(f"/metrics/{metric}", json={"sql": "SELECT 2 AS n"})
        assert (await told(stream))["method"] == UPDATED
        await service.client.delete(f"/metrics/{metric}")
        assert (await told(stream))["method"] == UPDATED
    status, error = await Assistant(service.client).fail("resources/read", {"uri": uri(metric)})
    assert (status, error["code"]) == (400, -32602)


async def test_a_stream_without_filters_is_only_opened(service):
    async with listening(service.client, message("subscriptions/listen", {"notifications": {}})) as stream:
        assert await opened(stream, 1) == {}


async def test_nothing_is_told_while_nothing_changes(service, k):
    metric = await service.metric()
    async with listening(service.client, asking(uri(metric, f"?k={k}"))) as stream:
        await opened(stream)
        written = stream.written
        await until(lambda: stream.written > written + 2)  # heartbeats
        while (said := await nothing_more(stream)) is not None:
            assert said["body"] == b":\n\n"


async def test_the_service_that_stops_ends_the_stream_with_a_result(service, server, template):
    async with held(_cloned(server, template)) as addresses, open_database(addresses.url or "") as database:
        metric = await store_metric(database, "SELECT 1 AS n")
        async with (
            serving(Settings(database=addresses, auth=Auth(mode="off"))) as client,
            listening(client, asking(uri(metric))) as stream,
        ):
            await opened(stream)
            client.service.state.services.streams.hub.drain()
            last = await told(stream)
            assert (last["id"], last["result"]["resultType"]) == ("listen-1", "complete")
            assert last["result"]["_meta"][SUBSCRIPTION] == "listen-1"
            assert await stream.event() is None


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({}, "notifications"),
        ({"notifications": []}, "params.notifications"),
        ({"notifications": {"resourceSubscriptions": "x"}}, "resourceSubscriptions"),
        ({"notifications": {"resourceSubscriptions": ["x"]}}, "tally://metrics/"),
        ({"notifications": {"resourceSubscriptions": [uri(uuid4())]}}, "There is no metric"),
        ({"notifications": {"resourceSubscriptions": ["METRIC?k=x"]}}, "k"),
        ({"notifications": {"resourceSubscriptions": ["METRIC?k=1&k=1"]}}, "more than once"),
        ({"notifications": {"resourceSubscriptions": ["METRIC?k=1&l=1"]}}, "l"),
        ({"notifications": {"resourceSubscriptions": ["x"] * (MOST_FOLLOWED + 1)}}, "at most"),
    ],
)
async def test_wrong_filters_are_refused(service, params, words):
    metric = await service.metric()
    text = json.dumps(params).replace("METRIC", uri(metric))
    connections = len(service.client.service.state.services.streams.hub.connections)
    status, error = await Assistant(service.client).fail("subscriptions/listen", json.loads(text))
    assert (status, error["code"], words in error["message"]) == (400, -32602, True), error
    assert len(service.client.service.state.services.streams.hub.connections) == connections


async def test_a_stream_has_to_be_accepted_and_is_of_2026(service):
    said = asking()
    async with listening(service.client, said, accept="application/json") as stream:
        assert (stream.status, stream.problem["code"]) == (406, "not-acceptable")
    _, error = await Assistant(service.client, modern=False).fail(
        "subscriptions/listen", said["params"] | {"_meta": {}}
    )
    assert error["code"] == -32601


async def test_a_caller_has_a_number_of_streams_and_loses_them_with_the_token(
    server, template, tmp_path_factory
):
    folder = tmp_path_factory.mktemp("keys")
    async with held(_cloned(server, template)) as addresses, open_database(addresses.url or "") as database:
        own = msgspec.structs.replace(addresses, data_dir=folder)
        settings = Settings(database=own, auth=Auth(), live=Live(heartbeat_s=0.2, streams_per_caller=1))
        metric = await store_metric(database, "SELECT 1 AS n")
        keys = KeyFile(folder)
        header = {
            "authorization": f"Bearer {Issuer(settings.public_url, keys).sign('ann', ['metrics:read'])}"
        }
        async with serving(settings) as client:
            async with listening(client, asking(uri(metric)), **header) as stream:
                await opened(stream)
                async with listening(client, asking(uri(metric)), **header) as second:
                    assert (second.status, second.problem["code"]) == (429, "too-many-streams")
                keys.rotate(overlap_s=0)
                last = await told(stream)
                assert (last["id"], "error" in last) == ("listen-1", True)
                assert await stream.event() is None
            async with listening(client, asking(uri(metric))) as stream:
                assert stream.status == 401
