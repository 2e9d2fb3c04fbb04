"""Files of other tools are read without trust: nothing in them breaks a reader."""

import copy
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from service.errors import Stop
from service.metrics.exchange import READERS
from service.metrics.exchange.files import decoded
from service.metrics.exchange.plan import TILES_LIMIT, Grid, Node, Place, looks_like

EXPORTS = Path(__file__).parents[1] / "exports"
ODD: tuple[Any, ...] = (
    *(None, [], {}, "x", "{{ x", -1, 1e300, True, [None], {"a": {"b": []}}),
    *(Decimal("1E+999999999"), Decimal("-1E-999999999"), 10**3999),
)


def test_places_keep_touching():
    grid = Grid(6, 50)
    assert [grid.place(*each) for each in ((0, 0, 3, 5), (3, 0, 3, 5), (0, 5, 6, 1))] == [
        Place(0, 0, 6, 7), Place(6, 0, 6, 7), Place(0, 7, 12, 1)
    ]  # fmt: skip
    assert grid.place(-5, -5, 0, 0) == Place(0, 0, 1, 1)
    assert grid.place(500, 0, 500, 2).x == 11


def paths(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield at
    if isinstance(value, dict | list):
        for key, child in value.items() if isinstance(value, dict) else enumerate(value):
            yield from paths(child, (*at, key))


def with_value(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A copy with this value at the path; it shares all else with the document."""
    if not path:
        return value
    changed = copy.copy(document)
    changed[path[0]] = with_value(document[path[0]], path[1:], value)
    return changed


@pytest.mark.parametrize("tool", sorted(READERS))
def test_no_odd_value_at_any_place_breaks_a_reader(tool: str):
    text = (EXPORTS / f"{tool}-dashboard.json").read_text()
    document = json.loads(text)
    for number, path in enumerate(paths(document)):
        for odd in (ODD[number % len(ODD)], ODD[(number * 7 + 3) % len(ODD)]):
            try:
                plan = READERS[tool](Node(with_value(document, path, odd)))
            except Stop:
                continue
            else:
                assert all(each.title and each.sql for each in plan.queries)
                assert all(each.title and each.why for each in plan.left_out)
    assert document == json.loads(text)  # what is read stays as it is


LONG = (
    "{{" + " " * 90_000, "'{{" + " " * 90_000 + "'", "{{n}}, " * 12_000, "'{{n}} " * 10_000 + "'",
    "${a:" * 20_000, "[[" * 40_000, "[[a:" * 20_000, "[[AND {{n}}]] " * 6_000, "$__timeFilter(" * 6_000,
    "$__timeFilter(t) " * 5_000, "(" * 90_000 + "{{n}}", "$n" * 40_000, "x" * 100_001,
)  # fmt: skip


@pytest.mark.parametrize("sql", LONG, ids=lambda sql: sql[:12])
def test_long_sql_is_read_or_refused_at_once(sql: str):
    variable = {"name": "n", "type": "textbox", "query": "1"}
    panel = {"title": "P", "targets": [{"refId": "A", "rawSql": sql}]}
    native = {"query": sql, "template-tags": {"n": {"type": "number"}}}
    documents = {
        "redash": {"name": "Q", "query": sql, "data_source_id": 1, "options": {"parameters": [variable]}},
        "grafana": {"panels": [panel], "templating": {"list": [variable]}},
        "metabase": {"name": "Q", "dataset_query": {"type": "native", "native": native}},
    }
    for tool, document in documents.items():
        plan = READERS[tool](Node(document))
        assert len(plan.queries) + len(plan.left_out) == 1


def test_parts_beyond_the_limit_are_counted():
    widgets = [{"id": number, "text": "x"} for number in range(TILES_LIMIT + 7)]
    left_out = READERS["redash"](Node({"widgets": widgets})).left_out
    assert len(left_out) == TILES_LIMIT + 1
    assert left_out[0].title == "7 more"


def test_one_part_with_many_queries_is_bounded_too():
    targets = [{"refId": f"R{number}", "rawSql": "SELECT 1"} for number in range(TILES_LIMIT + 7)]
    plan = READERS["grafana"](Node({"panels": [{"title": "P", "targets": targets}]}))
    assert len(plan.queries) == TILES_LIMIT
    assert [each.title for each in plan.left_out] == ["7 more"]


def test_no_name_in_a_file_leaves_the_comment_that_it_stands_in():
    query = {"id": "1\nSELECT 2 --", "name": "Q\r\nx", "query": "SELECT 1", "data_source_id": 1}
    query["description"] = "a\u2028b\rSELECT 3\x85c\x00"
    (found,) = READERS["redash"](Node(query)).queries
    assert found.commented.splitlines() == [
        "-- Redash: query 1 SELECT 2 --", "-- a", "-- b", "-- SELECT 3", "-- c", "SELECT 1"
    ]  # fmt: skip
    assert found.title == "Q x"


@pytest.mark.parametrize("tool", sorted(READERS))
def test_the_export_of_another_tool_is_recognised(tool: str):
    document = Node(json.loads((EXPORTS / f"{tool}-dashboard.json").read_text()))
    assert looks_like(document) == tool
    for other in sorted(set(READERS) - {tool}):
        with pytest.raises(Stop, match=f"tally add {tool}"):
            READERS[other](document)
    with pytest.raises(Stop, match="no export of"):
        READERS[tool](Node({"items": [1]}))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is empty"),
        (b"<html>", "is not JSON"),
        (b'{"widgets": [{"id": 1}', "or not all of it"),
        (b'{"name": "caf\xe9"}', "is not UTF-8 .byte 13."),
        (b"[" * 200_000, "nested too deep|not JSON"),
        (b"[" * 500 + b"]" * 500, "nested too deep"),
        (b'{"name": "\\ud800"}', "is not JSON"),
    ],
    ids=["empty", "html", "truncated", "latin-1", "very deep", "deep", "surrogate"],
)
def test_bad_files_are_one_sentence(content: bytes, why: str):
    with pytest.raises(Stop, match=why):
        decoded(content, "board.json")


@pytest.mark.parametrize("coding", ["utf-8", "utf-8-sig", "utf-16"])
def test_marks_of_encodings_are_read(coding: str):
    assert decoded('{"name": "café"}'.encode(coding), "board.json")["name"].text == "café"


@pytest.mark.parametrize(
    ("number", "text"),
    [
        ("0.123456789012345678901234567890", "0.12345678901234567890123456789"),
        ("12345678901234567890.5", "12345678901234567890.5"),
        ("1" * 5000, "1" * 5000),
        ("5.0", "5"),
        ("-3e2", "-300"),
        ("1e999999999", "1E+999999999"),
    ],
)
def test_numbers_keep_their_digits(number: str, text: str):
    assert decoded(f'{{"id": {number}}}'.encode(), "board.json")["id"].text == text


def test_numbers_that_cannot_be_read_are_one_sentence():
    for content in (b"1e9999999999999999999", b"[%s, x]" % (b"1" * 5000)):
        with pytest.raises(Stop, match="is not JSON"):
            decoded(content, "board.json")
