"""The pages around the dashboards: signing in and out, links, frames, walls, errors, themes."""

import asyncio
from collections.abc import AsyncGenerator, Generator
from hashlib import sha256
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.async_api import expect

from tests.browser.conftest import Tabs
from tests.browser.dashboards import BY_TYPE, COUNT, DAILY, Tab, visit
from tests.browser.test_accessibility import THEMES, axe, findings_of_themes
from tests.loopback import calling
from tests.processes import free_port, serving_seeds
from tests.waiting import until

__all__ = ["axe", "visit"]  # fixtures

SECRETS = {"editor": "a secret of the editor's own", "viewer": "a secret of the viewer's own"}
CLIENTS = ",".join(
    f"{name}:{sha256(SECRETS[name].encode()).hexdigest()}:{scopes}"
    for name, scopes in {"editor": "api/backend_access", "viewer": "metrics:read"}.items()
)
WIDTHS = [390, 1280, 2560]


@pytest.fixture(scope="module")
def address() -> Generator[str]:
    with serving_seeds(AUTH="on", AUTH_CLIENTS=CLIENTS) as found:
        yield found


@pytest.fixture
async def api(address: str) -> AsyncGenerator[httpx.AsyncClient]:
    async with calling(address) as client:
        credentials = ("editor", SECRETS["editor"])
        answer = await client.post(
            "/oauth2/token", data={"grant_type": "client_credentials"}, auth=credentials
        )
        client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
        yield client


async def fill(tab: Tab, name: str, secret: str) -> None:
    await tab.page.get_by_label("Client id").fill(name)
    await tab.page.get_by_label("Secret").fill(secret)
    await tab.page.get_by_label("Secret").press("Enter")


@pytest.fixture
def sign_in(visit):
    async def signed_in(name: str = "editor", path: str = "/", **options) -> Tab:
        tab = await visit(path, wait=False, **options)
        await fill(tab, name, SECRETS[name])
        await tab.settled()
        return tab

    return signed_in


async def test_people_sign_in_see_the_page_that_they_wanted_and_sign_out(visit, address):
    tab = await visit("/?start_date=2025-06-01&end_date=2025-06-30", wait=False)
    assert urlsplit(tab.page.url).path == "/sign-in"
    await expect(tab.page.get_by_label("Client id")).to_be_focused()
    await fill(tab, "editor", SECRETS["editor"])
    await tab.settled()
    assert tab.page.url == f"{address}/?start_date=2025-06-01&end_date=2025-06-30"
    await expect(tab.page.locator("#live")).to_contain_text("Live")
    assert "tally" not in await tab.page.evaluate("document.cookie")
    assert SECRETS["editor"] not in "".join(tab.asked(""))
    await tab.page.get_by_role("button", name="Sign out").click()
    await expect(tab.page.get_by_role("heading", name="Sign in")).to_be_visible()
    await tab.page.go_back()
    await expect(tab.page.get_by_role("heading", name="Sign in")).to_be_visible()
    assert (await tab.page.request.get(f"{address}/api/v1/metrics")).status == 401


async def test_a_wrong_secret_is_said_where_it_was_typed(visit):
    tab = await visit("/sign-in", wait=False)
    await fill(tab, "editor", "wrong")
    await expect(tab.page.get_by_role("alert")).to_have_text("Client id or secret is wrong.")
    await expect(tab.page.get_by_label("Client id")).to_have_value("editor")
    await expect(tab.page.get_by_label("Secret")).to_have_value("")


async def test_who_may_only_look_is_offered_nothing_else(sign_in):
    tab = await sign_in("viewer")
    for name in ("Share", "Arrange"):
        await expect(tab.page.get_by_role("button", name=name, exact=True)).to_have_count(0)
    assert await tab.page.locator(".nav a").all_text_contents() == ["Dashboards"]


async def test_signing_out_in_one_tab_ends_the_stream_of_the_other(sign_in, visit):
    tab = await sign_in()
    other = await visit("/")
    await expect(other.page.locator("#live")).to_contain_text("Live")
    await tab.page.get_by_role("button", name="Sign out").click()
    await expect(tab.page.get_by_role("heading", name="Sign in")).to_be_visible()
    await expect(other.page.locator("#live")).not_to_contain_text("Live", timeout=20_000)


async def test_a_link_on_another_site_opens_the_page_of_who_is_signed_in(sign_in, address):
    tab = await sign_in()
    elsewhere = address.replace("127.0.0.1", "localhost")
    await tab.page.goto(f"{elsewhere}/problems/not-found")
    await tab.page.evaluate("address => { location.href = address }", f"{address}/?day_range=30")
    await tab.settled()
    assert tab.page.url == f"{address}/?day_range=30"
    await expect(tab.page.get_by_role("button", name="Sign out")).to_be_visible()
    tab.requests.clear()  # those to the other site


