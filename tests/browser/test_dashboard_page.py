"""A dashboard as people use it: first paint, live changes, the period, states, tables, links to its parts."""

import re

import pytest

from tests.browser.dashboards import BY_TYPE, COUNT, DAILY, api, make_board, visit
from tests.waiting import until

__all__ = ["api", "make_board", "visit"]  # fixtures


COUNTED = """
window.counted = { drawn: 0, measuredAfter: 0 };
const replace = Element.prototype.replaceChildren;
Element.prototype.replaceChildren = function (...nodes) {
  if (this.classList.contains('drawing')) counted.drawn++;
  return replace.apply(this, nodes);
};
const width = Object.getOwnPropertyDescriptor(Element.prototype, 'clientWidth');
Object.defineProperty(Element.prototype, 'clientWidth', { get() {
  if (this.classList.contains('tile-chart') && counted.drawn && counted.drawn < 8) counted.measuredAfter++;
  return width.get.call(this);
} });
"""


def plain(text: str) -> str:
    return text.replace(",", "").replace("−", "-")  # noqa: RUF001 (a minus sign)


async def test_the_first_paint_shows_the_numbers_of_the_api_in_one_request(visit, api):
    tab = await visit("/")
    assert len(tab.asked("/api/v1/dashboards/")) == 1
    assert not tab.asked("/api/v1/metrics/")
    results = (await api.get("/dashboards/default/data")).json()["results"]
    assert len(results) > 10
    for entry in results:
        tile, records = tab.tile(entry["id"]), entry["result"]["records"]
        if not records:
            assert "No rows" in await tile.inner_text()
            continue
        if await tile.locator(".plot").is_visible():
            await tile.locator(".plot").focus()
            await tab.page.keyboard.press("t")
        rows = tile.locator("tbody tr")
        assert await rows.count() == min(len(records), 200)
        for number, record in enumerate(records[:3]):
            cells = [plain(each) for each in await rows.nth(number).locator("td").all_text_contents()]
            for cell, value in zip(cells, record.values(), strict=True):
                if isinstance(value, (int, float)):
                    assert float(re.sub(r"[^\d.-]", "", cell)) == value
                elif value is not None and not re.match(r"\d{4}-", value):
                    assert cell == plain(value)


async def test_the_numbers_are_asked_for_once_whatever_stands_in_the_address(visit, make_board):
    board, _ = await make_board(
        "SELECT :region AS region, count(*) AS n FROM customers WHERE :region <> ''", DAILY
    )
    tab = await visit(f"/d/{board}?start_date=2025-05-01&region=N%C3%B6rd%20%2B+x&end_date=2025-05-31&a=")
    assert len(tab.asked("/data")) == 1
    assert "Nörd + x" in await tab.page.locator("#grid").inner_text()


async def test_opening_a_page_runs_nothing_that_is_held(visit, api, make_board):
    board, metrics = await make_board("SELECT count(*) AS n FROM customers")
    held = await api.get(f"/metrics/{metrics[0]}")
    for _ in range(2):
        tab = await visit(f"/d/{board}")
        sent = [each.headers["cache-control"] for each in tab.requests if "/data" in each.url]
        assert sent == ["max-stale"]
    now = await api.get(f"/metrics/{metrics[0]}")
    assert now.json()["as_of"] == held.json()["as_of"]


async def test_each_chart_is_drawn_once_and_all_are_measured_together(visit, make_board, context):
    """Each measuring of one tile after the drawing of another would be a layout of its own."""
    board, _ = await make_board(*[f"{DAILY} -- {number}" for number in range(8)])
    await context.add_init_script(COUNTED)
    tab = await visit(f"/d/{board}")
    drawn = "document.querySelectorAll('.drawing > g').length"
    await until(lambda: tab.page.evaluate(f"{drawn} === 8"))
    await tab.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
    assert await tab.page.evaluate("[counted.drawn, counted.measuredAfter]") == [8, 0]
    await tab.page.set_viewport_size({"width": 700, "height": 900})
    await until(lambda: tab.page.evaluate("counted.drawn >= 16"))  # each follows its size


