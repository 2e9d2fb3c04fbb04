"""What the service tells `observe`: each event, from a real request or a real fault."""

import asyncio
from uuid import UUID

import asyncpg
import pytest

from service.database.gateway import open_database
from service.database.queries import Command
from service.observe.events import (
    AuthFailed,
    ChangeHeard,
    ConnectionLost,
    ConnectionRestored,
    HitsServed,
    ImportDone,
    QueryRun,
    RequestDone,
    ResultRefreshed,
    ResultServed,
)
from service.settings import Auth, Settings
from tests.conftest import _cloned, held, serving, store_metric, visible
from tests.waiting import until

CUSTOMERS = b"Customer_ID,Occupation,Type\n900001,Cook,Gold\n"
COUNT = "SELECT count(*) AS n FROM customers"


class Service:
    def __init__(self, client, owner, events):
        self.client, self.owner, self.events = client, owner, events

    def told(self, kind):
        return [event for event in self.events if isinstance(event, kind)]

    async def metric(self, sql, *, trusted=False):
        metric = await store_metric(self.owner, sql, trusted=trusted)
        await visible(self.client, metric)
        self.events.clear()
        return metric


@pytest.fixture(scope="module")
async def shared(server, template):
    events = []
    async with (
        held(_cloned(server, template)) as addresses,
        held(open_database(addresses.url or "")) as database,
        held(serving(Settings(database=addresses, auth=Auth(mode="off")), events.append)) as client,
    ):
        yield Service(client, database, events), addresses


@pytest.fixture(scope="module")
async def strict(shared):
    events = []
    async with held(serving(Settings(database=shared[1]), events.append)) as client:
        yield client, events


@pytest.fixture
def service(shared):
    return shared[0]


async def test_a_request_a_run_and_the_ways_to_serve_its_result(service):
    metric = await service.metric(COUNT)
    path = f"/api/v1/metrics/{metric}"
    for headers in ({}, {"Cache-Control": "max-age=3600"}, {}):
        assert (await service.client.get(path, headers=headers)).status_code == 200
    requests = service.told(RequestDone)
    assert [(each.method, each.path, each.status) for each in requests] == 2 * [("GET", path, 200)]
    assert all(each.bytes > 0 and each.duration > 0 for each in requests)
    [run] = service.told(QueryRun)
    assert (run.metric_id, run.rows, run.problem) == (UUID(metric), 1, None)
    assert run.bytes > 0
    assert run.duration >= run.waited >= 0
    assert [each.outcome for each in service.told(ResultServed)] == ["miss", "hit"]


async def test_hits_are_told_in_sums(service):
    metric = await service.metric(COUNT)
    path, route = f"/metrics/{metric}", "/api/v1/metrics/{metric_id}"

    def told(method):
        kinds = dict(kind for each in service.told(HitsServed) for kind in each.requests)
        return kinds.get((route, method, 200), 0)

    for method in ("GET", "HEAD"):
        await service.client.request(method, path)
    await until(lambda: told("HEAD") == 1)  # and all hits before
    assert len(service.told(ResultServed)) == 1
    service.events.clear()
    for _ in range(5):
        await service.client.get(path)
    await until(lambda: sum(each.number for each in service.told(HitsServed)) == 5)
    assert len(service.told(HitsServed)) < 5
    assert all(0 < each.duration < 1 for each in service.told(HitsServed))
    assert service.told(RequestDone) == service.told(ResultServed) == []


async def test_a_stale_result_is_refreshed_and_a_missing_one_is_not(service):
    metric = await service.metric(COUNT)
    await service.client.get(f"/metrics/{metric}")
    assert service.told(ResultRefreshed) == []
    await service.owner.write(Command("c", "INSERT INTO data.customers VALUES (900009, 'Cook', 'Gold')"))
    assert await until(lambda: service.told(ResultRefreshed))