async def test_a_form_of_another_site_signs_nobody_out(sign_in, address, tabs: Tabs):
    tab = await sign_in()
    other = await tabs.open()
    await other.goto(
        f"data:text/html,<form method=post action='{address}/sign-out'><button>x</button></form>"
    )
    async with other.expect_response("**/sign-out") as answer:
        await other.get_by_role("button").click()
    assert (await answer.value).status == 403
    await tab.page.reload()
    await tab.settled()
    await expect(tab.page.get_by_role("button", name="Sign out")).to_be_visible()


@pytest.fixture
async def stranger(browser, address):
    """A browser that has never been here."""
    context = await browser.new_context()
    yield await context.new_page()
    await context.close()


async def test_a_link_is_made_opened_by_a_stranger_and_revoked(sign_in, stranger, api):
    tab = await sign_in(path="/?start_date=2025-06-01&end_date=2025-06-30")
    page = tab.page
    await page.get_by_role("button", name="Share", exact=True).click()
    await expect(
        page.get_by_text("It always shows start_date = 2025-06-01, end_date = 2025-06-30.")
    ).to_be_visible()
    await page.get_by_label("Lasts for").select_option("a week")
    await page.get_by_role("button", name="Make a link").click()
    ready = page.get_by_role("status").filter(has_text="The link is ready.")
    link = await ready.get_by_label("Address of the link").input_value()
    said: list[str] = []
    stranger.on("console", lambda message: said.append(message.text))
    await stranger.goto(link)
    await expect(stranger.locator(".tile[aria-busy]")).to_have_count(0)
    await expect(stranger.locator("#live")).to_contain_text("Live")
    for name in ("Share", "Arrange", "Sign in", "Sign out"):
        await expect(stranger.get_by_text(name, exact=True)).to_have_count(0)
    results = (
        await api.get("/api/v1/dashboards/default/data?start_date=2025-06-01&end_date=2025-06-30")
    ).json()
    assert (await (await stranger.request.get(f"{link}/data")).json())["results"] == results["results"]
    assert said == []
    revoke = page.get_by_role("button", name="Revoke link").first
    await revoke.click()
    await revoke.click()
    await expect(page.locator(".link.over")).to_have_count(1)
    await stranger.reload()
    await expect(stranger.get_by_role("heading", name="Link ended")).to_be_visible()


