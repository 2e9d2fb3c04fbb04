"""How a metric is computed is shown, changed, tried and taken back on the page."""

import re

import pytest

from tests.browser.dashboards import BY_TYPE, DAILY, api, make_board, visit

__all__ = ["api", "make_board", "visit"]  # fixtures

KIND = "SELECT count(*) AS n FROM metrics WHERE alert_type = :kind"
DECLARED = {"kind": {"type": "text", "default": "Warning"}}


async def test_a_metric_shows_how_it_is_computed(visit, make_board):
    board, [metric] = await make_board(DAILY)
    tab = await visit(f"/d/{board}?start_date=2025-06-01&end_date=2025-06-30")
    await tab.menu(metric, "How this is computed")
    shown = tab.page.get_by_role("dialog")
    await tab.shows(shown, "Last change")
    text = await shown.inner_text()
    assert DAILY in text
    assert "It takes the period of the page." in text
    assert "start_date\tdate\t2025-05-01\t2025-06-01" in text
    assert "data.metrics" in text
    assert "day\tdate" in text
    assert "Version 1, just now" in text
    await tab.page.keyboard.press("Escape")
    await shown.wait_for(state="detached")


async def test_a_default_is_shown_with_all_its_digits(visit, api, make_board):
    board, [metric] = await make_board("SELECT 1 AS n")
    body = '{"sql":"SELECT :x AS x","parameters":{"x":{"type":"number","default":0.12345678901234567891}}}'
    headers = {"Content-Type": "application/json"}
    assert (await api.patch(f"/metrics/{metric}", content=body, headers=headers)).status_code == 200
    tab = await visit(f"/d/{board}")
    await tab.menu(metric, "How this is computed")
    shown = tab.page.get_by_role("dialog")
    await tab.shows(shown, "Last change")
    assert "x\tnumber\t0.12345678901234567891\t0.12345678901234567891" in await shown.inner_text()


async def test_a_metric_without_the_period_says_why(visit, make_board):
    board, [metric] = await make_board(BY_TYPE)
    tab = await visit(f"/d/{board}?day_range=30")
    await tab.tile(metric).get_by_role("button", name="Own period").click()
    await tab.shows(tab.page.get_by_role("dialog"), "It keeps its own period")


async def test_a_metric_is_changed_after_a_preview(visit, api, make_board):
    board, [metric] = await make_board(BY_TYPE, titles=("Before",))
    tab = await visit(f"/d/{board}")
    page = tab.page
    await tab.menu(metric, "Edit")
    await page.get_by_label("Title").fill("After")
    await page.get_by_label("SQL").fill(KIND)
    await page.get_by_role("button", name="Preview").click()
    await tab.shows(page.get_by_role("alert"), "kind is needed")
    await page.get_by_role("button", name="Add a parameter").click()
    await page.locator("[name=name]").fill("kind")
    await page.locator("[name=type]").select_option("text")
    await page.locator("[name=default]").fill("Warning")
    await page.get_by_role("button", name="Preview").click()
    await tab.shows(page.locator("form [role=status]"), "1 row. Nothing is saved yet.")
    expected = await page.locator(".preview .headline").text_content()
    assert (await api.get(f"/metrics/{metric}/definition")).json()["sql"] == BY_TYPE

    await page.get_by_role("button", name="Save").click()
    await tab.shows(tab.tile(metric).locator(".headline"), expected or "?")
    assert await tab.tile(metric).locator("h2").inner_text() == "After"
    now = (await api.get(f"/metrics/{metric}/definition")).json()
    assert (now["sql"], now["title"], now["version"]) == (KIND, "After", 2)
    assert [each["default"] for each in now["parameters"]] == ["Warning"]


