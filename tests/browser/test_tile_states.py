# ruff: noqa: E501 (JavaScript in strings)
"""A tile says what it knows: how old its numbers are, since when, and why; and pages for walls and links show them."""

import re
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Any

import pytest
from playwright.async_api import Browser, Page

from tests.browser.dashboards import BY_TYPE, COUNT, DAILY, api, make_board, visit
from tests.browser.modules import serving_modules
from tests.waiting import until

__all__ = ["api", "make_board", "visit"]  # fixtures

MAKE = """async () => {
  const { Tile } = await import('/tile.js');
  const { el } = await import('/dom.js');
  const article = el('article', { class: 'tile', 'aria-busy': 'true' }, el('h2', { class: 'tile-title' }, 'Orders'),
    el('div', { class: 'tile-tools' }), el('div', { class: 'tile-body' }), el('footer', { class: 'tile-foot' }));
  article.style.cssText = 'width: 400px; height: 300px';
  document.getElementById('main').replaceChildren(article);
  window.tile = new Tile(article, { id: 'x', title: 'Orders' }, { again() {}, explain() {} });
  window.since = new Date().setHours(9, 30, 15, 0);
}"""
RESULT: dict[str, Any] = {
    "columns": [{"name": "n", "type": "bigint"}],
    "records": [{"n": 41}],
    "truncated": False,
    "as_of": "2025-06-01T00:00:00Z",
}
LOST = {"status": 0, "detail": "TypeError: Failed to fetch"}
DOWN = {"status": 503, "code": "database-unavailable", "detail": "The database cannot be reached."}


@pytest.fixture(scope="module")
async def bare(browser: Browser) -> AsyncGenerator[Page]:
    with serving_modules() as url:
        opened = await browser.new_page()
        await opened.goto(url)
        yield opened
        await opened.close()


@pytest.fixture
async def page(bare: Page) -> Page:
    await bare.evaluate(MAKE)
    await bare.evaluate(
        "result => { tile.take({ id: 'x', status: 200, etag: '\"aaaa\"', result }); tile.show(); }", RESULT
    )
    return bare


@pytest.mark.parametrize(
    ("state", "error", "shown", "note"),
    [
        ("live", None, "ready", ""),
        ("polling", None, "ready", ""),
        (
            "stale",
            None,
            "stale",
            "Stale since 09:30:15: the data have changed, and the new numbers are being computed.",
        ),
        (
            "offline",
            LOST,
            "stale",
            "Offline since 09:30:15: the service cannot be reached. These are the last numbers.Try again",
        ),
        ("offline", DOWN, "stale", "Not updated since 09:30:15: The database cannot be reached.Try again"),
    ],
    ids=["live", "polling", "stale", "offline", "database down"],
)
async def test_a_tile_says_since_when_and_why_its_numbers_are_old(page, state, error, shown, note):
    script = "([state, error]) => tile.hear({ state, error, since, etag: 'aaaa', text: null })"
    await page.evaluate(script, [state, error])
    assert await page.locator(".tile").get_attribute("data-state") == shown
    assert await page.locator(".tile-note").text_content() == note
    assert await page.locator(".tile-note").is_visible() is bool(note)
    assert await page.locator(".headline").text_content() == "41"
    days = (datetime.now(UTC) - datetime(2025, 6, 1, tzinfo=UTC)).days
    assert await page.locator("time").inner_text() == f"{days} days ago"


async def test_a_new_result_is_drawn_and_an_equal_one_is_not(page):
    script = """([etag, n]) => {
      const text = JSON.stringify({ columns: [{ name: 'n', type: 'bigint' }], records: [{ n }], truncated: false, as_of: new Date().toISOString(), title: 'Sales' });
      const before = document.querySelector('.headline');
      tile.hear({ state: 'live', error: null, since, etag, text });
      return before === document.querySelector('.headline');
    }"""
    assert await page.evaluate(script, ["aaaa", 42])
    assert await page.locator(".headline").text_content() == "41"
    assert not await page.evaluate(script, ["bbbb", 42])
    assert await page.locator(".headline").text_content() == "42"
    assert await page.locator("time").inner_text() == "just now"
    assert await page.locator("h2").inner_text() == "Sales"


@pytest.mark.parametrize("status", [403, 404])
async def test_numbers_that_one_may_not_see_any_more_are_gone(page, status):
    script = "status => tile.hear({ state: 'offline', error: { status, title: 'Gone', detail: 'There is no metric x.', type: '/problems/not-found' }, since, etag: 'aaaa', text: null })"
    await page.evaluate(script, status)
    assert await page.locator(".tile").get_attribute("data-state") == "error"
    assert not await page.locator(".headline").is_visible()
    assert "There is no metric x." in await page.locator(".tile-note").inner_text()


