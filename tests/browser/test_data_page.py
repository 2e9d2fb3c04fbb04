"""The page Data: a file is tried and imported, broken rows are mended in place, and the numbers follow."""

import csv
import io
from urllib.parse import urljoin

from playwright.async_api import Route

from tests.browser.dashboards import COUNT, api, make_board, visit
from tests.waiting import until

__all__ = ["api", "make_board", "visit"]  # fixtures


def file(name: str, text: str) -> dict:
    return {"name": name, "mimeType": "text/csv", "buffer": text.encode()}


async def choose(tab, dataset: str, name: str, text: str):
    await tab.page.locator("#dataset option").first.wait_for(state="attached")
    await tab.page.select_option("#dataset", dataset)
    await tab.page.set_input_files("#file", [file(name, text)])


async def test_a_file_is_tried_imported_and_mended_and_the_number_changes(visit, api, make_board):
    board, [metric] = await make_board(COUNT)
    watching = await visit(f"/d/{board}")
    await watching.shows(watching.page.locator("#live"), "Live")
    before = (await api.get(f"/metrics/{metric}")).json()["records"][0]["customers"]
    await watching.shows(watching.tile(metric).locator(".headline"), str(before))

    tab = await visit("/data", wait=False)
    page, report = tab.page, tab.page.locator("#report")
    text = "customer_id,occupation,type\n700001,Buyer,Manufacturer\nseven,Fitter,Manufacturer\n"
    await choose(tab, "customers", "new ones.csv", text)
    await tab.shows(report, "new ones.csv would be imported into customers")
    sums = (await report.locator(".sum").inner_text()).replace("\n", " ")
    assert sums == "2 read = 1 inserted + 0 updated + 0 unchanged + 1 quarantined"
    assert (await api.get(f"/metrics/{metric}")).json()["records"][0]["customers"] == before
    await report.get_by_role("button", name="Import").click()
    await tab.shows(report, "new ones.csv is imported into customers")
    await watching.shows(watching.tile(metric).locator(".headline"), str(before + 1))

    row = page.get_by_role("form", name="customers, new ones.csv, line 3")
    wrong = row.get_by_label("customer_id")
    assert await wrong.get_attribute("aria-invalid") == "true"
    message = page.locator(f'[id="{await wrong.get_attribute("aria-describedby")}"]')
    assert "seven" in await message.inner_text()
    await wrong.fill("eight")
    await row.get_by_role("button", name="Save and load").click()
    await tab.shows(message, "eight")
    await wrong.fill("700002")
    await row.get_by_role("button", name="Save and load").click()
    await row.wait_for(state="detached")
    await watching.shows(watching.tile(metric).locator(".headline"), str(before + 2))
    await tab.shows(page.locator("#runs"), "new ones.csv")


async def test_numbers_are_shown_and_loaded_with_all_their_digits(visit, api):
    tab = await visit("/data", wait=False)
    text = '[{"id": "exact", "date": "2025-06-33", "obsolescence": 12345678901234567890.125}]'
    await choose(tab, "metric_records", "exact.json", text)
    await tab.page.locator("#report").get_by_role("button", name="Import").click()
    row = tab.page.get_by_role("form", name="metric_records, exact.json, line 1")
    assert await row.get_by_label("obsolescence", exact=True).input_value() == "12345678901234567890.125"
    await row.get_by_label("date", exact=True).fill("2025-06-03")
    await row.get_by_role("button", name="Save and load").click()
    await row.wait_for(state="detached")
    sql = "SELECT obsolescence::text AS stored FROM metrics WHERE id = 'exact'"
    preview = await api.post("/metrics/preview", json={"sql": sql})
    assert preview.json()["records"] == [{"stored": "12345678901234567890.125"}]


async def test_a_file_that_cannot_be_read_says_why_and_changes_nothing(visit, api):
    tab = await visit("/data", wait=False)
    runs = len((await api.get("/imports?limit=500")).json()["items"])
    await choose(tab, "customers", "broken.csv", 'customer_id,occupation,type\n1,"open,x\n')
    await tab.shows(tab.page.get_by_role("alert"), "broken.csv: ")
    await choose(tab, "customers", "other.csv", "colour\nred\n")
    await tab.shows(tab.page.get_by_role("alert"), "other.csv: ")
    assert len((await api.get("/imports?limit=500")).json()["items"]) == runs


