"""Dashboards over the real service, and tabs that watch what they ask, say and log."""

import re
from collections.abc import AsyncGenerator, Callable
from typing import Any

import httpx
import pytest
from msgspec import Struct, field
from playwright.async_api import Page, Request, ViewportSize

from tests.browser.conftest import Tabs
from tests.loopback import calling
from tests.waiting import until

DAILY = (
    "SELECT date::date AS day, count(*) AS n FROM metrics "
    "WHERE date BETWEEN '2025-05-01' AND '2025-05-31' GROUP BY 1 ORDER BY 1"
)
BY_TYPE = (
    "SELECT alert_type, count(*) AS total FROM metrics "
    "WHERE alert_type IS NOT NULL GROUP BY 1 ORDER BY 2 DESC"
)
COUNT = "SELECT count(*) AS customers FROM customers"

SETTLED = "body:has(.tile):not(:has(.tile[aria-busy]))"


class Tab(Struct, eq=False):
    """A page, and what it did."""

    page: Page
    said: list[str] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)

    def asked(self, part: str) -> list[str]:
        return [each.url for each in self.requests if part in each.url]

    def tile(self, metric: str) -> Any:
        return self.page.locator(f'[data-metric="{metric}"]')

    async def settled(self) -> None:
        """Wait until every tile has its numbers, or says why not."""
        await self.page.wait_for_selector(SETTLED, state="attached")

    async def menu(self, metric: str, item: str) -> None:
        await self.tile(metric).get_by_role("button", name="More of").click()
        await (
            self.page.get_by_role("menuitem", name=item)
            .or_(self.page.get_by_role("menuitemradio", name=item))
            .click()
        )

    async def shows(self, locator: Any, text: str) -> None:
        async def found() -> bool:
            return text in (await locator.text_content() or "")

        await until(found)


@pytest.fixture
async def api(address: str) -> AsyncGenerator[httpx.AsyncClient]:
    async with calling(f"{address}/api/v1") as client:
        yield client


@pytest.fixture
def make_board(api: httpx.AsyncClient):
    """A dashboard with a metric for each statement; its id and theirs."""

    async def made(
        *statements: str, titles: tuple[str, ...] = (), title: str = "Board"
    ) -> tuple[str, list[str]]:
        board = (await api.post("/dashboards", json={"title": title})).raise_for_status().json()["id"]
        metrics: list[str] = []
        for number, sql in enumerate(statements):
            name = titles[number] if number < len(titles) else f"Metric {number}"
            place = {"id": board, "w": 6, "h": 8}
            answer = await api.post("/metrics", json={"sql": sql, "title": name, "dashboards": [place]})
            metrics.append(answer.raise_for_status().json()["id"])
        return board, metrics

    return made


@pytest.fixture
async def visit(tabs: Tabs, address: str):
    """Open an address of the service. At the end: no console message, and no request to anybody else."""
    opened: list[tuple[Tab, dict[str, Callable[[Any], None]]]] = []

    async def visited(path: str, *, width: int = 1280, height: int = 900, wait: bool = True) -> Tab:
        page = await tabs.open()
        if page.viewport_size != (size := ViewportSize(width=width, height=height)):
            await page.set_viewport_size(size)
        tab = Tab(page)
        heard: dict[str, Callable[[Any], None]] = {
            "console": lambda message: tab.said.append(message.text),
            "pageerror": lambda error: tab.said.append(str(error)),
            "request": lambda request: tab.requests.append(request),  # noqa: PLW0108 (Playwright marks it)
        }
        opened.append((tab, heard))
        for event, take in heard.items():
            page.on(event, take)  # type: ignore[call-overload]
        await page.goto(f"{address}{path}")
        if wait:
            await tab.settled()
        return tab

    yield visited
    for tab, heard in opened:
        for event, take in heard.items():
            tab.page.remove_listener(event, take)
        assert not [text for text in tab.said if not EXPECTED.search(text)]
        foreign = [url for url in tab.asked("") if not url.startswith((address, "data:", "blob:"))]
        assert not foreign


EXPECTED = re.compile(
    r"^Failed to load resource: "
    r"(the server responded with a status of (4|503)|net::ERR_INTERNET_DISCONNECTED)"
)
"""What Chromium itself says of an answer that a test asks for: refusals, and a network that is away."""