async def test_declared_parameters_survive_an_edit(visit, api, make_board):
    board, _ = await make_board()
    declared = {
        "kind": {"type": "enum", "values": ["Warning", "Info"], "default": "Info"},
        "least": {"type": "integer", "default": 3},
        "day": {"type": "date", "default": None},
    }
    sql = (
        "SELECT count(*) AS n FROM metrics WHERE alert_type = :kind AND parts_flagged > :least "
        "AND (:day IS NULL OR date > :day)"
    )
    body = {"sql": sql, "title": "Declared", "parameters": declared, "dashboards": [{"id": board}]}
    metric = (await api.post("/metrics", json=body)).raise_for_status().json()["id"]
    before = (await api.get(f"/metrics/{metric}/versions")).json()["items"][0]["parameters"]
    tab = await visit(f"/d/{board}")
    await tab.menu(metric, "Edit")
    await tab.page.get_by_label("Title").fill("Renamed")
    await tab.page.get_by_role("button", name="Save").click()
    await tab.shows(tab.tile(metric).locator("h2"), "Renamed")
    after = (await api.get(f"/metrics/{metric}/versions")).json()["items"][0]["parameters"]
    assert after == before


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("DELETE FROM metrics", "SELECT"),
        ("SELECT x FROM metrics", 'column "x" does not exist'),
        ("SELECT 1 / 0 AS n", "division by zero"),
    ],
    ids=["change", "unknown column", "fails when run"],
)
async def test_sql_that_cannot_be_shown_is_refused_beside_it(visit, make_board, sql, says):
    board, [metric] = await make_board(BY_TYPE)
    tab = await visit(f"/d/{board}")
    await tab.menu(metric, "Edit")
    await tab.page.get_by_label("SQL").fill(sql)
    await tab.page.get_by_role("button", name="Preview").click()
    await tab.shows(tab.page.get_by_role("alert"), says)
    assert await tab.page.get_by_label("SQL").get_attribute("aria-invalid") == "true"


async def test_a_change_by_somebody_else_meanwhile_is_not_overwritten(visit, api, make_board):
    board, [metric] = await make_board(BY_TYPE)
    tab = await visit(f"/d/{board}")
    await tab.menu(metric, "Edit")
    await tab.page.get_by_label("Title").fill("Mine")
    await api.patch(f"/metrics/{metric}", json={"title": "Theirs"})
    await tab.page.get_by_role("button", name="Save").click()
    await tab.shows(tab.page.get_by_role("alert"), "Somebody else has changed this metric")
    assert (await api.get(f"/metrics/{metric}/definition")).json()["title"] == "Theirs"


async def test_an_earlier_version_comes_back(visit, api, make_board):
    board, [metric] = await make_board("SELECT 1 AS n")
    await api.patch(f"/metrics/{metric}", json={"sql": "SELECT 2 AS n"})
    tab = await visit(f"/d/{board}")
    await tab.shows(tab.tile(metric).locator(".headline"), "2")
    await tab.menu(metric, "How this is computed")
    await tab.page.get_by_role("button", name="Restore version 1").click()
    await tab.shows(tab.page.get_by_role("dialog"), "Version 3")
    await tab.page.keyboard.press("Escape")
    await tab.shows(tab.tile(metric).locator(".headline"), "1")
    assert (await api.get(f"/metrics/{metric}/definition")).json()["version"] == 3


async def test_who_may_only_read_changes_nothing(visit, make_board):
    board, [metric] = await make_board(DAILY)
    tab = await visit(f"/d/{board}")

    async def reader(route) -> None:
        page = await route.fetch()
        body = re.sub(r'"scopes":\[[^\]]*\]', '"scopes":["metrics:read"]', await page.text())
        await route.fulfill(response=page, body=body)

    await tab.page.route(f"**/d/{board}", reader)
    await tab.page.reload()
    await tab.settled()
    assert await tab.page.get_by_role("button", name="Arrange").count() == 0
    await tab.tile(metric).get_by_role("button", name="More of").click()
    items = await tab.page.get_by_role("menuitem").all_inner_texts()
    assert items == [
        "Save as PNG", "Save as CSV", "Print", "Why did this change?", "How this is computed"
    ]  # fmt: skip
    before = len(tab.asked("/tiles/"))
    await tab.page.get_by_role("menuitemradio", name="Bars").click()
    await tab.tile(metric).locator(".bars").wait_for(state="attached")
    assert len(tab.asked("/tiles/")) == before == 0
