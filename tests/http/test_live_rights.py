"""Who may watch, for how long, and what the rows are that each may see."""

import asyncpg
import msgspec
import pytest

from service.auth import clients
from service.auth.issuer import Issuer, KeyFile
from service.auth.live import AUDIENCE
from service.database.gateway import open_database
from service.settings import Auth, Live, Settings
from tests.conftest import _cloned, held, serving, store_metric
from tests.live import conversing, watching
from tests.waiting import until

READ = ("metrics:read",)


class Guarded:
    def __init__(self, settings, client, database, connection):
        self.settings, self.client, self.database, self.connection = settings, client, database, connection
        self.keys = KeyFile(settings.database.data_dir)
        self.issuer = Issuer(settings.public_url, self.keys)

    def token(self, subject="ann", scopes=READ, ttl_s=600, **more):
        return self.issuer.sign(subject, scopes, ttl_s, **more)

    def header(self, *args, **more):
        return {"Authorization": f"Bearer {self.token(*args, **more)}"}

    async def metric(self, sql="SELECT 1 AS n"):
        metric = await store_metric(self.database, sql)

        async def known():
            answer = await self.client.get(f"/metrics/{metric}/versions", headers=self.header())
            return answer.status_code == 200

        await until(known)
        return metric

    async def ticket(self, **headers):
        answer = await self.client.post("/live/tickets", headers=headers)
        assert (answer.status_code, answer.json()["expires_in"]) == (201, 60)
        return answer.json()["ticket"]


