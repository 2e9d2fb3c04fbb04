# ruff: noqa: E501, RUF001 (JavaScript in strings, and typographic signs)
"""The pure modules behind charts, tiles and the window: exact numbers, ticks, shapes, thinning, places, periods."""

import json
import random
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from playwright.async_api import Browser, Page

from service.dashboard.grid import Cell, compact
from tests.browser.modules import serving_modules

DAYS = [{"name": "day", "type": "date"}]
N = {"name": "n", "type": "bigint"}
KIND = {"name": "kind", "type": "text"}


@pytest.fixture(scope="module")
async def page(browser: Browser) -> AsyncGenerator[Page]:
    with serving_modules() as address:
        opened = await browser.new_page()
        await opened.goto(address)
        yield opened
        await opened.close()


@pytest.fixture
def call(page: Page):
    """Call a function of a module: arguments and answer are JSON."""

    async def called(module: str, function: str, *arguments: Any) -> Any:
        script = """async ([module, name, given]) => {
          const found = await import('/' + module + '.js');
          return JSON.parse(JSON.stringify(found[name](...given) ?? null));
        }"""
        return await page.evaluate(script, [module, function, list(arguments)])

    return called


EXACT = (
    '{"records":[{"n":12345678901234567890.123456789,"m":9007199254740993,"s":"a \\"1.50\\" 12345678901234567890",'
    '"f":0.1,"z":1.50,"e":-7,"x":null}]}'
)


@pytest.mark.parametrize("reads_source", [True, False], ids=["JSON.parse tells the text", "older engines"])
async def test_numbers_are_kept_as_they_were_written(page, reads_source):
    script = """async ([text, modern]) => {
      const parse = JSON.parse;
      if (!modern) JSON.parse = (text, reviver) => parse(text, reviver && ((key, value) => reviver(key, value)));
      const values = await import('/charts/values.js?' + modern);
      const [row] = values.parseExact(text).records;
      JSON.parse = parse;
      const texts = Object.fromEntries(Object.entries(row).map(([name, cell]) => [name, values.cellText(cell)]));
      return [values.readsSource, texts, values.toNumber(row.m), typeof row.f];
    }"""
    read, texts, number, kind = await page.evaluate(script, [EXACT, reads_source])
    assert read is reads_source
    assert texts == {
        "n": "12,345,678,901,234,567,890.123456789",
        "m": "9,007,199,254,740,993",
        "s": 'a "1.50" 12345678901234567890',
        "f": "0.1",
        "z": "1.50",
        "e": "−7",
        "x": "",
    }
    assert (number, kind) == (9007199254740992, "number")


async def test_numbers_are_written_as_they_were_read(page):
    script = """async (text) => {
      const { parseExact } = await import('/charts/values.js');
      return JSON.stringify(parseExact(text));
    }"""
    assert await page.evaluate(script, EXACT.replace(" ", "")) == EXACT.replace(" ", "")


@pytest.mark.parametrize(
    ("low", "high", "options", "values"),
    [
        (0, 97, {"zero": True}, [0, 20, 40, 60, 80, 100]),
        (-3, 4, {"zero": True}, [-4, -2, 0, 2, 4]),
        (990, 1010, {}, [990, 995, 1000, 1005, 1010]),
        (1, 2, {"whole": True}, [1, 2]),
        (0, 0, {}, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0.1, 0.3, {}, [0, 0.1, 0.2, 0.3]),
        (5, 5, {"zero": True}, [0, 1, 2, 3, 4, 5]),
        (12, 99, {}, [0, 20, 40, 60, 80, 100]),
    ],
    ids=["bars", "negative", "far from zero", "whole", "nothing", "fractions", "one bar", "near zero"],
)
async def test_ticks_are_round(call, low, high, options, values):
    domain = await call("charts/ticks", "niceDomain", low, high, 5, options)
    assert domain["values"] == values
    assert domain["low"] <= low
    assert domain["high"] >= high