@pytest.mark.parametrize(
    ("method", "path", "headers", "reason"),
    [
        ("GET", "/metrics", {}, "unauthorized"),
        ("GET", "/metrics", {"Authorization": "Bearer a.b.c"}, "invalid-token"),
        ("GET", f"/metrics/{UUID(int=1)}", {}, "unauthorized"),
        ("GET", f"/metrics/{UUID(int=1)}/events", {}, "unauthorized"),
        ("POST", "/oauth2/token", {"Authorization": "Basic eDp5"}, "invalid_client"),
        ("GET", "/nowhere", {}, "unauthorized"),
    ],
)
async def test_a_caller_who_is_refused_is_told_with_the_reason(strict, method, path, headers, reason):
    client, events = strict
    events.clear()
    form = {"grant_type": "client_credentials"} if method == "POST" else None
    answer = await client.request(method, path, headers=headers, data=form)
    assert answer.status_code == 401
    assert [each.reason for each in events if isinstance(each, AuthFailed)] == [reason]


async def test_a_request_that_joins_a_run_is_told_as_joined(service):
    metric = await service.metric("SELECT pg_sleep(0.5) IS NULL AS n", trusted=True)
    await asyncio.gather(*(service.client.get(f"/metrics/{metric}") for _ in range(3)))
    assert sorted(each.outcome for each in service.told(ResultServed)) == ["joined", "joined", "miss"]


async def test_a_batch_tells_each_tile(service):
    metric = await service.metric(COUNT)
    for _ in range(2):
        await service.client.post("/metrics/batch", json={"metrics": [{"id": metric}]})
    assert [each.outcome for each in service.told(ResultServed)] == ["miss", "hit"]


async def test_a_failed_run_tells_its_problem(service):
    metric = await service.metric("SELECT 1 / (count(*) - count(*)) AS n FROM customers")
    answer = await service.client.get(f"/metrics/{metric}")
    assert [each.problem for each in service.told(QueryRun)] == [answer.json()["code"]]


async def test_the_route_of_a_request_is_told_as_a_template(service):
    metric = await service.metric(COUNT)
    paths = ("/api/v1/metrics/{metric_id}", "/api/v1/metrics/{metric_id}/definition", "/health/live")
    for method in ("GET", "HEAD"):
        for path in paths:
            headers = {"Cache-Control": "max-age=3600"}  # the request is no plain hit
            await service.client.request(method, path.format(metric_id=metric), headers=headers)
    requests = [(each.method, each.route) for each in service.told(RequestDone)]
    assert requests == [(method, path) for method in ("GET", "HEAD") for path in paths]


async def test_an_import_and_the_change_that_it_makes(service):
    await service.metric(COUNT)
    answer = await service.client.post(
        "/imports/customers", content=CUSTOMERS, headers={"Content-Type": "text/csv"}
    )
    assert answer.status_code == 201, answer.text
    [done] = service.told(ImportDone)
    assert (done.dataset, done.status, done.rows, done.quarantined) == ("customers", "done", 1, 0)
    changes = await until(
        lambda: [each for each in service.told(ChangeHeard) if each.table == "data.customers"]
    )
    assert changes[0].transaction > 0


async def test_a_refused_file_is_told_too(service):
    await service.metric(COUNT)
    answer = await service.client.post(
        "/imports/customers", content=b"nothing\n1\n", headers={"Content-Type": "text/csv"}
    )
    assert [each.status for each in service.told(ImportDone)] == [answer.json()["code"]]


async def test_the_loss_and_the_return_of_announcements(shared):
    service, addresses = shared
    await service.metric(COUNT)
    admin = await asyncpg.connect(addresses.url)
    await admin.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'tally listen' AND datname = current_database()"
    )
    await admin.close()
    await until(lambda: service.told(ConnectionRestored))
    assert service.told(ConnectionLost) == [ConnectionLost("announcements")]
    assert service.told(ConnectionRestored) == [ConnectionRestored("announcements")]
