# ruff: noqa: E501, T201 (JavaScript in strings; a bench prints)
"""The page of a dashboard in a real browser: all tiles, requests, a large chart, memory over a day of changes.

Times are as a clock has them, and as the processor has them: of the page's own thread, which others cannot delay.

`.venv/bin/python -m tests.bench.page`
"""

import asyncio
import shutil
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
from playwright.async_api import Browser, BrowserContext, Page, async_playwright

from tests.browser.conftest import FLAGS
from tests.browser.modules import serving_modules
from tests.processes import serving_seeds
from tests.waiting import until

TILES = 20
ROUNDS = 9
POINTS = 10_000
UPDATES = 10_000  # eight hours with a change every three seconds
KINDS = (
    "SELECT date::date AS day, count(*) AS n FROM metrics GROUP BY 1",
    "SELECT date::date AS day, alert_type, count(*) AS n FROM metrics GROUP BY 1, 2",
    "SELECT alert_type, count(*) AS n FROM metrics GROUP BY 1",
    "SELECT count(*) AS n FROM customers",
    "SELECT * FROM customers ORDER BY customer_id LIMIT 50",
)
PAINTED = """() => {
  window.painted = 0;
  const look = () => {
    const tiles = [...document.querySelectorAll('.tile')];
    const done = tiles.length && tiles.every((each) => each.querySelector('.drawing g, tbody tr'));
    if (!done) return requestAnimationFrame(look);
    const { responseStart } = performance.getEntriesByType('navigation')[0];
    requestAnimationFrame(() => { window.painted = performance.now() - responseStart; });
  };
  addEventListener('DOMContentLoaded', look);
}"""
CHART = """async ([points, rounds]) => {
  const { Chart } = await import('/charts/chart.js');
  const host = document.createElement('div');
  host.style.cssText = 'width: 800px; height: 300px; position: relative';
  document.getElementById('main').replaceChildren(host);
  const columns = [{ name: 'at', type: 'timestamp without time zone' }, { name: 'load', type: 'double precision' }];
  const records = Array.from({ length: points }, (_, index) => ({
    at: new Date(Date.UTC(2025, 0, 1) + index * 3e5).toISOString().slice(0, 19), load: Math.sin(index / 300) * 50 + (index * 7919) % 20,
  }));
  const chart = new Chart(host, 'Load');
  const times = [];
  for (let round = 0; round < rounds; round++) {
    const begun = performance.now();
    chart.show({ columns, records, truncated: false });
    host.getBoundingClientRect();
    times.push(performance.now() - begun);
  }
  return times;
}"""
GROW = """async ([updates]) => {
  const { Tile } = await import('/tile.js');
  if (!window.tile) {
    const { el } = await import('/dom.js');
    const article = el('article', { class: 'tile' }, el('h2', { class: 'tile-title' }, 'Orders'),
      el('div', { class: 'tile-tools' }), el('div', { class: 'tile-body' }), el('footer', { class: 'tile-foot' }));
    article.style.cssText = 'width: 500px; height: 300px';
    document.getElementById('main').replaceChildren(article);
    window.tile = new Tile(article, { id: 'x', title: 'Orders' }, { again() {}, explain() {} });
    window.updates = 0;
  }
  for (let each = 0; each < updates; each++) {
    const number = ++window.updates;
    const records = Array.from({ length: 30 }, (_, day) => ({ day: `2025-06-${String(day + 1).padStart(2, '0')}`, n: (number * 31 + day * 17) % 100 }));
    const columns = [{ name: 'day', type: 'date' }, { name: 'n', type: 'bigint' }];
    const text = JSON.stringify({ columns, records, truncated: false, as_of: new Date().toISOString() });
    tile.hear({ state: 'live', since: Date.now(), error: null, etag: `${number}`.padStart(16, '0'), text });
    if (each % 100 === 0) await new Promise(requestAnimationFrame);
  }
}"""


