"""More callers than the database can serve: some wait, some are refused at once, nobody else notices."""

import asyncio
from contextlib import asynccontextmanager

import asyncpg
import httpx
import msgspec
import pytest

from service.database.gateway import open_database
from service.database.stored_sql import limiter
from service.observe.events import CallersShed
from service.settings import Auth, Settings
from tests.conftest import _cloned, held, serving, store_metric, visible
from tests.live import watching
from tests.waiting import until

# A statement that runs until its gate is opened. Each number is a result of its own.
SET_UP = """
CREATE TABLE data.gate (open bool);
INSERT INTO data.gate VALUES (false);
CREATE FUNCTION data.passed(n int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    WHILE NOT (SELECT open FROM data.gate) LOOP PERFORM pg_sleep(0.005); END LOOP;
    RETURN n;
END $$;
GRANT SELECT ON data.gate TO PUBLIC;
CREATE TABLE data.counted (k int);
SELECT app.watch('data.counted');
"""
SLOW = "SELECT data.passed(:n::int) AS n"
QUICK = "SELECT :n::int AS n, count(*) AS rows FROM data.counted"


class Service:
    def __init__(self, url, client, connection, events):
        self.url, self.client, self.connection, self.events = url, client, connection, events
        self.slow = self.quick = None

    def caller(self, address):
        """A client at another address."""
        transport = httpx.ASGITransport(app=self.client._transport.app, client=(address, 40000))
        return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000")

    def ask(self, number, *, client=None, metric=None):
        address = f"/metrics/{metric or self.slow}?n={number}"
        return asyncio.create_task((client or self.client).get(address))

    async def running(self):
        sql = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%data.passed%'"
        return await self.connection.fetchval(f"{sql} AND pid <> pg_backend_pid()")

    async def open(self):
        await self.connection.execute("UPDATE data.gate SET open = true")


@asynccontextmanager
async def overloadable(server, template, **settings):
    events = []
    async with held(_cloned(server, template)) as addresses:
        connection = await asyncpg.connect(addresses.url)
        await connection.execute(SET_UP)
        database = msgspec.structs.replace(addresses, statement_timeout_ms=60_000, **settings)
        own = Settings(database=database, auth=Auth(mode="off"))
        async with held(serving(own, events.append)) as client:
            service = Service(addresses.url or "", client, connection, events)
            async with open_database(service.url, size=1) as database:
                service.slow = await store_metric(database, SLOW, trusted=True)
                service.quick = await store_metric(database, QUICK)
            await visible(client, service.quick)
            yield service
            await connection.execute("UPDATE data.gate SET open = true")
        await connection.close()


@pytest.fixture
async def service(server, template):
    async with held(overloadable(server, template)) as opened:
        yield opened


def refusals(answers):
    return [task.result() for task in answers if task.done() and task.result().status_code == 503]


async def test_three_hundred_at_once_wait_or_are_refused_and_everybody_else_is_served(service):
    hit = f"/metrics/{service.quick}?n=0"
    assert (await service.client.get(hit)).status_code == 200
    async with watching(service.client, f"/metrics/{service.quick}/events?n=1") as stream:
        assert (await stream.event()).data["records"] == [{"n": 1, "rows": 0}]
        answers = [service.ask(number) for number in range(300)]
        await until(lambda: len(refusals(answers)) >= 300 - 128 - 4)
        # What is held, what is pushed, health, and the metrics of others are not refused meanwhile.
        assert "hit" in (await service.client.get(hit)).headers["cache-status"]
        for path in ("/health/live", "/health/ready"):
            assert (await service.client.get(path)).status_code == 200
        await service.connection.execute("INSERT INTO data.counted VALUES (1)")
        assert (await stream.event()).data["records"] == [{"n": 1, "rows": 1}]
        for number in range(2, 30):
            assert (await service.ask(number, metric=service.quick)).status_code == 200
        assert await service.running() == 4
        await service.open()
    done = await asyncio.gather(*answers)
    served = [answer for answer in done if answer.status_code == 200]
    assert len(served) >= 4
    for answer in done:
        if answer not in served:
            assert (answer.status_code, answer.json()["code"]) == (503, "busy")
            assert int(answer.headers["retry-after"]) >= 1
    await until(lambda: sum(event.number for event in told_of(service)) == 300 - len(served))
    assert all(event.waiting <= 128 for event in told_of(service))


def told_of(service):
    return [event for event in service.events if isinstance(event, CallersShed)]