async def test_ticks_of_any_two_numbers_are_few_and_inside(page):
    script = """async (pairs) => {
      const { niceDomain } = await import('/charts/ticks.js');
      return pairs.map(([low, high]) => {
        const found = niceDomain(low, high, 5);
        const inside = found.values.every((each) => each >= found.low && each <= found.high);
        return found.low < found.high && inside && found.values.length > 0 && found.values.length <= 12;
      });
    }"""
    draw = random.Random(20)  # noqa: S311 (the same numbers in each run)
    pairs = [[1e-300, 2e-300], [-1.7e308, 1.7e308], [1e15, 1e15 + 1], [-5, -5], [3, 1]]
    for _ in range(500):
        low = draw.uniform(-1, 1) * 10 ** draw.randint(-12, 18)
        pairs.append([low, low + draw.random() * 10 ** draw.randint(-12, 18)])
    assert all(await page.evaluate(script, pairs))


@pytest.mark.parametrize(
    ("start", "end", "first", "second"),
    [
        ("2025-01-01", "2025-12-31", "Jan 2025", "Mar"),
        ("2025-06-01", "2025-06-30", "2 Jun", "9 Jun"),
        ("2019-03-01", "2026-03-01", "2020", "2021"),
        ("2025-06-01", "2025-06-02", "1 Jun", "06:00"),
        ("0001-01-01", "0090-01-01", "20", "40"),
    ],
    ids=["months", "weeks begin on Mondays", "years", "hours", "antiquity"],
)
async def test_times_have_ticks_that_people_would_choose(page, start, end, first, second):
    script = """async ([start, end]) => {
      const { timeTicks } = await import('/charts/ticks.js');
      return timeTicks(Date.parse(start), Date.parse(end), 6).map(({ text }) => text);
    }"""
    assert (await page.evaluate(script, [start, end]))[:2] == [first, second]


@pytest.mark.parametrize(
    ("columns", "rows", "kind", "others"),
    [
        ([*DAYS, N], [["2025-01-01", 1], ["2025-01-02", 2]], "line", {"bar", "number"}),
        ([*DAYS, KIND, N], [["2025-01-01", "a", 1], ["2025-01-01", "b", 2]], "stacked", {"line", "bar"}),
        ([*DAYS, KIND, N], [["2025-01-01", "a", -1], ["2025-01-01", "b", 2]], "line", {"bar"}),
        ([KIND, N], [["a", 1], ["b", 2]], "bar", set()),
        ([N], [[1]], "number", set()),
        ([N, {"name": "m", "type": "numeric"}], [[1, 2]], "table", {"number"}),
        ([N], [[1], [2]], "table", set()),
        ([KIND], [["a"]], "table", set()),
        ([KIND, {"name": "where", "type": "text"}, N], [["a", "x", 1], ["b", "y", 2]], "table", {"stacked", "bar"}),
        ([{"name": "month", "type": "text"}, N], [["2025-01", 1], ["2025-02", 2]], "line", {"bar", "number"}),
        ([{"name": "year", "type": "integer"}, N], [[2024, 1], [2025, 2]], "bar", set()),
        ([*DAYS, N], [], "table", set()),
        ([*DAYS, N, {"name": "more", "type": "jsonb"}], [["2025-01-01", 1, {}]], "table", set()),
        ([*DAYS, N], [["infinity", 1]], "table", set()),
    ],
    ids=[
        "date and number", "date, category and number", "negative parts", "category and number", "one number",
        "two numbers", "several rows of a number", "a text", "two categories", "months as text", "years",
        "no rows", "something else beside", "no real date",
    ],
)  # fmt: skip
async def test_the_kind_follows_the_shape(call, columns, rows, kind, others):
    records = [dict(zip([each["name"] for each in columns], row, strict=True)) for row in rows]
    shape = await call("charts/shape", "shapeOf", {"columns": columns, "records": records})
    assert shape["kind"] == kind
    assert set(shape["kinds"]) == {kind, "table", *others}


async def test_categories_beyond_the_colours_are_folded_into_one(page):
    script = """async () => {
      const { shapeOf } = await import('/charts/shape.js');
      const columns = [['day', 'date'], ['host', 'text'], ['n', 'bigint']].map(([name, type]) => ({ name, type }));
      const records = Array.from({ length: 12 }, (_, host) => ({ day: '2025-01-01', host: `h${host}`, n: host + 1 }));
      return shapeOf({ columns, records }).series.map(({ name, values }) => [name, values[0]]);
    }"""
    series = await page.evaluate(script)
    assert len(series) == 8
    assert series[0] == ["h11", 12]
    assert series[-1] == ["5 others", 1 + 2 + 3 + 4 + 5]


