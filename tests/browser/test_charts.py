# ruff: noqa: E501, RUF001 (JavaScript in strings, and typographic signs)
"""Charts as people and screen readers meet them, under the page's Content-Security-Policy."""

import base64
import re
import struct
from collections.abc import AsyncGenerator, Sequence
from itertools import combinations
from typing import Any

import pytest
from playwright.async_api import Browser, Page

from tests.browser.modules import STATIC, serving_modules

DRAW = """async ([columns, rows, options]) => {
  const { Chart } = await import('/charts/chart.js');
  const made = (rows) => ({ columns, records: rows.map((row) => Object.fromEntries(columns.map(({ name }, index) => [name, row[index]]))), truncated: false });
  const main = document.getElementById('main');
  window.chart?.destroy();
  const host = document.createElement('div');
  main.replaceChildren(host);
  host.style.cssText = `width: ${options.width ?? 600}px; height: ${options.height ?? 300}px; position: relative`;
  window.chart = new Chart(host, options.title ?? 'Orders');
  window.made = made;
  chart.show(made(rows), { kind: options.kind, before: options.before && made(options.before), shift: options.shift });
}"""


@pytest.fixture(scope="module")
async def bench(browser: Browser) -> AsyncGenerator[tuple[Page, list[str]]]:
    with serving_modules() as address:
        opened = await browser.new_page()
        said: list[str] = []
        opened.on("console", lambda message: said.append(message.text))
        opened.on("pageerror", lambda error: said.append(str(error)))
        await opened.goto(address)
        yield opened, said
        await opened.close()


@pytest.fixture
async def page(bench: tuple[Page, list[str]]) -> AsyncGenerator[Page]:
    opened, said = bench
    yield opened
    assert not said


@pytest.fixture
def draw(page: Page):
    async def drawn(columns: str, rows: list[list[Any]], **options: Any) -> None:
        named = [dict(zip(("name", "type"), each.split(":"), strict=True)) for each in columns.split(", ")]
        await page.evaluate(DRAW, [named, rows, options])

    return drawn


async def path(page: Page, selector: str) -> str:
    return await page.locator(f".drawing {selector}").first.get_attribute("d") or ""


def moves(drawn: str) -> int:
    """How many strokes a path has: a gap begins another."""
    return drawn.count("M")


async def test_a_missing_value_and_a_missing_day_are_gaps(page, draw):
    days = [[f"2025-06-{day:02}", 10 + day % 7] for day in range(1, 31)]
    await draw("day:date, n:bigint", days)
    assert moves(await path(page, ".line")) == 1
    days[9][1] = None  # type: ignore[call-overload]
    del days[19:22]
    await draw("day:date, n:bigint", days)
    assert moves(await path(page, ".line")) == 3


async def test_a_point_between_two_gaps_is_a_dot(page, draw):
    await draw(
        "day:date, n:bigint",
        [["2025-06-01", 1], ["2025-06-02", None], ["2025-06-03", 3], ["2025-06-04", None], ["2025-06-05", 2]],
    )
    assert moves(await path(page, ".dots")) == 3


async def test_rows_that_keep_no_step_have_no_gaps(page, draw):
    await draw(
        "day:date, n:bigint", [["2025-01-01", 1], ["2025-01-09", 3], ["2025-02-20", 2], ["2025-02-22", 2]]
    )
    assert moves(await path(page, ".line")) == 1


async def test_bars_begin_at_zero_also_where_all_values_are_large(page, draw):
    await draw("kind:text, n:bigint", [["a", 1000], ["b", 1010]])
    assert "0" in await page.locator(".axis text").all_text_contents()
    await draw("day:date, n:bigint", [["2025-06-01", 1000], ["2025-06-02", 1010]], kind="bar")
    assert "0" in await page.locator(".axis text").all_text_contents()


async def test_negative_bars_go_the_other_way_from_zero(page, draw):
    await draw("kind:text, balance_eur:numeric", [["a", 50], ["b", -50]])
    zero = float(await page.locator(".zero").get_attribute("x1") or "")
    starts = [float(each) for each in re.findall(r"M([\d.]+)", await path(page, ".bars"))]
    widths = [float(each) for each in re.findall(r"h([\d.]+)", await path(page, ".bars"))]
    assert starts[0] == pytest.approx(zero, abs=0.2)
    assert starts[1] + widths[1] == pytest.approx(zero, abs=0.2)
    assert "−€50" in await page.locator(".amount").all_text_contents()


async def test_a_long_line_keeps_its_extremes_in_few_points(page, draw):
    rows = [[f"2025-{1 + n // 1000:02}-01T{n % 24:02}:{n // 24 % 42:02}:00", n % 17] for n in range(9000)]
    rows[4321][1] = 1000
    await draw("at:timestamp without time zone, n:bigint", rows, width=500)
    drawn = await path(page, ".line")
    assert len(re.findall("[ML]", drawn)) <= 2 * 500
    heights = [float(each) for each in re.findall(r"[ML][\d.]+ ([\d.]+)", drawn)]
    assert min(heights) < 60