async def test_a_caller_who_would_wait_in_vain_is_told_before_its_patience_ends(service, monkeypatch):
    monkeypatch.setattr(limiter, "QUEUE_WAIT_S", 3600.0)
    answers = [service.ask(number) for number in range(60)]
    await until(lambda: len(refusals(answers)) >= 60 - 4 - 4)
    assert await service.running() == 4
    late = await service.ask(1000)
    assert (late.status_code, late.json()["code"]) == (503, "busy")
    await service.open()
    statuses = [answer.status_code for answer in await asyncio.gather(*answers)]
    assert statuses.count(200) == 8
    assert (await service.ask(1000)).status_code == 200


async def test_three_hundred_metrics_never_asked_for_are_refused_before_they_are_planned(service):
    async with open_database(service.url, size=1) as database:
        metrics = [await store_metric(database, SLOW, trusted=True) for _ in range(300)]
    await visible(service.client, metrics[-1])
    assert (await service.ask(1, metric=service.quick)).status_code == 200
    planned = services_of(service).executor._plans
    before = len(planned)
    answers = [service.ask(1, metric=metric) for metric in metrics]
    await until(lambda: len(refusals(answers)) >= 300 - 128)
    assert len(planned) <= before + 128
    assert {answer.headers["retry-after"] for answer in refusals(answers)} == {"1"}
    # A quick one of the same caller, and one of another caller, are served meanwhile.
    assert (await service.ask(2, metric=service.quick)).status_code == 200
    async with service.caller("192.0.2.9") as other:
        assert (await service.ask(3, client=other, metric=service.quick)).status_code == 200
    await service.open()
    done = await asyncio.gather(*answers)
    assert {answer.status_code for answer in done} <= {200, 503}
    await until(lambda: sum(event.number for event in told_of(service)) == len(refusals(answers)))


async def test_a_held_result_whose_plan_is_gone_is_served_while_others_are_refused(service):
    path = f"/metrics/{service.quick}?n=0"
    assert (await service.client.get(path)).status_code == 200
    answers = [service.ask(number) for number in range(300)]
    await until(lambda: len(refusals(answers)) >= 300 - 128 - 4)
    services_of(service).executor._drop(service.quick)
    held = await service.client.get(path, headers={"Cache-Control": "max-age=1000"})
    assert "hit" in held.headers["cache-status"]
    await service.open()
    await asyncio.gather(*answers)


@pytest.fixture
async def narrow(server, template):
    async with held(overloadable(server, template, reader_pool_size=1)) as opened:
        yield opened


async def test_callers_at_other_addresses_get_their_turn(narrow, monkeypatch):
    monkeypatch.setattr(limiter, "QUEUE_WAIT_S", 3600.0)
    monkeypatch.setattr(limiter, "LOOK_S", 3600.0)
    order = []

    def note(name):
        return lambda _task: order.append(name)

    async with narrow.caller("192.0.2.1") as hog, narrow.caller("192.0.2.2") as other:
        first = narrow.ask(0, client=hog)
        await until(narrow.running)
        tasks = [first]
        for number in range(1, 6):
            tasks.append(narrow.ask(number, client=hog))
            tasks[-1].add_done_callback(note("hog"))
        await until(lambda: waiting(narrow) == 5)
        tasks.append(narrow.ask(100, client=other))
        tasks[-1].add_done_callback(note("other"))
        await until(lambda: waiting(narrow) == 6)
        await narrow.open()
        assert {answer.status_code for answer in await asyncio.gather(*tasks)} == {200}
    assert order.index("other") <= 1


async def test_who_joined_the_run_of_a_refused_caller_tries_in_its_own_name(narrow, monkeypatch):
    monkeypatch.setattr(limiter, "QUEUE_WAIT_S", 3600.0)
    monkeypatch.setattr(limiter, "LOOK_S", 3600.0)
    async with narrow.caller("192.0.2.1") as hog, narrow.caller("192.0.2.2") as other:
        first = narrow.ask(0, client=hog)
        await until(narrow.running)
        shared = narrow.ask(1, client=hog)
        await until(lambda: waiting(narrow) == 1)
        joined = narrow.ask(1, client=other)
        await until(lambda: joiners(narrow) == 2)
        for place in tuple(queue_of(narrow)):
            limiter_of(narrow)._admission.leave(place)
            limiter_of(narrow)._expire(place)
        assert (await shared).status_code == 503
        await narrow.open()
        assert (await first).status_code == (await joined).status_code == 200


def services_of(service):
    """The parts of the running service."""
    app = service.client._transport.app
    while not hasattr(app, "state"):
        app = app._app
    return app.state.services


def limiter_of(service):
    return services_of(service).executor._reader._run_limiter


def waiting(service):
    return limiter_of(service)._admission.waiting


def queue_of(service):
    lines = limiter_of(service)._admission._lines.values()
    return [place for line in lines for flow in line.flows.values() for place in flow.waiters]


def joiners(service):
    flights = services_of(service).batcher._results._flights._running.values()
    return max(flight.waiters for flight in flights)