async def test_a_pixel_keeps_its_lowest_and_highest(page):
    script = """async () => {
      const { thinned } = await import('/charts/thin.js');
      const length = 20000;
      const xs = Float64Array.from({ length }, (_, index) => (index / length) * 500);
      const ys = Float64Array.from({ length }, (_, index) => Math.sin(index / 900) * 50);
      ys[12345] = 1e6;
      ys[54] = -1e6;
      ys.fill(NaN, 8000, 9000);
      const kept = thinned(xs, ys);
      const few = thinned(xs.slice(0, 10).map((x) => x * 1000), ys.slice(0, 10));
      const gap = kept.filter((index) => index >= 8000 && index < 9000);
      return [kept.length, kept.includes(12345), kept.includes(54), few.length, gap.every((each) => Number.isNaN(ys[each])), gap.length > 0,
        kept.every((each, at) => at === 0 || each > kept[at - 1])];
    }"""
    count, highest, lowest, few, gap, gap_kept, ordered = await page.evaluate(script)
    assert count <= 1002
    assert (highest, lowest, few, gap, gap_kept, ordered) == (True, True, 10, True, True, True)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"), (1234, "1,234"), (12345, "12.3k"), (999, "999"), (1e6, "1M"), (2.5e9, "2.5bn"), (0.00123, "0.00123"),
        (-45600, "−45.6k"), (1.5e20, "1.50 × 10²⁰"), (1e-9, "1.00 × 10⁻⁹"), (3.14159, "3.14"),
    ],
)  # fmt: skip
async def test_numbers_are_short_where_room_is_short(call, value, text):
    assert await call("charts/values", "shortText", value) == text


@pytest.mark.parametrize(
    ("column", "text"),
    [
        ("revenue_eur", "€1,234.50"), ("share_percent", "1,234.50%"), ("latency_ms", "1,234.50 ms"),
        ("size_bytes", "1,234.50 B"), ("price_usd", "$1,234.50"), ("weight_kg", "1,234.50 kg"),
        ("open_days", "1,234.50 days"), ("avg_per_day", "1,234.50"), ("amount", "1,234.50"), ("is", "1,234.50"),
    ],
)  # fmt: skip
async def test_a_unit_is_read_from_the_name_of_its_column(page, column, text):
    script = """async (column) => {
      const { cellText, parseExact } = await import('/charts/values.js');
      return cellText(parseExact('{"n": 1234.50}').n, { name: column, type: 'numeric' });
    }"""
    assert await page.evaluate(script, column) == text


def _cells(draw: random.Random, columns: int) -> list[dict[str, Any]]:
    cells = []
    for number in range(draw.randint(1, 12)):
        w = draw.randint(1, columns)
        x, y = draw.randint(0, columns - w), draw.randint(0, 40)
        cells.append(
            {"i": f"00000000-0000-0000-0000-{number:012}", "x": x, "y": y, "w": w, "h": draw.randint(1, 12)}
        )
    return cells


def _overlapping(cells: list[dict[str, Any]]) -> bool:
    pairs = [(one, other) for one in cells for other in cells if one["i"] < other["i"]]
    return any(
        a["x"] < b["x"] + b["w"]
        and b["x"] < a["x"] + a["w"]
        and a["y"] < b["y"] + b["h"]
        and b["y"] < a["y"] + a["h"]
        for a, b in pairs
    )


async def test_arranged_tiles_never_overlap_and_stay_where_a_reload_puts_them(page):
    """What was saved is placed anew by the server: it must find the same places."""
    draw = random.Random(7)  # noqa: S311 (the same places in each run)
    boards = [_cells(draw, 12) for _ in range(60)]
    deeds = [
        [draw.choice(cells)["i"], draw.choice(["x", "y", "w", "h"]), draw.randint(0, 14)] for cells in boards
    ]
    script = """async ([boards, deeds]) => {
      const { changed, compact } = await import('/grid.js');
      return boards.map((cells, index) => changed(compact(cells), deeds[index][0], { [deeds[index][1]]: deeds[index][2] }, 12));
    }"""
    for cells in await page.evaluate(script, [boards, deeds]):
        assert not _overlapping(cells)
        assert all(cell["x"] + cell["w"] <= 12 for cell in cells)
        again = compact([Cell(**cell) for cell in cells])
        assert {(each.i, each.x, each.y) for each in again} == {
            (each["i"], each["x"], each["y"]) for each in cells
        }


