"""A real Chromium, for what no other client shows: tabs, locks, a network that comes and goes.

Debian's headless shell comes first: it draws no window around the page, which takes a quarter of the whole.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator

import pytest
from msgspec import Struct, field
from playwright.async_api import Browser, BrowserContext, Page, async_playwright

from tests.processes import serving_seeds
from tests.programs import program

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
async def browser() -> AsyncGenerator[Browser]:
    chromium = program("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
    async with async_playwright() as playwright:
        opened = await playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield opened
        await opened.close()


class Tabs(Struct, eq=False):
    """Tabs of one browser context, which share locks and channels; what a test leaves in them is cleared.

    A tab that is used again costs a quarter of a new one: that needs a process, and compiles the scripts.
    """

    context: BrowserContext
    free: list[Page] = field(default_factory=list)
    used: list[Page] = field(default_factory=list)

    async def open(self) -> Page:
        self.used.append(self.free.pop() if self.free else await self.context.new_page())
        return self.used[-1]

    async def clear(self) -> None:
        kept = [page for page in self.used if not page.is_closed()][:MOST_TABS]
        for page in self.context.pages:
            if page not in kept + self.free:
                await page.close()
        for page in kept:
            await page.unroute_all()
            await page.emulate_media(media="null")
            await page.evaluate(FORGET)
            await page.wait_for_url("about:blank")
        await self.context.clear_cookies()
        self.free = self.context.pages
        self.used = []


MOST_TABS = 2
FORGET = """() => {
  try { localStorage.clear(); sessionStorage.clear(); } catch { /* a page without */ }
  location.href = 'about:blank';
}"""
"""The page itself leaves: after a `goto` the next page of its site would get a new process."""


@pytest.fixture(scope="session")
async def kept(browser: Browser) -> AsyncGenerator[list[Tabs]]:
    """Holds the tabs that most tests use one after the other."""
    held: list[Tabs] = []
    yield held
    for tabs in held:
        await tabs.context.close()


@pytest.fixture
async def tabs(request: pytest.FixtureRequest, browser: Browser, kept: list[Tabs]) -> AsyncGenerator[Tabs]:
    """A test that asks for `context` gets one of its own, for what it does to it stays; others share one."""
    own = "context" in request.fixturenames
    opened = kept.pop() if kept and not own else Tabs(await browser.new_context())
    yield opened
    try:
        if not own:
            await opened.clear()
            kept.append(opened)
    finally:
        if opened not in kept:
            await opened.context.close()


@pytest.fixture
async def online(tabs: Tabs) -> AsyncGenerator[Callable[[bool], Awaitable[None]]]:
    """Take the network from all tabs, and give it back."""

    async def switch(there: bool) -> None:
        await tabs.context.set_offline(not there)

    yield switch
    await switch(True)


@pytest.fixture
def context(tabs: Tabs) -> BrowserContext:
    return tabs.context


@pytest.fixture(scope="session")
def address() -> Generator[str]:
    """A service over the seeds, for all tests that leave others' dashboards and rows as they are."""
    with serving_seeds() as found:
        yield found