@pytest.fixture
async def framing():
    """A server on another port whose one page frames what its query says."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1]
        page = b"<!doctype html><iframe src='%s' width=1200 height=800></iframe>" % line.partition(b"?")[2]
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n" % len(page)
        writer.write(head + page)
        writer.close()

    port = free_port()
    async with await asyncio.start_server(serve, "127.0.0.1", port):
        yield port


async def test_only_the_origins_of_a_link_may_frame_it(stranger, api, framing):
    allowed, other = f"http://localhost:{framing}", f"http://127.0.0.1:{framing}"
    answer = await api.post("/api/v1/dashboards/default/links", json={"embed": [allowed]})
    link = answer.json()["url"]
    tiles = stranger.frame_locator("iframe").locator(".tile")
    await stranger.goto(f"{allowed}/?{link}")
    await expect(tiles.first).to_be_visible()
    await expect(stranger.frame_locator("iframe").locator(".tile[aria-busy]")).to_have_count(0)
    await stranger.goto(f"{other}/?{link}")
    await until(lambda: len(stranger.frames) == 2 and "chrome-error" in stranger.frames[1].url)
    await expect(tiles).to_have_count(0)


async def test_a_wall_shows_nothing_but_numbers_and_one_dashboard_after_the_other(sign_in, api):
    made = await api.post("/api/v1/dashboards", json={"id": "wall", "title": "Zweite Tafel"})
    assert made.status_code == 201
    try:
        tab = await sign_in(path="/?kiosk&rotate=5")
        await expect(tab.page.locator(".topbar")).to_be_hidden()
        await expect(tab.page.locator(".tile").first).to_be_visible()
        await expect(tab.page.get_by_role("heading", name="Zweite Tafel")).to_be_visible(timeout=20_000)
        assert urlsplit(tab.page.url)[2:4] == ("/d/wall", "kiosk&rotate=5")
        await expect(tab.page.locator(".tile").first).to_be_visible(timeout=20_000)
    finally:
        await api.delete("/api/v1/dashboards/wall")


async def test_a_theme_is_kept(visit):
    tab = await visit("/sign-in", wait=False)
    button = tab.page.get_by_role("button", name="Theme")
    seen = []
    for _ in range(3):
        await button.click()
        seen.append(await tab.page.evaluate("document.documentElement.dataset.theme"))
    assert seen == ["light", "dark", "contrast"]
    await tab.page.reload()
    assert await tab.page.evaluate("document.documentElement.dataset.theme") == "contrast"
    await button.click()
    assert await tab.page.evaluate("document.documentElement.dataset.theme ?? 'auto'") == "auto"


FITS = """themes => themes.filter((theme) => {
  document.documentElement.dataset.theme = theme;
  return document.documentElement.scrollWidth > innerWidth;
})"""
FEWER = """() => {
  const seen = {};
  for (const form of document.querySelectorAll('.kept')) {
    const dataset = form.querySelector('strong').textContent;
    seen[dataset] = (seen[dataset] ?? 0) + 1;
    if (seen[dataset] > 2) form.remove();
  }
}"""
"""Forms for rows of one dataset are alike: that all fit is seen at once, but axe takes a second for fifty."""


async def check(tab: Tab, axe: str) -> None:
    """No serious finding and nothing to scroll sideways, at each width and in each theme."""
    for width in WIDTHS:
        await tab.page.set_viewport_size({"width": width, "height": 900})
        assert await tab.page.evaluate(FITS, THEMES) == [], (tab.page.url, width)
    await tab.page.evaluate(FEWER)
    for width in WIDTHS:
        await tab.page.set_viewport_size({"width": width, "height": 900})
        assert await findings_of_themes(tab, axe) == {}, (tab.page.url, width)


@pytest.fixture
async def link(api) -> AsyncGenerator[str]:
    """The path of a link to a dashboard that has a tile of each kind."""
    await api.post("/api/v1/dashboards", json={"id": "kinds", "title": "Kinds"})
    for sql in (DAILY, BY_TYPE, COUNT, "SELECT 'a' AS x, 'b' AS y"):
        body = {"sql": sql, "title": "A kind", "dashboards": [{"id": "kinds", "w": 6, "h": 8}]}
        (await api.post("/api/v1/metrics", json=body)).raise_for_status()
    answer = await api.post("/api/v1/dashboards/kinds/links", json={})
    yield urlsplit(answer.raise_for_status().json()["url"]).path
    await api.delete("/api/v1/dashboards/kinds")


async def test_no_page_for_everybody_has_a_serious_finding(visit, address, link, axe):
    tab = await visit("/sign-in", wait=False)
    await check(tab, axe)
    for path in ("/problems/sql-refused", "/nothing", link, f"{link}?kiosk", "/s/x.y"):
        await tab.page.goto(f"{address}{path}")
        if path.startswith(link):
            await tab.settled()
            await expect(tab.page.locator(".tile")).to_have_count(4)
        await check(tab, axe)


async def test_no_page_for_who_is_signed_in_has_a_serious_finding(sign_in, address, axe):
    tab = await sign_in()
    addresses = await tab.page.locator(".nav a").evaluate_all("links => links.map(each => each.pathname)")
    assert {"/", "/ask", "/data"} <= set(addresses)
    for path in ("/d", *addresses):
        await tab.page.goto(f"{address}{path}")
        if path == "/":
            await tab.settled()  # it holds a stream
        else:
            await tab.page.wait_for_load_state("networkidle")
        await check(tab, axe)
    await tab.page.goto(address)
    await tab.settled()
    await tab.page.get_by_role("button", name="Share", exact=True).click()
    await tab.page.get_by_role("button", name="Make a link").click()
    await expect(tab.page.get_by_text("The link is ready.")).to_be_visible()
    await tab.page.get_by_text("Show it within another page").click()
    assert await findings_of_themes(tab, axe) == {}


async def test_the_pages_are_used_by_keyboard_alone(visit):
    tab = await visit("/sign-in", wait=False)
    press = tab.page.keyboard.press
    await tab.page.keyboard.type("editor")
    await press("Tab")
    await tab.page.keyboard.type(SECRETS["editor"])
    await press("Enter")
    await tab.settled()
    await press("Tab")
    await expect(tab.page.get_by_role("link", name="Skip to the content")).to_be_focused()
    await press("Enter")
    share = tab.page.get_by_role("button", name="Share", exact=True)
    await share.focus()
    await press("Enter")
    await expect(tab.page.get_by_role("dialog")).to_be_visible()
    await press("Escape")
    await expect(tab.page.get_by_role("dialog")).to_have_count(0)
    await expect(share).to_be_focused()
