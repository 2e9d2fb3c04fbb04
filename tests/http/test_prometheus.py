"""`/internal/prometheus`: what is counted, who may read it, and in which format."""

from contextlib import asynccontextmanager
from uuid import uuid4

import asyncpg
import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from service.app import configured, layered, routed
from service.app.monitor import _bounded
from service.database.queries import Command
from service.imports.quarantine import OpenRows
from service.observe.exposition import OPENMETRICS, TEXT
from tests.conftest import held, serving
from tests.live import watching
from tests.waiting import until

PATH = "/internal/prometheus"
NAMES = [
    "tally_requests_total", "tally_request_seconds", "tally_results_total", "tally_executions_total",
    "tally_execution_seconds", "tally_refreshes_total", "tally_pool_connections", "tally_pool_waiting",
    "tally_watchers", "tally_change_lag_seconds", "tally_imports_total", "tally_quarantine_open",
    "tally_auth_failures_total", "tally_callers_shed_total", "tally_connection_events_total",
    "tally_breaker_events_total", "tally_worker_events_total", "tally_alerts_total",
    "tally_alert_messages_total", "tally_result_bytes", "tally_build_info",
]  # fmt: skip
PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


async def scrape(client, **headers):
    answer = await client.get(PATH, headers=headers)
    assert answer.status_code == 200, answer.text
    read = read_openmetrics if answer.headers["content-type"] == OPENMETRICS else read_text
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in read(answer.text)
        for sample in family.samples
    }


class Counted:
    """What a scrape shows more than the one before."""

    def __init__(self, client):
        self.client, self.before = client, {}

    async def __aenter__(self):
        self.before = await scrape(self.client)
        return self

    async def __aexit__(self, *_):
        now = await scrape(self.client)
        self.more = {key: value - self.before.get(key, 0) for key, value in now.items()}

    def __getitem__(self, key):
        return self.more.get(key, 0)


@pytest.fixture(scope="module")
def service(shared_service):
    return shared_service


async def test_all_names_are_there_from_the_start(service):
    text = (await service.client.get(PATH)).text
    for name in NAMES:
        assert f"# TYPE {name} " in text
        assert f"# HELP {name} " in text


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ({}, TEXT),
        ({"Accept": "*/*"}, TEXT),
        ({"Accept": "text/plain"}, TEXT),
        ({"Accept": "application/json"}, TEXT),
        ({"Accept": "application/openmetrics-text"}, OPENMETRICS),
        ({"Accept": "application/openmetrics-text;q=0, */*"}, TEXT),
        ({"Accept": PROMETHEUS_2}, OPENMETRICS),
        ({"Accept": PROMETHEUS_3}, OPENMETRICS),
        ({"Accept": ';;q="\\, ,'}, TEXT),
    ],
)
async def test_the_format_is_that_of_accept(service, accept, media_type):
    answer = await service.client.get(PATH, headers=accept)
    assert answer.headers["content-type"] == media_type
    assert answer.headers["cache-control"] == "no-store"
    assert "Accept" in answer.headers["vary"]
    assert answer.text.endswith("# EOF\n") == (media_type == OPENMETRICS)
    await scrape(service.client, **accept)


async def test_misses_hits_and_forced_runs(service):
    [metric] = await service.store("SELECT count(*) AS n FROM customers")
    path = f"/api/v1/metrics/{metric}"
    async with Counted(service.client) as counted:
        for headers in ({}, {}, {}, {"Cache-Control": "no-cache"}):
            assert (await service.client.get(path, headers=headers)).status_code == 200
        etag = (await service.client.get(path)).headers["etag"]
        assert (await service.client.get(path, headers={"If-None-Match": etag})).status_code == 304
    assert counted["tally_results_total", "miss"] == 2
    assert counted["tally_results_total", "hit"] == 4
    assert counted["tally_executions_total", metric] == 2
    assert counted["tally_execution_seconds_count",] == 2
    route = "/api/v1/metrics/{metric_id}"
    assert counted["tally_requests_total", route, "GET", "200"] == 5
    assert counted["tally_requests_total", route, "GET", "304"] == 1
    assert counted["tally_request_seconds_count",] == 7  # with the first scrape
    assert counted["tally_requests_total", PATH, "GET", "200"] == 1


async def test_hostile_requests_are_counted_in_few_series(service):
    async with Counted(service.client) as counted:
        for number in range(50):
            await service.client.request(f"ODD{number}", f'/{uuid4()}"}}%201%0A')
            await service.client.post(f'/imports/nothing"{number}', content=b"a\n1\n")
            await service.client.get(f"/metrics/{uuid4()}")
    odd = [key for key in counted.more if key not in counted.before and "tally_requests" in key[0]]
    assert len(odd) <= 4
    assert [key for key in counted.more if "nothing" in str(key)] == []


async def test_imports_and_open_rows(service, monkeypatch):
    monkeypatch.setattr("service.app.monitor.COUNT_EVERY_S", 0.0)
    csv = b"Customer_ID,Occupation,Type\n910001,Cook,Gold\nx,Cook,Gold\n"
    async with Counted(service.client) as counted:
        answer = await service.client.post(
            "/imports/customers", content=csv, headers={"Content-Type": "text/csv"}
        )
        assert answer.json()["quarantined"] == 1
    assert counted["tally_imports_total", "customers", "done"] == 1
    assert counted["tally_quarantine_open", "customers"] == 1