SIDE = [
    {"i": "a", "x": 0, "y": 0, "w": 6, "h": 8, "static": False},
    {"i": "b", "x": 6, "y": 0, "w": 6, "h": 8, "static": False},
    {"i": "c", "x": 0, "y": 8, "w": 12, "h": 4, "static": False},
]


@pytest.mark.parametrize(
    ("name", "along", "by", "place"),
    [("a", "y", 1, (0, 12)), ("c", "y", -1, (0, 0)), ("a", "x", 1, (1, 0)), ("b", "x", 1, (6, 0)), ("a", "x", -1, (0, 0))],
    ids=["below its neighbour", "above all", "to the right", "at the edge", "at the other edge"],
)  # fmt: skip
async def test_an_arrow_moves_a_tile_as_far_as_something_changes(call, name, along, by, place):
    cells = await call("grid", "stepped", SIDE, name, along, by, 12)
    assert not _overlapping(cells)
    assert next((cell["x"], cell["y"]) for cell in cells if cell["i"] == name) == place


async def test_a_fixed_tile_stays(call):
    cells = [{**SIDE[0], "static": True}, *SIDE[1:]]
    assert await call("grid", "changed", cells, "a", {"x": 3}, 12) == cells
    moved = await call("grid", "changed", cells, "c", {"y": 0}, 12)
    assert next(cell for cell in moved if cell["i"] == "a") == cells[0]


@pytest.mark.parametrize(
    ("period", "before"),
    [
        ({"start_date": "2025-03-01", "end_date": "2025-03-31"}, {"start_date": "2025-02-01", "end_date": "2025-02-28"}),
        ({"start_date": "2025-01-01", "end_date": "2025-12-31"}, {"start_date": "2024-01-01", "end_date": "2024-12-31"}),
        ({"start_date": "2025-03-05", "end_date": "2025-03-07"}, {"start_date": "2025-03-02", "end_date": "2025-03-04"}),
        ({"day_range": 7}, {"start_date": "2025-06-15", "end_date": "2025-06-22"}),
        ({}, None),
        ({"start_date": "2025-03-05"}, None),
    ],
    ids=["a month", "a year", "days", "last days", "none", "one end"],
)  # fmt: skip
async def test_the_period_before(call, period, before):
    assert await call("window", "shifted", period, -1, "2025-06-30") == before
    if before and "day_range" not in period:
        assert await call("window", "shifted", before, 1, "2025-06-30") == period


@pytest.mark.parametrize(
    ("search", "period", "compare"),
    [
        (
            "?start_date=2025-01-01&end_date=2025-01-31",
            {"start_date": "2025-01-01", "end_date": "2025-01-31"},
            False,
        ),
        ("?day_range=30&compare=1&region=north", {"day_range": 30}, True),
        ("?start_date=2025-02-30&kiosk", {}, False),
        ("?start_date=2025-01-01&day_range=7", {"start_date": "2025-01-01"}, False),
        ("?day_range=-5", {}, False),
    ],
    ids=["dates", "range", "no such day", "dates win", "negative"],
)
async def test_the_period_stands_in_the_address(call, search, period, compare):
    read = await call("window", "readAddress", search)
    assert (read["period"], read["compare"]) == (period, compare)
    written = await call("window", "writeAddress", search, period, compare)
    again = await call("window", "readAddress", written)
    assert again == read
    assert ("kiosk" in written) is ("kiosk" in search)


async def test_every_preset_has_a_name_of_its_own(call):
    presets = await call("window", "presets", "2025-01-31")
    names = [await call("window", "nameOf", preset["period"], "2025-01-31") for preset in presets]
    assert names == [preset["name"] for preset in presets]
    assert json.dumps(presets[6]["period"]) == '{"start_date": "2024-12-01", "end_date": "2024-12-31"}'