async def test_what_the_page_shows_is_not_sent_again_by_its_stream(visit, api, make_board):
    board, metrics = await make_board(BY_TYPE, COUNT)
    tab = await visit(f"/d/{board}")
    await tab.shows(tab.page.locator("#live"), "Live")
    (stream,) = [each for each in tab.requests if "/events" in each.url]
    held = stream.headers["last-event-id"]
    assert sorted(each.split(":")[0] for each in held.split(",")) == sorted(metrics)
    assert not tab.asked("/api/v1/metrics/")
    async with api.stream("GET", stream.url, headers={"Last-Event-ID": held}) as answer:
        assert await anext(answer.aiter_lines()) == ":"  # a comment, where a result would stand


async def test_a_big_number_is_shown_exactly(visit, make_board):
    board, [metric] = await make_board("SELECT 9007199254740993 AS n, 12345678901234567890.10 AS m")
    tab = await visit(f"/d/{board}")
    assert await tab.tile(metric).locator("td").all_inner_texts() == [
        "9,007,199,254,740,993",
        "12,345,678,901,234,567,890.10",
    ]


async def test_a_change_of_the_data_is_shown_without_reload(visit, api, make_board):
    board, [metric] = await make_board(COUNT)
    tab = await visit(f"/d/{board}")
    await tab.shows(tab.page.locator("#live"), "Live")
    await tab.page.evaluate("() => { window.same = true }")
    before = (await api.get(f"/metrics/{metric}")).json()["records"][0]["customers"]
    await tab.shows(tab.tile(metric).locator(".headline"), str(before))
    file = f"customer_id,occupation,type\n{before + 500},Buyer,Manufacturer\n"
    answer = await api.post("/imports/customers", content=file, headers={"Content-Type": "text/csv"})
    assert answer.json()["inserted"] == 1
    await tab.shows(tab.tile(metric).locator(".headline"), str(before + 1))
    assert await tab.page.evaluate("() => window.same")
    assert len(tab.asked("/data")) == 1


async def test_the_period_of_the_page_stands_in_its_address(visit, make_board):
    board, [metric, other] = await make_board(DAILY, BY_TYPE)
    tab = await visit(f"/d/{board}")
    page = tab.page
    caption = tab.tile(metric).locator("figcaption")
    await tab.shows(caption, " May 2025 to ")
    await page.get_by_role("button", name="own period").click()
    await page.get_by_label("From", exact=True).fill("2025-06-01")
    await page.get_by_label("To", exact=True).fill("2025-06-30")
    await page.get_by_role("button", name="Apply").click()
    await tab.shows(caption, " Jun 2025 to ")
    assert page.url.endswith(f"/d/{board}?start_date=2025-06-01&end_date=2025-06-30")
    await tab.shows(tab.tile(other).locator(".tile-foot"), "Own period")
    assert not await tab.tile(metric).locator(".chip").is_visible()

    await page.get_by_role("button", name="The period before").click()
    await tab.shows(caption, " May 2025 to ")
    await page.get_by_role("button", name="The next period").click()
    await tab.shows(caption, " Jun 2025 to ")
    await page.go_back()
    await tab.shows(caption, " May 2025 to ")
    assert "start_date=2025-05-01" in page.url
    await page.reload()
    await tab.settled()
    await tab.shows(caption, " May 2025 to ")

    await page.get_by_role("button", name="1 May 2025").click()
    await page.get_by_role("button", name="Last 30 days").click()
    await until(lambda: "day_range=30" in page.url)


async def test_two_dates_the_wrong_way_round_say_so(visit, make_board):
    board, _ = await make_board(DAILY)
    page = (await visit(f"/d/{board}")).page
    await page.get_by_role("button", name="own period").click()
    await page.get_by_label("From", exact=True).fill("2025-06-30")
    await page.get_by_label("To", exact=True).fill("2025-06-01")
    await page.get_by_role("button", name="Apply").click()
    assert await page.get_by_role("alert").inner_text() == "The first day is after the last day."
    assert "start_date" not in page.url


