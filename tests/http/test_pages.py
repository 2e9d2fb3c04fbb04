"""The pages as a browser gets them: what they hold, their headers, and what programs get instead."""

import re
from base64 import b64encode
from hashlib import sha256

import msgspec
import pytest

from service.dashboard.pages import prefers_html
from tests.dashboards import DASHBOARDS

PAGE = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"}


def data_of(page):
    found = re.search(r'<script type="application/json" id="page-data">(.*?)</script>', page.text, re.DOTALL)
    assert found
    return msgspec.json.decode(found[1])


@pytest.mark.parametrize(
    ("accept", "html"),
    [
        (PAGE["Accept"], True),
        ("text/html", True),
        ("text/html, */*", True),
        ("text/html;q=0.5, application/json", False),
        ("application/json, text/html", False),
        ("*/*", False),
        ("text/*", False),
        ("", False),
        ("text/html;q=0", False),
    ],
)
def test_only_who_names_html_gets_a_page(accept, html):
    assert prefers_html(accept) is html


async def test_one_address_is_the_dashboard_for_people_and_links_for_programs(client):
    page, answer = await client.get("/", headers=PAGE), await client.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.json() == {
        "message": "Tally: stored SQL as JSON metrics",
        "docs": "/docs",
        "health": "/health",
    }
    for each in (page, answer):
        assert "Accept" in each.headers.get_list("vary", split_commas=True)


async def test_the_page_has_every_tile_with_its_title_before_any_script_runs(client, make_metric):
    metric = await make_metric(DASHBOARDS[0], title="Umsatz & Gewinn <Köln>")
    places = {"lg": [{"i": metric, "x": 2, "y": 0, "w": 4, "h": 8}]}
    await client.post("/dashboards", json={"id": "sales", "title": "المبيعات"})
    await client.put("/dashboards/sales/layouts", json=places)
    page = await client.get("/d/sales?start_date=2025-06-01&kiosk&rotate=30", headers=PAGE)
    assert "Umsatz &amp; Gewinn &lt;Köln&gt;" in page.text
    assert '<h1 dir="auto">المبيعات</h1>' in page.text
    assert f'[data-metric="{metric}"] {{ grid-area: 1 / 3 / span 8 / span 4; }}' in page.text
    data = data_of(page)
    assert data["data"] == "/api/v1/dashboards/sales/data?start_date=2025-06-01"
    assert (data["kiosk"], data["rotate"], data["link"]) == (True, 30, False)
    assert data["parameters"] == {"start_date": "2025-06-01"}
    assert data["layouts"]["lg"] == [{"i": metric, "x": 2, "y": 0, "w": 4, "h": 8, "static": False}]
    assert [each["address"] for each in data["dashboards"]] == ["/", "/d/sales"]


async def test_many_dashboards_are_a_page_of_their_own(client):
    for number in range(6):
        await client.post("/dashboards", json={"id": f"board-{number}", "title": f"Tafel {number}"})
    page = await client.get("/d/board-0", headers=PAGE)
    assert 'href="/d/board-5"' in page.text
    await client.post("/dashboards", json={"id": "board-6", "title": "Tafel <6>"})
    page = await client.get("/d/board-0", headers=PAGE)
    assert 'href="/d/board-5"' not in page.text
    assert '<a href="/d">All 8 dashboards</a>' in page.text
    listed = await client.get("/d", headers=PAGE)
    assert re.findall(r'class="card" href="([^"]+)"', listed.text) == [
        *(f"/d/board-{number}" for number in range(7)),
        "/",
    ]
    assert "Tafel &lt;6&gt;" in listed.text


async def test_a_title_cannot_end_the_data_of_the_page(client, make_metric):
    title = "</script><script>alert(1)</script>"
    metric = await make_metric("SELECT 1 AS n", title=title)
    await client.put(
        "/dashboards/default/layouts", json={"lg": [{"i": metric, "x": 0, "y": 0, "w": 1, "h": 1}]}
    )
    page = await client.get("/", headers=PAGE)
    assert data_of(page)["items"][0]["title"] == title
    assert "<script>alert" not in page.text


