"""The JavaScript client and the service itself: pages that change without a reload, whatever lies between."""

import asyncio
import signal
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from msgspec import Struct
from playwright.async_api import Page

from service.auth.issuer import Issuer, KeyFile
from service.settings import Database
from tests.browser.conftest import Tabs
from tests.browser.proxy import Proxy
from tests.browser.test_live_client import HIDE, QUICK, shows, told
from tests.loopback import calling
from tests.processes import free_port, start, until_ready
from tests.waiting import until

COUNT = "SELECT count(*) AS n FROM customers WHERE customer_id > :above"
FROM = {"above": 0}


class Site(Struct):
    """A service behind a proxy that gives the page, and its database."""

    proxy: Proxy
    port: int
    owner: asyncpg.Connection
    client: httpx.AsyncClient
    variables: dict[str, object]
    process: subprocess.Popen[str]

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self.port}/api/v1"

    async def write(self, number: int = 1) -> None:
        """Add customers."""
        sql = (
            "INSERT INTO data.customers SELECT n, 'Cook', 'Gold' FROM generate_series(1, $1) AS n"
            " WHERE NOT EXISTS (SELECT FROM data.customers WHERE customer_id = n)"
        )
        await self.owner.execute(sql, number)

    async def metric(self, sql: str = COUNT) -> str:
        return (await self.client.post("/metrics", json={"sql": sql})).raise_for_status().json()["id"]

    async def stop(self, by: int = signal.SIGTERM) -> None:
        self.process.send_signal(by)
        await asyncio.to_thread(self.process.communicate, timeout=60)

    async def begin(self) -> None:
        self.process = start(**self.variables)
        await asyncio.to_thread(until_ready, self.port)


@asynccontextmanager
async def serving(addresses: Database, folder: Path, **variables: object) -> AsyncGenerator[Site]:
    """A service with settings; its proxy is not started."""
    port = free_port()
    proxy = Proxy(port)
    variables = {
        "DATABASE_URL": addresses.url,
        "READER_DATABASE_URL": addresses.reader_url,
        "DATA_DIR": folder,
        "PORT": port,
        "CORS_ORIGINS": proxy.url,
        "LOG_LEVEL": "error",
        **variables,
    }
    owner = await asyncpg.connect(addresses.url)
    async with calling(f"http://127.0.0.1:{port}/api/v1", timeout=60) as client:
        site = Site(proxy, port, owner, client, variables, start(**variables))
        await asyncio.to_thread(until_ready, port)
        yield site
        if site.process.poll() is None:
            await site.stop()
    await owner.close()


@pytest.fixture(scope="module")
async def served(
    shared_addresses: Database, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[Site]:
    async with serving(shared_addresses, tmp_path_factory.mktemp("served")) as site:
        yield site


@pytest.fixture
async def site(served: Site) -> AsyncGenerator[Site]:
    """The service of this module, which runs and has no customers, behind a proxy of this test's own."""
    if served.process.poll() is not None:
        await served.begin()
    await served.owner.execute("DELETE FROM data.customers")
    served.proxy = Proxy(served.port, served.proxy.port)
    await served.proxy.start()
    yield served
    await served.proxy.stop()


@pytest.fixture
def tab(tabs: Tabs):
    """Open a tab that watches metrics of a site."""

    async def opened(site: Site, *metrics: str, parameters: Any = FROM, **options: Any) -> Page:
        page = await tabs.open()
        await page.goto(site.proxy.url)
        await page.evaluate("options => { begin(options) }", {**QUICK, **options})
        for metric in metrics:
            await page.evaluate("([id, parameters]) => watch(id, parameters)", [metric, parameters])
        return page

    return opened


async def test_two_tabs_of_one_stream_show_an_import_and_a_write_without_a_reload(site, tab):
    metric = await site.metric()
    pages = [await tab(site, metric, poll=60_000) for _ in range(2)]
    for page in pages:
        await shows(page, metric, "live", 0)
    assert len(site.proxy.streams) == 1
    rows = "Customer_Id,occupation,type\n501,Cook,Gold\n502,Smith,Gold\n"
    report = await site.client.post("/imports/customers", content=rows, headers={"Content-Type": "text/csv"})
    assert report.json()["inserted"] == 2, report.text
    for page in pages:
        await shows(page, metric, "live", 2)
    await site.write(3)
    for page in pages:
        await shows(page, metric, "live", 5)
    for page in pages:
        assert await told(page, metric) == [("live", 0), ("live", 2), ("live", 5)]
    assert len(site.proxy.streams) == 1


async def test_a_page_of_another_origin_is_live_where_it_is_allowed(site, tab):
    metric = await site.metric()
    page = await tab(site, metric, url=site.api)
    await shows(page, metric, "live", 0)
    await page.evaluate(HIDE, True)
    await page.evaluate(HIDE, False)  # comes back with what it holds
    await site.write()
    await shows(page, metric, "live", 1)
    assert site.proxy.streams == []


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGKILL])
async def test_a_restart_of_the_service_needs_no_reload(site, tab, by):
    metric = await site.metric()
    pages = await tab(site, metric), await tab(site, metric)
    for page in pages:
        await shows(page, metric, "live", 0)
    await site.stop(by)
    for page in pages:
        lost = await shows(page, metric, "offline", 0)
        assert lost["error"]["status"] == 502  # from the proxy
    await site.write(2)
    await site.begin()
    for page in pages:
        await shows(page, metric, "live", 2)
    await site.write(3)
    for page in pages:
        await shows(page, metric, "live", 3)
    assert len(site.proxy.streams) == 1


