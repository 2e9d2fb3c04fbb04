"""The page of alerts and the marks on tiles, in a browser over the service and its seeds."""

from pathlib import Path

from playwright.async_api import expect

from tests.browser.dashboards import COUNT, DAILY, Tab, api, make_board, visit
from tests.waiting import until

__all__ = ["api", "make_board", "visit"]  # fixtures

AXE = Path(__file__).parent / "node_modules" / "axe-core" / "axe.min.js"
RUN = """async () => {
  const { violations } = await axe.run(document, { resultTypes: ['violations'] });
  return violations.filter(({ impact }) => ['serious', 'critical'].includes(impact)).map(({ id }) => id);
}"""
SAMPLE = "Interactions per channel"


async def create(api, metric, **fields):
    body = {"name": "Many <b>customers</b>", "metric_id": metric, "column": "customers", "kind": "threshold"}
    answer = await api.post("/alerts/rules", json=body | {"above": 1} | fields)
    assert answer.status_code == 201, answer.text
    rule = answer.json()["id"]

    async def fires():
        found = (await api.get("/alerts", params={"rule_id": rule})).json()["items"]
        return [each for each in found if each["state"] == "firing"]

    (alert,) = await until(fires)
    return rule, alert


async def test_a_tile_with_an_alert_is_marked_until_it_is_over(visit, api, make_board):
    board, (metric, other) = await make_board(COUNT, "SELECT 1 AS customers")
    rule, _ = await create(api, metric)
    tab: Tab = await visit(f"/d/{board}")
    mark = tab.tile(metric).locator(".tile-alert")
    await expect(mark).to_have_text("1 alert")
    assert await mark.get_attribute("href") == "/alerts"
    await expect(tab.tile(other).locator(".tile-alert")).to_have_count(0)
    await api.delete(f"/alerts/rules/{rule}")
    await expect(mark).to_have_count(0, timeout=30_000)


async def test_the_page_lists_alerts_acknowledges_them_and_draws_bands(visit, api, make_board):
    _, (metric,) = await make_board(COUNT)
    rule, alert = await create(api, metric)
    tab: Tab = await visit("/alerts", wait=False)
    row = tab.page.locator(f'[data-alert="{alert["id"]}"]')
    await expect(row).to_contain_text("Many <b>customers</b>")
    await expect(row).to_contain_text("firing")
    await row.get_by_role("button", name="Acknowledge").click()
    await expect(row).to_contain_text("acknowledged")
    await expect(row.get_by_role("button", name="Acknowledge")).to_have_count(0)
    sample = tab.page.get_by_role("row").filter(has_text=SAMPLE)
    await sample.get_by_role("button", name="Chart").click()
    chart = tab.page.locator(".alert-chart").first
    await expect(chart).to_be_visible()
    assert await chart.locator(".band").count() > 0
    assert "points from 2025-" in (await chart.get_attribute("aria-label") or "")
    if AXE.exists():
        await tab.page.evaluate(f"() => {{ {AXE.read_text()} }}")
        assert await tab.page.evaluate(RUN) == []
    await api.delete(f"/alerts/rules/{rule}")
    await expect(row).to_have_count(0, timeout=30_000)
    assert [each for each in tab.said if "error" in each.lower()] == []


async def test_the_line_of_a_tile_has_the_band_of_its_rule_and_the_unusual_points(visit, api, make_board):
    board, (metric,) = await make_board(DAILY)
    body = {"name": "Few", "metric_id": metric, "column": "n", "kind": "threshold", "below": 5, "above": 7}
    rule = (await api.post("/alerts/rules", json=body)).raise_for_status().json()["id"]
    bands = (await api.get(f"/alerts/rules/{rule}/bands")).json()["series"][0]["points"]
    unusual = [each for each in bands if each["unusual"]]
    assert unusual
    tab: Tab = await visit(f"/d/{board}")
    chart = tab.tile(metric).locator(".chart")
    await expect(chart.locator(".usual")).to_have_count(1, timeout=30_000)
    await expect(chart.locator(".unusual")).to_have_count(len(unusual))
    await api.delete(f"/alerts/rules/{rule}")


async def test_the_page_is_html_and_the_list_is_below_the_api(api, address):
    page = await api.get(f"{address}/alerts")
    assert page.headers["content-type"].startswith("text/html")
    assert "items" in (await api.get("/alerts")).json()


async def test_series_told_apart_by_numbers_are_shown_with_all_digits(visit, api, make_board):
    rates = ["0.12345678901234567891", "0.12345678901234567892"]
    values = ", ".join(f"({rate}::numeric, 5)" for rate in rates)
    _, (metric,) = await make_board(f"SELECT rate, customers FROM (VALUES {values}) AS t (rate, customers)")
    body = {"name": "Rates", "metric_id": metric, "column": "customers", "kind": "threshold"}
    assert (await api.post("/alerts/rules", json=body | {"above": 1, "by": ["rate"]})).status_code == 201
    tab: Tab = await visit("/alerts", wait=False)
    for rate in rates:
        row = tab.page.locator("[data-alert]").filter(has_text=f"rate {rate}")
        await row.get_by_role("button", name="Chart").click(timeout=30_000)
        await expect(tab.page.locator("#chart figcaption")).to_have_text([f"Rates: rate {rate}"])