async def test_a_file_is_dropped_and_a_trial_can_be_left(visit, api):
    tab = await visit("/data", wait=False)
    page = tab.page
    await page.locator("#dataset option").first.wait_for(state="attached")
    await page.select_option("#dataset", "customers")
    transfer = await page.evaluate_handle(
        """(text) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([text], 'dropped.csv'));
            return transfer;
        }""",
        "customer_id,occupation,type\n700009,x,Manufacturer\n",
    )
    await page.dispatch_event("#drop", "drop", {"dataTransfer": transfer})
    report = page.locator("#report")
    await tab.shows(report, "dropped.csv would be imported")
    await report.get_by_role("button", name="Cancel").click()
    assert await report.inner_text() == ""
    runs = (await api.get("/imports?dataset=customers&limit=500")).json()["items"]
    assert "dropped.csv" not in [each["source"] for each in runs]


async def test_the_quarantine_is_shown_by_reason_and_column_and_exported(visit, api):
    tab = await visit("/data", wait=False)
    page, rows = tab.page, tab.page.locator("#rows form")
    await (
        page.get_by_role("group", name="Quarantine")
        .get_by_label("Dataset")
        .select_option("external_interactions")
    )
    kept = await api.get("/quarantine?dataset=external_interactions&status=open&limit=500")
    everything = kept.json()["items"]

    async def shows(number: int) -> None:
        async def so_many() -> bool:
            return await rows.count() == number

        await until(so_many)

    await shows(len(everything))
    dates = [row for row in everything if row["message"].startswith("date_start: ")]
    assert 0 < len(dates) < len(everything)
    await page.get_by_role("group", name="Column").get_by_role("button", name="date_start").click()
    await shows(len(dates))
    async with page.expect_download() as waiting:
        await page.get_by_role("link", name="Export as CSV").click()
    path = await (await waiting.value).path()
    found = list(csv.DictReader(io.StringIO(path.read_text())))
    assert {row["quarantine_id"] for row in found} == {row["id"] for row in everything}


async def test_rows_of_the_filter_before_do_not_come_back(visit, api):
    body = "customer_id,occupation,type\nnobody,x,Manufacturer\n"
    await api.post("/imports/customers", content=body, headers={"Content-Type": "text/csv"})
    tab = await visit("/ask", wait=False)  # a request of a page that is left would be held for nothing
    held: list[Route] = []
    await tab.page.route("**/api/v1/datasets/customers", lambda route: held.append(route))  # noqa: PLW0108 (Playwright marks it)
    await tab.page.goto(urljoin(tab.page.url, "/data"))
    await until(lambda: held)  # all rows are there, and wait for the columns of some
    which = tab.page.get_by_role("group", name="Quarantine").get_by_label("Dataset")
    await which.select_option("external_interactions")
    await tab.page.locator("#rows form").first.wait_for()
    async with tab.page.expect_response("**/api/v1/datasets/customers"):
        await held[0].continue_()
    await tab.page.evaluate("() => new Promise((done) => setTimeout(done, 0))")
    names = await tab.page.locator("#rows form").evaluate_all("rows => rows.map((each) => each.ariaLabel)")
    assert {name.split(",")[0] for name in names} == {"external_interactions"}


async def test_a_row_is_discarded_by_two_clicks(visit, api):
    body = "customer_id,occupation,type\nnone,Fitter,Manufacturer\n"
    await api.post("/imports/customers", content=body, headers={"Content-Type": "text/csv"})
    [kept] = [
        row
        for row in (await api.get("/quarantine?dataset=customers&status=open&limit=500")).json()["items"]
        if "none" in row["raw"].values()
    ]
    tab = await visit("/data", wait=False)
    row = tab.page.locator(f'[data-row="{kept["id"]}"]')
    await row.get_by_role("button", name="Discard").click()
    assert (await api.get(f"/quarantine/{kept['id']}")).json()["status"] == "open"
    await row.get_by_role("button", name="Discard it?").click()
    await row.wait_for(state="detached")
    assert (await api.get(f"/quarantine/{kept['id']}")).json()["status"] == "discarded"
    await tab.page.get_by_role("button", name="Try all again").click()
    await tab.shows(tab.page.locator("[data-retried]"), "still broken")
