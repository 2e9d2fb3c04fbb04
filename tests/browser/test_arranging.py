"""Tiles are arranged by mouse, touch and keyboard, and stay where they were put."""

from playwright.async_api import Browser

from tests.browser.dashboards import BY_TYPE, COUNT, DAILY, Tab, api, make_board, visit
from tests.waiting import until

__all__ = ["api", "make_board", "visit"]  # fixtures

ALL = (DAILY, BY_TYPE, COUNT)


async def begin(tab: Tab) -> None:
    await tab.page.get_by_role("button", name="Arrange").click()
    await tab.page.locator(".arranging").wait_for()


async def end(tab: Tab) -> None:
    await tab.page.get_by_role("button", name="Done").click()
    await tab.page.locator(".arranging").wait_for(state="detached")


async def saved(tab: Tab, times: int = 1) -> None:
    async def found() -> bool:
        return int(await tab.page.locator("#grid").get_attribute("data-saved") or 0) >= times

    await until(found)


async def boxes(tab: Tab, metrics: list[str]) -> list[tuple[int, int, int, int]]:
    found = [await tab.tile(each).bounding_box() for each in metrics]
    return [tuple(round(box[key]) for key in ("x", "y", "width", "height")) for box in found]


async def places(api, board: str, size: str = "lg") -> dict[str, tuple[int, int, int, int]]:
    layouts = (await api.get(f"/dashboards/{board}")).json()["layouts"]
    return {each["i"]: (each["x"], each["y"], each["w"], each["h"]) for each in layouts[size]}


async def drag(tab: Tab, metric: str, x: float, y: float, *, corner: bool = False, drop: bool = True) -> None:
    box = await tab.tile(metric).bounding_box()
    at = (
        (box["x"] + box["width"] - 8, box["y"] + box["height"] - 8)
        if corner
        else (box["x"] + 60, box["y"] + 20)
    )
    mouse = tab.page.mouse
    await mouse.move(*at)
    await mouse.down()
    await mouse.move(at[0] + x / 2, at[1] + y / 2)
    await mouse.move(at[0] + x, at[1] + y)
    if drop:
        await mouse.up()


async def test_a_dragged_tile_stays_where_it_was_dropped(visit, api, make_board):
    board, metrics = await make_board(*ALL)
    tab = await visit(f"/d/{board}")
    first, second, third = metrics
    assert await places(api, board) == {first: (0, 0, 6, 8), second: (6, 0, 6, 8), third: (0, 8, 6, 8)}
    await begin(tab)
    await drag(tab, first, 600, 0)
    await saved(tab)
    await end(tab)
    expected = {first: (6, 0, 6, 8), second: (6, 8, 6, 8), third: (0, 0, 6, 8)}
    assert await places(api, board) == expected
    seen = await boxes(tab, metrics)
    await tab.page.reload()
    await tab.settled()
    assert await boxes(tab, metrics) == seen
    order = await tab.page.locator(".tile").evaluate_all("all => all.map(each => each.dataset.metric)")
    assert order == [third, first, second]


async def test_a_corner_resizes(visit, api, make_board):
    board, [metric] = await make_board(DAILY)
    tab = await visit(f"/d/{board}")
    await begin(tab)
    await drag(tab, metric, 205, 110, corner=True)
    await saved(tab)
    assert await places(api, board) == {metric: (0, 0, 8, 11)}


async def test_the_keyboard_moves_resizes_and_undoes(visit, api, make_board):
    board, metrics = await make_board(*ALL, titles=("One", "Two", "Three"))
    first, second, third = metrics
    tab = await visit(f"/d/{board}")
    await begin(tab)
    told = tab.page.locator("#announce")
    await tab.tile(first).focus()
    steps = [
        ("ArrowRight", "One: column 2, row 1, 6 wide, 8 high."),
        ("ArrowLeft", "One: column 1, row 1, 6 wide, 8 high."),
        ("ArrowDown", "One: column 1, row 9, 6 wide, 8 high."),
        ("Shift+ArrowRight", "One: column 1, row 9, 7 wide, 8 high."),
        ("Shift+ArrowUp", "One: column 1, row 9, 7 wide, 7 high."),
        ("ArrowLeft", "One cannot go further."),
        ("Escape", "Undone."),
    ]
    for key, text in steps:
        await tab.page.keyboard.press(key)
        assert await told.text_content() == text
    await saved(tab)
    await end(tab)
    expected = {first: (0, 8, 7, 8), second: (6, 0, 6, 8), third: (0, 0, 6, 8)}
    await until(lambda: _same(api, board, expected))
    seen = await boxes(tab, metrics)
    await tab.page.reload()
    await tab.settled()
    assert await boxes(tab, metrics) == seen


async def _same(api, board: str, expected: dict[str, tuple[int, int, int, int]]) -> bool:
    return await places(api, board) == expected


async def test_escape_gives_up_a_drag(visit, api, make_board):
    board, metrics = await make_board(*ALL)
    tab = await visit(f"/d/{board}")
    await begin(tab)
    before = await places(api, board)
    seen = await boxes(tab, metrics)
    await drag(tab, metrics[0], 600, 300, drop=False)
    assert await boxes(tab, metrics) != seen
    await tab.page.keyboard.press("Escape")
    await tab.page.mouse.up()
    assert await boxes(tab, metrics) == seen
    await end(tab)
    assert await places(api, board) == before