async def test_the_period_before_is_shown_on_numbers_and_lines(visit, make_board):
    total = "SELECT count(*) AS n FROM metrics WHERE date BETWEEN '2025-05-01' AND '2025-05-31'"
    board, [line, number] = await make_board(DAILY, total)
    tab = await visit(f"/d/{board}?start_date=2025-05-01&end_date=2025-05-31")
    await tab.page.get_by_role("button", name="Compare").click()
    await tab.tile(line).locator(".line.before").wait_for(state="attached")
    await tab.shows(tab.tile(number).locator("figcaption"), "against the period before")
    assert "compare=1" in tab.page.url
    await tab.page.reload()
    await tab.tile(line).locator(".line.before").wait_for(state="attached")
    await tab.page.get_by_role("button", name="Compare").click()
    await tab.tile(line).locator(".line.before").wait_for(state="detached")


async def test_the_old_numbers_stay_while_new_ones_come(visit, make_board):
    board, [metric] = await make_board(DAILY)
    tab = await visit(f"/d/{board}?day_range=999")
    waiting = []
    await tab.page.route("**/data?*", lambda route: waiting.append(route))  # noqa: PLW0108 (Playwright marks it)
    await tab.page.get_by_role("button", name="The period before").click()
    await until(lambda: len(waiting) == 1)
    tile = tab.tile(metric)
    assert await tile.get_attribute("aria-busy") == "true"
    assert await tile.locator(".line").is_visible()
    await waiting[0].continue_()
    await tab.settled()


async def test_a_tile_without_rows_says_of_which_period(visit, make_board):
    board, [metric] = await make_board(DAILY)
    tab = await visit(f"/d/{board}?start_date=1999-01-01&end_date=1999-12-31")
    assert await tab.tile(metric).get_attribute("data-state") == "empty"
    note = tab.tile(metric).locator(".tile-note")
    assert await note.inner_text() == "No rows\n\nNothing was found from 1999-01-01 to 1999-12-31."
    await note.focus()  # in a low tile it scrolls, also by keyboard
    assert await note.evaluate("note => note === document.activeElement")


async def test_a_query_that_fails_says_why_and_what_to_do(visit, api, make_board):
    board, [metric, fine] = await make_board("SELECT 1 / (count(*) - count(*)) AS n FROM customers", BY_TYPE)
    tab = await visit(f"/d/{board}")
    tile = tab.tile(metric)
    assert await tile.get_attribute("data-state") == "error"
    assert "division by zero" in await tile.inner_text()
    assert await tile.get_by_role("link", name="What to do").get_attribute("href") == "/problems/query-failed"
    assert await tab.tile(fine).get_attribute("data-state") == "ready"
    await tile.get_by_role("button", name="Try again").click()
    await tab.settled()
    assert "division by zero" in await tile.inner_text()
    await api.patch(f"/metrics/{metric}", json={"sql": "SELECT 7 AS n"})
    await tab.shows(tile.locator(".headline"), "7")


async def test_a_lost_network_leaves_the_numbers_and_says_since_when(visit, online, make_board):
    board, [metric] = await make_board(COUNT)
    tab = await visit(f"/d/{board}")
    badge, tile = tab.page.locator("#live"), tab.tile(metric)
    await tab.shows(badge, "Live")
    number = await tile.locator(".headline").text_content()
    await online(False)
    await tab.shows(badge, "Offline since")
    await tab.shows(tile.locator(".tile-note"), "the service cannot be reached. These are the last numbers.")
    assert await tile.locator(".headline").text_content() == number
    await online(True)
    await tab.shows(badge, "Live")
    await until(lambda: tile.locator(".tile-note").is_hidden())


async def test_a_page_opened_while_the_data_are_away_gets_them_when_they_are_back(visit, make_board):
    board, [metric] = await make_board(COUNT)
    tab = await visit(f"/d/{board}")
    await tab.page.route("**/data", lambda route: route.fulfill(status=503, body="{}"))
    await tab.page.reload()
    await tab.shows(tab.tile(metric), "Try again")
    await tab.page.unroute("**/data")
    await tab.tile(metric).locator(".headline").wait_for()