async def test_open_rows_of_the_largest_datasets_are_shown_and_the_others_summed():
    rows = [OpenRows(f"d{number}", number) for number in range(1, 121)]
    shown = {labels[0]: value for _, labels, value in _bounded(rows)}
    assert len(shown) == 101
    assert shown["d120"] == 120
    assert shown["other"] == sum(range(1, 21))


async def test_pools_caches_and_lag(service):
    [metric] = await service.store("SELECT 1 AS n")
    await service.client.get(f"/metrics/{metric}")
    found = await until(lambda: _settled(service.client))
    assert found["tally_pool_connections", "reader", "used"] == 0
    assert found["tally_pool_connections", "reader", "idle"] > 0
    assert found["tally_pool_connections", "owner", "idle"] > 0
    assert found["tally_pool_waiting",] == 0
    assert found["tally_result_bytes",] > 1000
    assert found["tally_watchers",] == 0


async def _settled(client):
    found = await scrape(client)
    return found if found["tally_change_lag_seconds",] == 0 else None


async def test_a_lost_database_shows_and_the_scrape_still_answers(settings):
    async with serving(settings) as client:
        await until(lambda: _settled(client))
        admin = await asyncpg.connect(settings.database.url)
        await admin.execute(f'ALTER DATABASE "{settings.database.url.rsplit("/", 1)[1]}" CONNECTION LIMIT 0')
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )

        async def lags():
            return (await scrape(client))["tally_change_lag_seconds",] > 0

        await until(lags)
        await admin.execute(f'ALTER DATABASE "{settings.database.url.rsplit("/", 1)[1]}" CONNECTION LIMIT -1')
        await admin.close()
        await until(lambda: _settled(client))


@asynccontextmanager
async def calling(settings, address, host="127.0.0.1:8000"):
    """A caller at an address."""
    app = configured(routed(), settings)
    async with held(app.lifespan()):
        transport = httpx.ASGITransport(app=layered(app), client=(address, 4321))  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url=f"http://{host}") as client:
            yield client


async def test_programs_on_this_machine_need_no_token(visitor):
    assert (await visitor.get(PATH)).status_code == 200
    assert (await visitor.get(PATH, headers={"Host": "localhost:8000"})).status_code == 200
    assert (await visitor.get(PATH, headers={"Authorization": "Bearer a.b.c"})).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Forwarded": "for=192.0.2.1"},
        {"X-Forwarded-For": "127.0.0.1"},
        {"x-forwarded-for": ""},
        {"X-Real-IP": "127.0.0.1"},
        {"Via": "1.1 proxy"},
        {"Host": "rebound.example"},
        {"Host": "127.0.0.1.example"},
        {"Origin": "http://evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
    ids=str,
)
async def test_what_comes_through_a_proxy_or_a_foreign_page_needs_a_token(visitor, token, headers):
    refused = await visitor.get(PATH, headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (401, "unauthorized")
    assert (await visitor.get(PATH, headers=headers | token("metrics:read"))).status_code == 403
    assert (await visitor.get(PATH, headers=headers | token("admin"))).status_code == 200


async def test_other_machines_need_the_scope_admin(guarded, token):
    async with calling(guarded, "192.0.2.7") as client:
        assert (await client.get(PATH)).status_code == 401
        assert (await client.get(PATH, headers=token("metrics:read"))).status_code == 403
        assert (await client.get(PATH, headers=token("admin"))).status_code == 200
        async with Counted(_with(client, token("admin"))) as counted:
            await client.get(PATH)
            await client.get(PATH, headers=token("metrics:read"))
        assert counted["tally_auth_failures_total", "unauthorized"] == 1
        assert counted["tally_auth_failures_total", "forbidden"] == 1
    async with calling(guarded, "::ffff:127.0.0.1") as client:
        assert (await client.get(PATH)).status_code == 200


class _with:  # noqa: N801 (reads as a word)
    def __init__(self, client, headers):
        self.client, self.headers = client, headers

    async def get(self, path, headers):
        return await self.client.get(path, headers=self.headers | headers)


async def test_a_page_of_another_site_cannot_read_it_with_auth_off(service):
    answer = await service.client.get(PATH, headers={"Origin": "http://evil.example"})
    assert answer.status_code == 403


async def test_unknown_parameters_and_methods_are_refused(service):
    assert (await service.client.get(f"{PATH}?name=tally")).status_code == 422
    assert (await service.client.post(PATH)).status_code == 405
    assert (await service.client.head(PATH)).status_code == 200


async def test_open_streams_are_watchers(service):
    [metric] = await service.store("SELECT 1 AS n")

    async def watchers():
        return (await scrape(service.client))["tally_watchers",]

    async with watching(service.client, f"/metrics/{metric}/events") as stream:
        await stream.event()
        assert await watchers() == 1

    async def left():
        return await watchers() == 0

    await until(left)


async def test_a_change_of_a_watched_table_is_a_refresh(service):
    [metric] = await service.store("SELECT count(*) AS n FROM products_of_discussion")
    async with (
        watching(service.client, f"/metrics/{metric}/events") as stream,
        Counted(service.client) as counted,
    ):
        await stream.event()
        await service.database.write(
            Command("c", "INSERT INTO data.products_of_discussion VALUES ('2025-01-01', 'Bird')")
        )
        await stream.event()
    assert counted["tally_refreshes_total",] >= 1
    assert counted["tally_executions_total", metric] >= 1
