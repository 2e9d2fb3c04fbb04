"""A real Chromium, for what no other client shows: tabs, locks, a network that comes and goes."""

from collections.abc import AsyncGenerator

import pytest
from playwright.async_api import Browser, BrowserContext, async_playwright

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
    chromium = program("chromium", "chromium-browser", "google-chrome")
    async with async_playwright() as playwright:
        opened = await playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield opened
        await opened.close()


@pytest.fixture
async def context(browser: Browser) -> AsyncGenerator[BrowserContext]:
    """A browser with tabs of its own, which share locks and channels."""
    opened = await browser.new_context()
    yield opened
    await opened.close()
