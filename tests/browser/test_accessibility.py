"""No serious finding of axe on a dashboard, in any theme, and with all that it opens."""

from typing import Any

import pytest
from playwright.async_api import expect

from tests.browser.dashboards import BY_TYPE, DAILY, Tab, api, make_board, visit
from tests.programs import from_npm

__all__ = ["api", "make_board", "visit"]  # fixtures

THEMES = ("light", "dark", "contrast")
RUN = """async (only) => {
  const { violations } = await axe.run(document, { resultTypes: ['violations'], ...only });
  return violations.filter(({ impact }) => ['serious', 'critical'].includes(impact))
    .map(({ id, nodes }) => `${id}: ${nodes.map(({ target }) => target.join(' ')).slice(0, 5).join(', ')}`);
}"""


@pytest.fixture
def axe() -> str:
    return from_npm("axe-core/axe.min.js").read_text()


OF_COLOURS = {"runOnly": ["color-contrast", "link-in-text-block"]}
"""The rules that a theme can break: themes change colours alone."""


async def findings(tab: Tab, axe: str, only: dict[str, Any] | None = None) -> list[str]:
    if not await tab.page.evaluate("'axe' in window"):
        await tab.page.evaluate(f"() => {{ {axe} }}")
    return await tab.page.evaluate(RUN, only or {})


async def findings_of_themes(tab: Tab, axe: str, *themes: str) -> dict[str, list[str]]:
    """The findings in each of these themes that has some: of all rules in the first one."""
    found: dict[str, list[str]] = {}
    for number, theme in enumerate(themes or THEMES):
        await tab.page.evaluate("theme => { document.documentElement.dataset.theme = theme }", theme)
        if seen := await findings(tab, axe, OF_COLOURS if number else None):
            found[theme] = seen
    return found


async def test_a_dashboard_of_every_kind_has_no_serious_finding(visit, axe, make_board):
    board, metrics = await make_board(
        DAILY, BY_TYPE, "SELECT 1 AS n", "SELECT 'a' AS x, 'b' AS y", "SELECT 1 AS n WHERE false",
        "SELECT 1 / (count(*) - count(*)) AS n FROM customers",
        "SELECT date::date AS day, alert_type, count(*) AS n FROM metrics GROUP BY 1, 2",
    )  # fmt: skip
    tab = await visit(f"/d/{board}?day_range=9999&compare=1")
    states = [await tab.tile(each).get_attribute("data-state") for each in metrics]
    assert states == ["ready", "ready", "ready", "ready", "empty", "error", "ready"]
    assert await findings_of_themes(tab, axe) == {}
    await tab.tile(metrics[0]).locator(".plot").focus()
    await tab.page.keyboard.press("ArrowRight")
    await tab.page.keyboard.press("t")
    assert await findings_of_themes(tab, axe) == {}


async def test_what_a_dashboard_opens_has_no_serious_finding(visit, axe, make_board):
    board, [metric, _] = await make_board(DAILY, BY_TYPE)
    tab = await visit(f"/d/{board}")
    page = tab.page
    await page.get_by_role("button", name="own period").click()
    assert await findings_of_themes(tab, axe, "light", "dark") == {}
    await page.keyboard.press("Escape")
    await tab.tile(metric).get_by_role("button", name="More of").click()
    assert await findings_of_themes(tab, axe, "light", "dark") == {}
    await page.keyboard.press("Escape")
    for item, text in [("How this is computed", "Last change"), ("Edit", "Preview")]:
        await tab.menu(metric, item)
        await tab.shows(page.get_by_role("dialog"), text)
        assert await findings_of_themes(tab, axe, "light", "dark") == {}
        await page.keyboard.press("Escape")
        await page.get_by_role("dialog").wait_for(state="detached")
    await page.get_by_role("button", name="Arrange").click()
    assert await findings_of_themes(tab, axe, "light", "dark") == {}


async def test_a_menu_is_used_by_the_keyboard_alone(visit, make_board):
    board, [metric] = await make_board(DAILY)
    tab = await visit(f"/d/{board}")
    opener = tab.tile(metric).get_by_role("button", name="More of")
    await opener.focus()
    await tab.page.keyboard.press("Enter")
    for key, name in [
        ("ArrowDown", "Number"),
        ("End", "Edit"),
        ("ArrowDown", "Automatic (line)"),
        ("ArrowUp", "Edit"),
    ]:
        await tab.page.keyboard.press(key)
        assert await tab.page.evaluate("() => document.activeElement.textContent") == name
    await tab.page.keyboard.press("Escape")
    assert await opener.evaluate("each => each === document.activeElement")
    await expect(opener).to_have_attribute("aria-expanded", "false")  # a task of its own says so