async def test_the_keyboard_reads_out_each_point(page, draw):
    await draw("day:date, n:bigint", [["2025-06-01", 1234567], ["2025-06-02", None], ["2025-06-03", 3]])
    await page.locator(".plot").focus()
    told = page.locator("figure [aria-live]")
    for key, text in [
        ("ArrowRight", "1 Jun 2025: N 1,234,567"),
        ("ArrowRight", "2 Jun 2025: N no value"),
        ("End", "3 Jun 2025: N 3"),
        ("ArrowRight", "3 Jun 2025: N 3"),
        ("Home", "1 Jun 2025: N 1,234,567"),
    ]:
        await page.keyboard.press(key)
        assert await told.inner_text() == text
    assert await page.locator(".tip").is_visible()
    await page.keyboard.press("Escape")
    assert not await page.locator(".tip").is_visible()


async def test_the_pointer_reads_out_the_nearest_point(page, draw):
    await draw(
        "month:date, kind:text, n:bigint",
        [["2025-01-01", "a", 4], ["2025-01-01", "b", 5], ["2025-02-01", "a", 7]],
    )
    box = await page.locator(".plot").bounding_box()
    assert box
    await page.mouse.move(box["x"] + box["width"] - 30, box["y"] + 100)
    assert " ".join((await page.locator(".tip").inner_text()).split()) == "1 Feb 2025 a 7 b no value Total 7"
    await page.mouse.move(900, 600)
    assert not await page.locator(".tip").is_visible()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (("day:date, n:bigint", [["2025-06-01", 4], ["2025-06-02", 9], ["2025-06-03", 6]], {}), "Line chart of N by Day: 3 points from 1 Jun 2025 to 3 Jun 2025. N: lowest 4 (1 Jun 2025), highest 9 (2 Jun 2025), last 6 (3 Jun 2025)."),
        (("kind:text, n:bigint", [["a", 4], ["b", 9]], {}), "Bar chart of N by Kind: 2 bars. N: lowest 4 (a), highest 9 (b)."),
        (("n:bigint", [[120]], {"before": [[100]]}), "N: 120, up 20% against the period before."),
        (("n:bigint", [[0]], {"before": [[100]]}), "N: 0, down 100% against the period before."),
        (("a:text, b:text", [["x", "y"]], {}), "Table of 1 row and 2 columns: a, b."),
        (("day:date, n:bigint", [], {}), "No rows."),
    ],
    ids=["line", "bars", "up", "down to nothing", "table", "empty"],
)  # fmt: skip
async def test_a_sentence_says_what_the_chart_shows(page, draw, given, sentence):
    columns, rows, options = given
    await draw(columns, rows, **options)
    assert await page.locator("figcaption").text_content() == sentence
    if await page.locator(".plot").is_visible():
        assert sentence in (await page.locator(".plot").get_attribute("aria-label") or "")


async def test_the_table_is_one_key_away_and_the_chart_again(page, draw):
    rows = [[f"2025-06-{day:02}", day] for day in range(1, 31)]
    await draw("day:date, n:bigint", rows)
    await page.locator(".plot").focus()
    await page.keyboard.press("t")
    table = page.get_by_role("table", name="Orders")
    assert await table.get_by_role("row").count() == 31
    assert await table.get_by_role("columnheader").all_inner_texts() == ["Day", "N"]
    assert await page.evaluate("() => document.activeElement.getAttribute('role')") == "region"
    await page.keyboard.press("t")
    assert await page.locator(".plot").is_visible()
    assert await page.evaluate("() => document.activeElement.getAttribute('role')") == "application"


async def test_a_table_of_thousands_of_rows_comes_in_parts_and_stays_in_place_when_it_changes(page, draw):
    await draw("name:text, city:text, n:bigint", [[f"n{n}", "x", n] for n in range(1000)])
    rows = page.locator("tbody tr")
    assert await rows.count() == 200
    await page.get_by_role("button", name="Show 200 more of 800").click()
    assert await rows.count() == 400
    await page.locator(".rows").evaluate("each => each.scrollTo(0, 3000)")
    script = "() => chart.show(made(Array.from({ length: 1000 }, (_, n) => [`n${n}`, 'y', n])))"
    await page.evaluate(script.replace("made(", "made.call(null, "))
    assert await rows.count() == 400
    assert await rows.first.inner_text() == "n0\ty\t0"
    assert await page.locator(".rows").evaluate("each => each.scrollTop") == 3000