async def test_pages_allow_no_script_or_style_but_ours(client):
    for path in ("/", "/problems/not-found", "/nothing"):
        page = await client.get(path, headers=PAGE)
        policy = page.headers["content-security-policy"]
        assert "unsafe" not in policy
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert not re.search(r"<[^>]*\sstyle=|<[^>]*\son[a-z]+=", page.text)
        assert not re.search(r'(?:src|href)="(?:https?:)?//', page.text)


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/nothing", 404, "not-found"),
        ("/d/nothing", 404, "not-found"),
        ("/metrics/not-a-uuid", 422, "invalid-input"),
        ("/metrics/00000000-0000-0000-0000-000000000000", 404, "not-found"),
        ("/events", 422, "invalid-input"),
    ],
)
async def test_errors_are_pages_for_people_and_problems_for_programs(client, path, status, code):
    page, problem = await client.get(path, headers=PAGE), await client.get(path)
    assert (page.status_code, problem.status_code) == (status, status)
    assert page.headers["content-type"].startswith("text/html")
    assert code in page.text
    assert page.headers["x-request-id"] in page.text
    assert problem.headers["content-type"] == "application/problem+json"
    assert problem.json()["code"] == code


async def test_files_are_kept_for_ever_at_an_address_that_changes_with_them(client):
    page = await client.get("/", headers=PAGE)
    addresses = set(re.findall(r'(?:src|href)="(/static/[^"]+)"', page.text))
    types = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
    assert len(addresses) > 5
    for address in addresses:
        file = await client.get(address)
        assert file.status_code == 200
        assert file.headers["content-type"].startswith(types[re.search(r"\.\w+$", address)[0]])
        assert file.headers["cache-control"] == "public, max-age=31536000, immutable"
        held = {"If-None-Match": file.headers["etag"]}
        assert (await client.get(address, headers=held)).status_code == 304


async def test_files_come_compressed_and_those_of_another_version_are_not_kept(client):
    page = await client.get("/", headers=PAGE)
    address = re.search(r'/static/[^"]+tally\.css', page.text)[0]
    plain = await client.get(address, headers={"Accept-Encoding": "identity"})
    for coding in ("gzip", "zstd"):
        coded = await client.get(address, headers={"Accept-Encoding": coding})
        assert coded.headers["content-encoding"] == coding
        assert coded.content == plain.content
        assert coded.headers["etag"] != plain.headers["etag"]
        assert int(coded.headers["content-length"]) < len(plain.content) / 2
    other = await client.get("/static/older/tally.css")
    assert (other.status_code, other.headers["cache-control"]) == (200, "no-cache")
    for path in ("/static/older/nothing.js", "/static/older/../pages.py", "/static/older/%2e%2e/pages.py"):
        assert (await client.get(path)).status_code == 404


async def test_the_live_client_is_served_as_it_is_published(client):
    from tests.browser.stub import CLIENT

    assert (await client.get("/static/any/tally-live.js")).content == CLIENT.read_bytes()


@pytest.mark.parametrize("path", ["/", "/data", "/nothing"])
async def test_the_only_script_within_a_page_is_the_one_that_its_policy_names(client, path):
    """It stands before all files, so that the numbers are asked for first."""
    page = await client.get(path, headers=PAGE)
    [script] = re.findall(r"<script(?: data-first=\"[^\"]+\")?>(.*?)</script>", page.text, re.DOTALL)
    named = b64encode(sha256(script.encode()).digest()).decode()
    assert f"script-src 'self' 'sha256-{named}'; " in page.headers["content-security-policy"]
    assert page.text.index(script) < page.text.index("/static/")
    others = re.findall(r"<script(?! data-first|>)([^>]*)>", page.text)
    assert all("src=" in each or "application/json" in each for each in others)


async def test_the_first_load_is_small(client):
    page = await client.get("/", headers=PAGE | {"Accept-Encoding": "gzip"})
    addresses = set(re.findall(r'(?:src|href)="(/static/[^"]+)"', page.text))
    sizes = [int(page.headers["content-length"])]
    for address in addresses:
        file = await client.get(address, headers={"Accept-Encoding": "gzip"})
        sizes.append(int(file.headers["content-length"]))
    assert sum(sizes) < 150_000


@pytest.mark.parametrize(("path", "title"), [("/ask?q=how%20many%22%3E", "Ask"), ("/data", "Data")])
async def test_the_pages_ask_and_data_know_the_dashboards_and_only_load_our_files(client, path, title):
    page = await client.get(path, headers=PAGE)
    assert page.status_code == 200
    assert f"<title>{title} · Tally</title>" in page.text
    assert page.headers["content-security-policy"].startswith(
        "default-src 'none'; script-src 'self' 'sha256-"
    )
    first = data_of(page)["dashboards"][0]
    assert (first["id"], first["address"]) == ("default", "/")
    assert 'how many">' not in page.text
    for address in re.findall(r'(?:src|href)="(/static/[^"]+)"', page.text):
        assert (await client.get(address)).status_code == 200