async def make_board(address: str) -> None:
    async with httpx.AsyncClient(base_url=f"{address}/api/v1", timeout=60) as api:
        await api.post("/dashboards", json={"id": "bench", "title": "Bench"})
        for number in range(TILES):
            body = {"sql": f"{KINDS[number % len(KINDS)]} -- {number}", "title": f"Tile {number}"}
            place = [{"id": "bench", "w": 3, "h": 8}]
            (await api.post("/metrics", json={**body, "dashboards": place})).raise_for_status()
        await api.get("/dashboards/bench/data")


async def processor(page: Page) -> Callable[[], Awaitable[float]]:
    """Gives the milliseconds that the page's thread has run."""
    devtools = await page.context.new_cdp_session(page)
    await devtools.send("Performance.enable", {"timeDomain": "threadTicks"})

    async def now() -> float:
        found = await devtools.send("Performance.getMetrics")
        return next(each["value"] for each in found["metrics"] if each["name"] == "TaskDuration") * 1000

    return now


async def first_paint(context: BrowserContext, address: str) -> tuple[float, float, list[str], int]:
    """Milliseconds from the first byte until all tiles are painted, by both clocks; requests; bytes."""
    page = await context.new_page()
    clock = await processor(page)
    asked: list[Any] = []
    page.on("request", lambda request: asked.append(request))  # noqa: PLW0108 (Playwright marks it)
    await page.add_init_script(f"({PAINTED})()")
    await page.goto(f"{address}/d/bench")

    async def done() -> float:
        return await page.evaluate("() => window.painted")

    painted = await until(done)
    busy = await clock()
    sizes = [await each.sizes() for each in asked if "/events" not in each.url]
    received = sum(each["responseBodySize"] + each["responseHeadersSize"] for each in sizes)
    await page.close()
    return painted, busy, [each.url.removeprefix(address) for each in asked], received


async def heap(page: Page) -> float:
    """Megabytes that are held after a collection."""
    devtools = await page.context.new_cdp_session(page)
    for _ in range(3):
        await devtools.send("HeapProfiler.collectGarbage")
    used = await devtools.send("Runtime.getHeapUsage")
    nodes = await devtools.send("Memory.getDOMCounters")
    await devtools.detach()
    print(
        f"  heap {used['usedSize'] / 1e6:.2f} MB, nodes {nodes['nodes']}, listeners {nodes['jsEventListeners']}"
    )
    return used["usedSize"] / 1e6


async def measure_service(browser: Browser) -> None:
    with serving_seeds() as address:
        await make_board(address)
        for name, cached in (("empty cache", False), ("files in the cache", True)):
            times: list[float] = []
            busy: list[float] = []
            context = await browser.new_context()
            for _ in range(ROUNDS):
                if not cached:
                    await context.close()
                    context = await browser.new_context()
                painted, worked, asked, received = await first_paint(context, address)
                times.append(painted)
                busy.append(worked)
                if not cached and len(times) == 1:
                    data = [each for each in asked if each.startswith("/api/") and "/events" not in each]
                    print(
                        f"requests for {TILES} tiles: {data}; {len(asked)} in all, {received / 1000:.0f} kB"
                    )
            await context.close()
            print(
                f"{name}: all {TILES} tiles painted {statistics.median(times):.0f} ms after the first byte "
                f"(slowest of {ROUNDS}: {max(times):.0f}), {statistics.median(busy):.0f} ms of the processor"
            )


async def measure_modules(browser: Browser) -> None:
    with serving_modules() as address:
        page = await browser.new_page()
        await page.goto(address)
        clock = await processor(page)
        await page.evaluate(CHART, [POINTS, 3])
        begun = await clock()
        times = await page.evaluate(CHART, [POINTS, ROUNDS])
        busy = (await clock() - begun) / ROUNDS
        print(f"chart of {POINTS} points: {statistics.median(times):.1f} ms, {busy:.1f} ms of the processor")
        await page.evaluate(GROW, [500])
        before = await heap(page)
        begun = time.perf_counter()
        await page.evaluate(GROW, [UPDATES])
        took = (time.perf_counter() - begun) / UPDATES * 1000
        grown = await heap(page) - before
        print(f"{UPDATES} updates: {grown:+.2f} MB, {took:.1f} ms each")


async def main() -> None:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        await measure_modules(browser)
        await measure_service(browser)
        await browser.close()


if __name__ == "__main__":
    asyncio.run(main())