async def test_a_chart_follows_the_size_of_its_place(page, draw):
    await draw("kind:text, n:bigint", [[f"Product {n}", n] for n in range(40)])
    assert "first 14 of 40" in (await page.locator(".legend").text_content() or "")
    await page.evaluate("() => (chart.host.style.height = '900px')")
    await page.locator(".legend", has_text="of 40").wait_for(state="hidden")
    assert await page.locator(".labels text").count() == 80


async def test_hostile_names_stay_text(page, draw):
    name = '<img src=x onerror="alert(1)">'
    await draw("kind:text, n:bigint", [[name, 4], ["</svg><script>alert(1)</script>", 5]], title=name)
    assert await page.locator("main img, main script").count() == 0
    await page.evaluate("() => chart.toggleTable()")
    assert name in await page.locator("tbody").inner_text()


@pytest.mark.parametrize("theme", ["light", "dark", "contrast"])
async def test_a_picture_has_the_colours_of_the_page(page, draw, theme):
    await page.evaluate("theme => { document.documentElement.dataset.theme = theme }", theme)
    await draw("kind:text, n:bigint", [["a", 4], ["b", 9]], width=300, height=200)
    script = """async () => {
      const { pngOf, documentOf } = await import('/charts/picture.js');
      const words = { title: 'Orders <b>', caption: 'Default' };
      const { node } = documentOf(chart.drawing, words);
      const blob = await pngOf(chart.drawing, words);
      const bytes = new Uint8Array(await blob.arrayBuffer());
      const bitmap = await createImageBitmap(blob);
      const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext('2d');
      context.drawImage(bitmap, 0, 0);
      const seen = new Set();
      const { data } = context.getImageData(0, 0, bitmap.width, bitmap.height);
      for (let at = 0; at < data.length; at += 4) seen.add(`rgb(${data[at]}, ${data[at + 1]}, ${data[at + 2]})`);
      const bar = getComputedStyle(chart.drawing.querySelector('.bars')).fill;
      const paper = getComputedStyle(chart.drawing).backgroundColor;
      return [btoa(String.fromCharCode(...bytes.slice(0, 24))), seen.has(bar), seen.has(paper), node.querySelectorAll('[style], [class]').length];
    }"""
    head, bar, paper, styled = await page.evaluate(script)
    header = base64.b64decode(head)
    assert header.startswith(b"\x89PNG")
    assert struct.unpack(">II", header[16:24]) == ((300 + 32) * 2, (200 + 74) * 2)
    assert (bar, paper, styled) == (True, True, 0)
    await page.evaluate("() => { delete document.documentElement.dataset.theme }")


def _channels(colour: str) -> list[float]:
    """Linear light of `#rrggbb`."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    return [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]


MISSING_CONES = {
    "none": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "red": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "green": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "blue": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}
"""How linear light looks without a kind of cone (Machado, Oliveira and Fernandes, 2009)."""


def _seen(colour: str, missing: str) -> list[float]:
    """Where a colour lies in OKLab, times 100, for eyes without a kind of cone."""
    light = _channels(colour)
    r, g, b = (
        min(1, max(0, sum(by * part for by, part in zip(row, light, strict=True))))
        for row in MISSING_CONES[missing]
    )
    cones = [
        (0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b) ** (1 / 3),
        (0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b) ** (1 / 3),
        (0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b) ** (1 / 3),
    ]
    rows = [
        (0.2104542553, 0.793617785, -0.0040720468),
        (1.9779984951, -2.428592205, 0.4505937099),
        (0.0259040371, 0.7827717662, -0.808675766),
    ]
    return [100 * sum(by * cone for by, cone in zip(row, cones, strict=True)) for row in rows]


def _contrast(one: str, other: str) -> float:
    low, high = sorted(
        sum(by * part for by, part in zip((0.2126, 0.7152, 0.0722), _channels(each), strict=True))
        for each in (one, other)
    )
    return (high + 0.05) / (low + 0.05)


def _distance(one: Sequence[float], other: Sequence[float]) -> float:
    return sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) ** 0.5


@pytest.mark.parametrize("missing", MISSING_CONES)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_colours_of_series_are_told_apart_by_all_eyes(theme, missing):
    text = (STATIC / "tally.css").read_text()
    found = re.findall(r"--(series-\d|surface): light-dark\((#\w+), (#\w+)\)", text)
    colours = {name: pair[theme == "dark"] for name, *pair in found}
    surface, *series = [colours["surface"], *(colours[f"series-{number}"] for number in range(1, 9))]
    assert min(_contrast(each, surface) for each in series) >= 3
    places = [_seen(each, missing) for each in series]
    least = {len(few): min(_distance(*pair) for pair in combinations(few, 2)) for few in (places[:4], places)}
    assert least[4] >= 12
    assert least[8] >= 8
