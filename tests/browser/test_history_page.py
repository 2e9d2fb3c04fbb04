"""Why a number changed, on the page: when, what happened, and which rows."""

import pytest

from tests.browser.dashboards import api, make_board, visit
from tests.browser.test_accessibility import axe, findings_of_themes
from tests.waiting import until

__all__ = ["api", "axe", "make_board", "visit"]  # fixtures

TYPES = "SELECT type, count(*) AS customers FROM customers GROUP BY type ORDER BY type"
ROWS = "customer_id,occupation,type\n{first},Nurse,HCP\n{second},Nurse,HCP\n"


async def imported(api, metric, first):
    """Import two customers, and wait until the metric's history tells of it."""
    before = (await api.get(f"/metrics/{metric}/history")).json()["items"]
    text = ROWS.format(first=first, second=first + 1)
    answer = await api.post("/imports/customers", files={"file": (f"crm-{first}.csv", text.encode())})
    run = answer.raise_for_status().json()["id"]

    async def told():
        await api.get(f"/metrics/{metric}")
        return len((await api.get(f"/metrics/{metric}/history")).json()["items"]) > len(before)

    await until(told)
    return run


@pytest.fixture
async def changed(api, make_board):
    """A board whose metric was changed by an import."""
    board, [metric] = await make_board(TYPES, titles=("Customers by type",))

    async def known():
        await api.get(f"/metrics/{metric}")
        return (await api.get(f"/metrics/{metric}/history")).json()["items"]

    await until(known)
    return board, metric


async def test_a_tile_tells_why_it_changed(visit, api, changed):
    board, metric = changed
    await imported(api, metric, 910_001)
    run = await imported(api, metric, 910_003)
    tab = await visit(f"/d/{board}")
    await tab.menu(metric, "Why did this change?")
    shown = tab.page.get_by_role("dialog", name="Why “Customers by type” changed")
    await tab.shows(shown, "Import of crm-910003.csv into customers")
    newest = shown.get_by_role("listitem").first
    assert "2 new" in await newest.inner_text()
    table = newest.get_by_role("table")
    assert await table.get_by_role("columnheader").all_inner_texts() == [
        "Type",
        "Before",
        "After",
        "Difference",
    ]
    (row,) = await table.locator("tbody tr").all()
    kind, before, after, difference = await row.locator("td").all_inner_texts()
    assert (kind, difference) == ("HCP", "+2")
    assert int(after.replace(",", "")) - int(before.replace(",", "")) == 2
    assert "The first result that is kept" in await shown.get_by_role("listitem").last.inner_text()
    await newest.get_by_role("link", name="crm-910003.csv").click()
    row = tab.page.locator(f"#run-{run}")
    await tab.shows(row, "crm-910003.csv")
    assert "wanted" in (await row.get_attribute("class") or "")


async def test_changes_are_read_by_keyboard_and_page_by_page(visit, api, changed):
    board, metric = changed
    for first in range(920_001, 920_013, 2):
        await imported(api, metric, first)
    tab = await visit(f"/d/{board}")
    await tab.tile(metric).get_by_role("button", name="More of").focus()
    await tab.page.keyboard.press("Enter")
    item = tab.page.get_by_role("menuitem", name="Why did this change?")

    async def reached():
        await tab.page.keyboard.press("ArrowDown")
        return await item.evaluate("each => each === document.activeElement")

    await until(reached)
    await tab.page.keyboard.press("Enter")
    shown = tab.page.get_by_role("dialog")
    entries = shown.locator(".changes > li")

    async def listed(number):
        return await entries.count() == number

    await until(lambda: listed(5))
    more = shown.get_by_role("button", name="Show earlier changes")
    await more.focus()
    await tab.page.keyboard.press("Enter")
    await until(lambda: listed(7))
    assert not await more.is_visible()
    await tab.page.keyboard.press("Escape")
    await shown.wait_for(state="detached")


async def test_the_dialog_has_no_serious_finding(visit, axe, api, changed):
    board, metric = changed
    await imported(api, metric, 930_001)
    tab = await visit(f"/d/{board}")
    await tab.menu(metric, "Why did this change?")
    await tab.shows(tab.page.get_by_role("dialog"), "Import of")
    assert await findings_of_themes(tab, axe) == {}


async def test_no_history_says_why(visit, api, make_board):
    board, [metric] = await make_board("SELECT current_setting('request.claims', true) AS me")
    tab = await visit(f"/d/{board}")
    await tab.menu(metric, "Why did this change?")
    await tab.shows(tab.page.get_by_role("dialog"), "the rows depend on the caller")