async def test_a_fixed_tile_does_not_move(visit, api, make_board):
    board, [first, second] = await make_board(DAILY, BY_TYPE)
    layouts = {"lg": [
        {"i": first, "x": 0, "y": 0, "w": 6, "h": 8, "static": True},
        {"i": second, "x": 6, "y": 0, "w": 6, "h": 8},
    ]}  # fmt: skip
    await api.put(f"/dashboards/{board}/layouts", json=layouts)
    tab = await visit(f"/d/{board}")
    await begin(tab)
    await drag(tab, first, 300, 0)
    await tab.tile(first).focus()
    await tab.page.keyboard.press("ArrowRight")
    assert await tab.page.locator("#announce").text_content() == "Metric 0 is fixed."
    await tab.tile(second).focus()
    await tab.page.keyboard.press("ArrowLeft")
    await saved(tab)
    assert await places(api, board) == {first: (0, 0, 6, 8), second: (5, 8, 6, 8)}


async def test_one_size_is_arranged_and_the_others_stay(visit, api, make_board):
    board, metrics = await make_board(*ALL)
    narrow = {"sm": [{"i": each, "x": 0, "y": 8 * at, "w": 1, "h": 8} for at, each in enumerate(metrics)]}
    stored = (await api.get(f"/dashboards/{board}")).json()["layouts"]
    await api.put(f"/dashboards/{board}/layouts", json={**stored, **narrow})
    tab = await visit(f"/d/{board}", width=390)
    await begin(tab)
    await tab.tile(metrics[2]).focus()
    await tab.page.keyboard.press("ArrowUp")
    await saved(tab)
    first, second, third = metrics
    assert await places(api, board, "sm") == {first: (0, 0, 1, 8), third: (0, 8, 1, 8), second: (0, 16, 1, 8)}
    assert await places(api, board) == {first: (0, 0, 6, 8), second: (6, 0, 6, 8), third: (0, 8, 6, 8)}


async def test_touch_moves_a_tile(browser: Browser, address, api, make_board):
    board, metrics = await make_board(*ALL)
    context = await browser.new_context(has_touch=True, viewport={"width": 1280, "height": 900})
    tab = Tab(await context.new_page())
    await tab.page.goto(f"{address}/d/{board}")
    await tab.settled()
    await begin(tab)
    box = await tab.tile(metrics[0]).bounding_box()
    devtools = await context.new_cdp_session(tab.page)
    x, y = box["x"] + 60, box["y"] + 20
    for kind, points in [
        ("touchStart", [{"x": x, "y": y}]),
        ("touchMove", [{"x": x + 300, "y": y}]),
        ("touchMove", [{"x": x + 600, "y": y}]),
        ("touchEnd", []),
    ]:
        await devtools.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    await saved(tab)
    assert (await places(api, board))[metrics[0]] == (6, 0, 6, 8)

    # Elsewhere a finger scrolls the page, which tiles fill on a phone.
    touch_action = "each => getComputedStyle(each.querySelector('.tile-body')).touchAction"
    assert await tab.tile(metrics[0]).evaluate(touch_action) == "auto"
    assert await tab.tile(metrics[0]).evaluate("each => getComputedStyle(each).touchAction") == "auto"
    await context.close()


async def test_a_tile_is_taken_off_and_another_put_on(visit, api, make_board):
    board, [kept, gone] = await make_board(DAILY, BY_TYPE, titles=("Kept", "Gone"))
    tab = await visit(f"/d/{board}")
    await begin(tab)
    await tab.page.get_by_role("button", name="Take Gone off this dashboard").click()
    await saved(tab)
    assert await places(api, board) == {kept: (0, 0, 6, 8)}
    assert (await api.get(f"/metrics/{gone}")).status_code == 200
    await end(tab)
    await tab.page.get_by_role("button", name="More of this dashboard").click()
    await tab.page.get_by_role("menuitem", name="Add a metric").click()
    await tab.page.get_by_label("Metric", exact=True).select_option(gone)
    await tab.page.get_by_role("button", name="Add", exact=True).click()
    await tab.tile(gone).locator(".bars").wait_for(state="attached")


async def test_dashboards_are_made_named_and_deleted(visit, api, make_board):
    board, _ = await make_board(DAILY)
    tab = await visit(f"/d/{board}")
    page = tab.page

    async def choose(item: str) -> None:
        await page.get_by_role("button", name="More of this dashboard").click()
        await page.get_by_role("menuitem", name=item).click()

    await choose("New dashboard")
    await page.get_by_label("Title").fill("Größe & Zahl")
    await page.get_by_role("button", name="Create").click()
    await page.get_by_role("heading", name="Größe & Zahl").wait_for()
    assert "This dashboard is empty" in await page.locator("main").inner_text()
    assert page.url.endswith("/d/grosse-zahl")
    await choose("Rename this dashboard")
    await page.get_by_label("Title").fill("Zahl")
    await page.get_by_role("button", name="Rename").click()
    await page.get_by_role("heading", name="Zahl", exact=True).wait_for()
    await choose("Delete this dashboard")
    await page.get_by_role("button", name="Delete", exact=True).click()
    await until(lambda: page.url.count("/d/") == 0)
    assert (await api.get("/dashboards/grosse-zahl")).status_code == 404


async def test_places_that_were_not_saved_say_so_until_they_are(visit, make_board):
    board, [metric] = await make_board(DAILY)
    tab = await visit(f"/d/{board}")
    await begin(tab)
    await tab.page.route("**/layouts", lambda route: route.fulfill(status=503, json={"detail": "Busy."}))
    await drag(tab, metric, 205, 110, corner=True)
    await tab.shows(tab.page.locator("#notice"), "The places were not saved: Busy.")
    await tab.page.unroute("**/layouts")
    await drag(tab, metric, 205, 0, corner=True)
    await saved(tab)
    assert not await tab.page.locator("#notice").is_visible()