@pytest.fixture(scope="module")
async def guarded(server, template, tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    async with held(_cloned(server, template)) as addresses:
        settings = Settings(
            database=msgspec.structs.replace(addresses, data_dir=folder),
            auth=Auth(),
            live=Live(heartbeat_s=0.2, streams_per_caller=3),
        )
        connection = await asyncpg.connect(addresses.url)
        async with held(open_database(addresses.url or "")) as database, held(serving(settings)) as client:
            yield Guarded(settings, client, database, connection)
        await connection.close()


async def test_a_stream_needs_a_token_with_the_scope(guarded):
    metric = await guarded.metric()
    path = f"/metrics/{metric}/events"
    for headers, status in (({}, 401), (guarded.header(scopes=("items:read",)), 403)):
        async with watching(guarded.client, path, **headers) as stream:
            assert stream.status == status
    async with watching(guarded.client, path, **guarded.header()) as stream:
        assert (await stream.event()).n == 1


async def test_a_ticket_opens_a_stream_and_nothing_else(guarded):
    metric = await guarded.metric()
    ticket = await guarded.ticket(**guarded.header())
    async with watching(guarded.client, f"/metrics/{metric}/events?ticket={ticket}") as stream:
        assert (await stream.event()).n == 1
    for path in (f"/metrics/{metric}?ticket={ticket}", "/metrics"):
        answer = await guarded.client.get(path, headers={"Authorization": f"Bearer {ticket}"})
        assert answer.status_code == 401
    assert (await guarded.client.get(f"/metrics/{metric}?ticket={ticket}")).status_code == 401
    for wrong in (guarded.token(), ticket[:-8], guarded.issuer.sign(AUDIENCE, READ, -60, audience=AUDIENCE)):
        async with watching(guarded.client, f"/metrics/{metric}/events?ticket={wrong}") as stream:
            assert stream.status == 401


async def test_a_stream_ends_with_its_token(guarded):
    metric = await guarded.metric()
    short = guarded.header(ttl_s=-28)  # accepted for two more seconds
    path = f"/metrics/{metric}/events"
    ticket = await guarded.ticket(**short)
    async with (
        watching(guarded.client, path, **short) as by_token,
        watching(guarded.client, f"{path}?ticket={ticket}") as by_ticket,
        watching(guarded.client, path, **guarded.header("bob")) as other,
    ):
        for stream in (by_token, by_ticket):
            assert (await stream.event()).name == "result"
            assert (await stream.event()).name == "denied"
            assert await stream.event() is None
        assert (await other.event()).n == 1
        assert not other.ended


async def test_a_revoked_client_is_denied_at_once(guarded):
    metric = await guarded.metric()
    await clients.add(guarded.database, "poller", READ, chosen=None, actor="test")
    path = f"/metrics/{metric}/events"
    token = guarded.header("poller")
    ticket = await guarded.ticket(**token)
    async with (
        watching(guarded.client, path, **token) as stream,
        conversing(guarded.client, **token) as socket,
    ):
        await stream.event()
        await clients.revoke(guarded.database, "poller", actor="test")
        assert (await stream.event()).name == "denied"
        assert [(await socket.hear())["type"], await socket.hear()] == ["denied", 1008]
    for again, headers in ((path, token), (f"{path}?ticket={ticket}", {})):
        async with watching(guarded.client, again, **headers) as stream:
            assert stream.status == 401


async def test_a_withdrawn_key_ends_its_streams(guarded, monkeypatch):
    metric = await guarded.metric()
    header = guarded.header("carl")
    ticket = await guarded.ticket(**header)
    path = f"/metrics/{metric}/events"
    async with watching(guarded.client, path, **header) as one:
        await one.event()
        async with watching(guarded.client, f"{path}?ticket={ticket}") as other:
            await other.event()
            guarded.keys.rotate(overlap_s=0)
            assert {(await one.event()).name, (await other.event()).name} == {"denied"}


async def test_each_caller_sees_the_rows_of_its_claims(guarded):
    await guarded.connection.execute("""
        CREATE TABLE data.owned (who text, n int); SELECT app.watch('data.owned');
        ALTER TABLE data.owned ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON data.owned
            USING (who = current_setting('request.claims', true)::json ->> 'sub');
        INSERT INTO data.owned VALUES ('ann', 1), ('bob', 2);
    """)
    metric = await guarded.metric("SELECT sum(n) AS n FROM data.owned")
    path = f"/metrics/{metric}/events"
    ticket = await guarded.ticket(**guarded.header("bob"))
    async with (
        watching(guarded.client, path, **guarded.header("ann")) as ann,
        watching(guarded.client, f"{path}?ticket={ticket}") as bob,
    ):
        assert [(await each.event()).n for each in (ann, bob)] == [1, 2]
        await guarded.connection.execute("INSERT INTO data.owned VALUES ('bob', 5)")
        assert (await bob.event()).n == 7
        await guarded.connection.execute("INSERT INTO data.owned VALUES ('ann', 9)")
        assert (await ann.event()).n == 10


async def test_a_caller_has_a_number_of_streams(guarded):
    metric = await guarded.metric()
    path, header = f"/metrics/{metric}/events", guarded.header("dora")
    async with (
        watching(guarded.client, path, **header),
        watching(guarded.client, path, **header),
        conversing(guarded.client, **header),
    ):
        async with watching(guarded.client, path, **header) as further:
            assert (further.status, further.problem["code"]) == (429, "too-many-streams")
            assert further.headers["retry-after"]
        async with conversing(guarded.client, **header) as further:
            assert (further.accepted, further.status) == (False, 429)
        async with watching(guarded.client, path, **guarded.header("emma")) as other:
            assert other.status == 200
    async with watching(guarded.client, path, **header) as stream:
        assert stream.status == 200


async def test_a_process_has_a_number_of_streams(guarded):
    metric = await guarded.metric()
    few = msgspec.structs.replace(guarded.settings, live=Live(streams=1))
    path = f"/metrics/{metric}/events"
    async with (
        serving(few) as client,
        watching(client, path, **guarded.header()),
        watching(client, path, **guarded.header("bob")) as further,
    ):
        assert (further.status, further.problem["code"]) == (503, "live-unavailable")


@pytest.mark.parametrize("by", ["header", "ticket", "message", "ticket in a message"])
async def test_a_socket_takes_its_token_in_several_ways(guarded, by):
    metric = await guarded.metric()
    header = guarded.header("frida")
    ticket = await guarded.ticket(**header)
    path = f"/live?ticket={ticket}" if by == "ticket" else "/live"
    async with conversing(guarded.client, path, **(header if by == "header" else {})) as socket:
        if "message" in by:
            await socket.say(type="subscribe", id=metric)
            assert (await socket.hear())["code"] == "unauthorized"
            await socket.say(type="auth", token="wrong")
            assert (await socket.hear())["code"] == "invalid-token"
            await socket.say(type="auth", token=ticket if "ticket" in by else header["Authorization"][7:])
        await socket.say(type="subscribe", id=metric)
        assert (await socket.hear())["type"] == "result"


async def test_a_socket_without_a_token_is_closed(guarded, monkeypatch):
    monkeypatch.setattr("service.live.sockets.TOKEN_WAIT_S", 0.05)
    async with conversing(guarded.client) as socket:
        assert await socket.hear() == 1008
    async with conversing(guarded.client, "/live?ticket=wrong") as socket:
        assert (socket.accepted, socket.status) == (False, 401)


async def test_few_sockets_wait_for_their_token(guarded, monkeypatch):
    monkeypatch.setattr("service.live.places.ANONYMOUS", 2)
    async with conversing(guarded.client) as first, conversing(guarded.client):
        async with conversing(guarded.client) as further:
            assert (further.accepted, further.status) == (False, 429)
        async with conversing(guarded.client, **guarded.header("greta")) as known:
            assert known.accepted
        await first.say(type="auth", token=guarded.token("hugo"))
        await first.say(type="ping")
        assert (await first.hear())["type"] == "pong"
        async with conversing(guarded.client) as further:
            assert further.accepted


async def test_pages_of_other_sites_open_no_socket_without_tokens(guarded):
    settings = msgspec.structs.replace(guarded.settings, auth=Auth(mode="off"))
    metric = await guarded.metric()
    async with serving(settings) as client:
        async with conversing(client, Origin="http://evil.example") as socket:
            assert (socket.accepted, socket.status) == (False, 403)
        async with watching(client, f"/metrics/{metric}/events", Origin="http://evil.example") as stream:
            assert stream.status == 200
            assert "access-control-allow-origin" not in stream.headers