async def test_a_number_is_as_large_as_its_tile_allows(page):
    size = "() => parseFloat(getComputedStyle(document.querySelector('.headline')).fontSize)"
    assert await page.evaluate(size) > 50
    wide = {**RESULT, "records": [{"n": 9007199254740991}]}
    await page.evaluate(
        "result => { tile.take({ id: 'x', status: 200, etag: 'c', result }); tile.show(); }", wide
    )
    assert await page.locator(".headline").text_content() == "9,007,199,254,740,991"
    box = await until(page.locator(".headline").bounding_box)  # it may be drawn anew at this moment
    host = await page.locator(".tile-chart").bounding_box()
    assert box["x"] + box["width"] <= host["x"] + host["width"]


async def test_a_wall_shows_the_numbers_and_nothing_else(visit, make_board):
    board, metrics = await make_board(DAILY, BY_TYPE, COUNT)
    tab = await visit(f"/d/{board}?kiosk")
    for metric, part in zip(metrics, (".line", ".bars", ".headline"), strict=True):
        assert await tab.tile(metric).locator(part).is_visible()
    assert await tab.page.get_by_role("button").count() == 0
    assert await tab.page.locator("header.bar").is_hidden()


async def test_a_signed_link_shows_live_numbers_of_its_own_period(visit, api, make_board):
    board, [metric, other] = await make_board(DAILY, BY_TYPE)
    june = {"start_date": "2025-06-01", "end_date": "2025-06-30"}
    made = await api.post(f"/dashboards/{board}/links", json={"parameters": june, "expires_in": 600})
    path = made.raise_for_status().json()["url"].split("/s/")[1]
    tab = await visit(f"/s/{path}?start_date=2025-01-01")
    await tab.shows(tab.page.locator("#live"), "Live")
    await tab.shows(tab.tile(metric).locator("figcaption"), "Jun 2025 to ")
    assert "Jan 2025" not in await tab.tile(metric).locator("figcaption").text_content()
    assert await tab.tile(other).locator(".chip").inner_text() == "Own period"
    assert not tab.asked("/api/v1/")
    await tab.tile(metric).get_by_role("button", name="More of").click()
    names = await tab.page.get_by_role("menuitem").all_inner_texts()
    assert names == ["Save as PNG", "Save as CSV", "For spreadsheets", "Print"]
    async with tab.page.expect_download() as rows:
        await tab.page.get_by_role("menuitem", name="Save as CSV").click()
    assert (await (await rows.value).path()).read_text().startswith("day,n")
    file = (await rows.value).suggested_filename
    assert re.search(r"_start_date=2025-06-01_end_date=2025-06-30_as-of-\d{8}T\d{6}Z\.csv$", file), file


async def test_a_signed_link_gives_the_address_for_spreadsheets(visit, api, make_board):
    board, [metric] = await make_board(DAILY)
    june = {"start_date": "2025-06-01", "end_date": "2025-06-30"}
    made = await api.post(f"/dashboards/{board}/links", json={"parameters": june, "expires_in": 600})
    path = made.raise_for_status().json()["url"].split("/s/")[1]
    tab = await visit(f"/s/{path}")
    await tab.menu(metric, "For spreadsheets")
    address = await tab.page.get_by_label("Address of the link").input_value()
    assert address.endswith(f"/s/{path}/metrics/{metric}?format=csv&bom=1")
    assert await tab.page.get_by_text(f'=IMPORTDATA("{address}")').is_visible()
    answer = await tab.page.request.get(address)
    assert (answer.status, (await answer.body())[:8]) == (200, b"\xef\xbb\xbfday,n")
    await tab.page.keyboard.press("Escape")
    assert await tab.page.get_by_role("dialog").count() == 0


async def test_a_session_that_is_over_offers_to_sign_in_again(visit, make_board):
    board, _ = await make_board(COUNT)
    tab = await visit(f"/d/{board}?day_range=7")
    refused = {"status": 401, "title": "Unauthorized", "detail": "A token is needed."}
    await tab.page.route("**/data?*", lambda route: route.fulfill(status=401, json=refused))
    await tab.page.get_by_role("button", name="The period before").click()
    link = tab.page.get_by_role("link", name="Sign in again")
    await link.wait_for()
    address = await link.get_attribute("href")
    assert address.startswith(f"/sign-in?next=%2Fd%2F{board}%3Fstart_date")