async def test_a_proxy_that_answers_502_makes_pages_poll_and_then_go_live_again(site, tab):
    metric = await site.metric()
    site.proxy.refuse = "/api"
    page = await tab(site, metric)
    state = await shows(page, metric, "offline")
    assert (state["result"], state["error"]["status"]) == (None, 502)
    site.proxy.refuse = "/api/v1/events"
    await shows(page, metric, "polling", 0)
    await site.write()
    await shows(page, metric, "polling", 1)
    site.proxy.refuse = None
    state = await shows(page, metric, "live", 1)
    assert state["error"] is None


async def test_a_proxy_that_is_killed_or_keeps_answers_back_is_survived(site, tab):
    metric = await site.metric()
    page = await tab(site, metric, silence=500)
    await shows(page, metric, "live", 0)
    await site.proxy.stop()
    await shows(page, metric, "offline", 0)
    await site.write()
    await site.proxy.start()
    await shows(page, metric, "live", 1)
    site.proxy.swallow = True
    site.proxy.cut()
    await shows(page, metric, "offline", 1)
    site.proxy.swallow = False
    await site.write(2)
    await shows(page, metric, "live", 2)


async def test_a_browser_that_was_offline_shows_the_newest_number(site, tab, online):
    metric = await site.metric()
    page = await tab(site, metric)
    await shows(page, metric, "live", 0)
    await online(False)
    await shows(page, metric, "offline", 0)
    await site.write(4)
    await online(True)
    await shows(page, metric, "live", 4)


ALL_SHOW = """([metrics, value]) => metrics.map((id) => last(id)).every(
  (told) => told?.state === 'live' && told.result.records[0].n === value)"""


async def test_more_metrics_than_a_stream_takes_are_live_over_few_streams(site, tab):
    metrics = [await site.metric(f"{COUNT} AND {number} = {number}") for number in range(130)]
    page = await tab(site, poll=60_000)
    await page.evaluate("ids => ids.forEach((id) => watch(id, { above: 0 }))", metrics)
    for value in range(2):
        await site.write(value)
        await until(lambda value=value: page.evaluate(ALL_SHOW, [metrics, value]))
        assert len(site.proxy.streams) == 2
    for metric in metrics:
        assert await told(page, metric) == [("live", 0), ("live", 1)]


async def test_texts_with_line_separators_and_exact_numbers_arrive_as_they_are(site, tab):
    sql = "SELECT count(*) AS n, E'a\\u2028b\\u2029c\\nd\\re' AS t, 9007199254740993 AS large FROM customers"
    metric = await site.metric(sql)
    page = await tab(site, metric.upper(), parameters={}, poll=60_000)
    await shows(page, metric.upper(), "live", 0)
    await site.write()
    state = await shows(page, metric.upper(), "live", 1)
    assert state["result"]["records"][0]["t"] == "a\u2028b\u2029c\nd\re"
    assert '"large":9007199254740993' in state["text"]
    assert [each[0] for each in await told(page, metric.upper())] == ["live", "live"]


@pytest.fixture
async def guarded(addresses: Database, tmp_path: Path) -> AsyncGenerator[Site]:
    """A service that asks for tokens."""
    async with serving(addresses, tmp_path, AUTH="on", LIVE_HEARTBEAT_S=0.5) as site:
        await site.proxy.start()
        yield site
        await site.proxy.stop()


@pytest.mark.usefixtures("context")
async def test_a_token_that_ends_is_renewed_and_a_page_without_one_is_told(guarded, tab, tmp_path):
    site = guarded
    issuer = Issuer(f"http://127.0.0.1:{site.port}", KeyFile(tmp_path))
    given: list[int] = []

    def token() -> str:
        given.append(-29 if len(given) < 2 else 600)  # accepted for a second more
        return issuer.sign("ann", ["metrics:read"], given[-1])

    writer = {"Authorization": f"Bearer {issuer.sign('bob', ['metrics:write'], 600)}"}
    site.client.headers.update(writer)
    metric = await site.metric()
    page = await tab(site)
    await page.context.expose_function("newToken", token)
    await page.evaluate(
        "options => { begin({ ...options, token: () => newToken(), user: 'ann' }) }",
        QUICK,
    )
    await page.evaluate("id => watch(id, { above: 0 })", metric)
    await until(lambda: 600 in given)
    await shows(page, metric, "live", 0)
    await site.write()
    await shows(page, metric, "live", 1)
    stranger = await tab(site, metric)
    state = await shows(stranger, metric, "offline")
    assert (state["error"]["status"], state["error"]["code"]) == (401, "unauthorized")