async def test_two_tabs_share_one_stream(visit, make_board):
    board, _ = await make_board(COUNT, BY_TYPE)
    one = await visit(f"/d/{board}")
    await one.shows(one.page.locator("#live"), "Live")
    two = await visit(f"/d/{board}")
    await two.shows(two.page.locator("#live"), "Live")
    assert len(one.asked("/events")) == 1
    assert not two.asked("/events")


async def test_a_chosen_chart_is_kept_on_the_server(visit, api, make_board):
    board, [metric] = await make_board(DAILY)
    tab = await visit(f"/d/{board}")
    await tab.menu(metric, "Bars")
    await tab.tile(metric).locator(".bars").wait_for(state="attached")

    async def kept() -> bool:
        return (await api.get(f"/dashboards/{board}")).json()["items"][0]["chart"] == "bar"

    await until(kept)
    await tab.page.reload()
    await tab.settled()
    assert await tab.tile(metric).locator(".bars").count() == 1
    await tab.menu(metric, "Automatic (line)")
    await tab.tile(metric).locator(".line").wait_for(state="attached")


async def test_a_chart_is_saved_as_a_picture_and_its_rows_as_csv(visit, make_board):
    board, [metric] = await make_board(BY_TYPE, titles=("Ärger & Alarme",))
    tab = await visit(f"/d/{board}")
    async with tab.page.expect_download() as picture:
        await tab.menu(metric, "Save as PNG")
    file = await (await picture.value).path()
    assert (await picture.value).suggested_filename.endswith("alarme.png")
    assert file.read_bytes().startswith(b"\x89PNG")
    async with tab.page.expect_download() as rows:
        await tab.menu(metric, "Save as CSV")
    assert (await (await rows.value).path()).read_text().startswith("alert_type,total")


async def test_only_the_chosen_tile_is_printed(visit, make_board):
    board, [one, other] = await make_board(BY_TYPE, DAILY)
    tab = await visit(f"/d/{board}")
    await tab.page.evaluate("() => { window.print = () => {} }")
    await tab.menu(one, "Print")
    await tab.page.emulate_media(media="print")
    assert await tab.tile(one).is_visible()
    assert not await tab.tile(other).is_visible()
    await tab.page.evaluate("() => dispatchEvent(new Event('afterprint'))")
    assert await tab.tile(other).is_visible()


@pytest.mark.parametrize("width", [390, 1280, 2560])
async def test_a_page_fits_its_width(visit, make_board, width):
    title = "Lieferantenqualitätsbewertungsdurchschnittsabweichung der Zulieferbetriebe je Kalendermonat"
    arabic = "متوسط عدد التفاعلات لكل عميل خلال الشهر الماضي مقارنة بالشهر السابق"
    board, metrics = await make_board(
        "SELECT 98765432109876543210.25 AS total_eur", DAILY, BY_TYPE, titles=(title, arabic), title=title
    )
    tab = await visit(f"/d/{board}", width=width)
    assert await tab.page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    boxes = [await tab.tile(each).bounding_box() for each in metrics]
    assert all(box["x"] >= 0 and box["x"] + box["width"] <= width for box in boxes)
    assert len({box["x"] for box in boxes}) == (1 if width == 390 else 2)
    for metric in metrics:
        wide = "each => each.scrollWidth <= each.clientWidth + 1"
        assert await tab.tile(metric).locator(".tile-body").evaluate(wide)
        assert await tab.tile(metric).locator(".tile-title").evaluate(wide)


@pytest.mark.usefixtures("context")
async def test_the_age_of_a_tile_is_told_and_grows(visit, make_board):
    board, [metric] = await make_board(COUNT)
    tab = await visit(f"/d/{board}", wait=False)
    await tab.page.clock.install()
    await tab.page.reload()
    await tab.settled()
    age = tab.tile(metric).locator("time")
    assert await age.get_attribute("datetime")
    await tab.page.clock.fast_forward("02:05")
    await tab.shows(age, "2 min ago")
