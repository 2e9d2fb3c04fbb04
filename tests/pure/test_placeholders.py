"""Placeholders of other tools in SQL: a value becomes a parameter, a piece of SQL is refused."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.errors import Stop
from service.metrics.exchange import READERS
from service.metrics.exchange.files import decoded
from service.metrics.exchange.plan import Grid, Node, Place, Plan, looks_like

EXPORTS = Path(__file__).parents[1] / "exports"
ODD: tuple[Any, ...] = (None, [], {}, "x", "{{ x", -1, 1e300, True, [None], {"a": {"b": []}})


def redash(sql: str, *parameters: dict[str, Any]) -> Plan:
    query = {
        "id": 1,
        "name": "Q",
        "query": sql,
        "data_source_id": 1,
        "options": {"parameters": list(parameters)},
    }
    return READERS["redash"](Node(query))


def taken(sql: str, *parameters: dict[str, Any]) -> str:
    plan = redash(sql, *parameters)
    assert not plan.left_out, plan.left_out
    return plan.queries[0].sql


def refused(sql: str, *parameters: dict[str, Any]) -> str:
    plan = redash(sql, *parameters)
    assert not plan.queries, plan.queries[0].sql
    return plan.left_out[0].why


TEXT = {"name": "p", "type": "text", "value": "a"}
NUMBER = {"name": "n", "type": "number", "value": 7}
DAY = {"name": "d", "type": "date", "value": "2025-06-01"}
RANGE = {"name": "r", "type": "date-range", "value": {"start": "2025-06-01", "end": "2025-06-30"}}
WEEK = RANGE | {"value": "d_last_7_days"}
SEVERAL = {"prefix": "'", "suffix": "'", "separator": ","}
LIST = {"name": "l", "type": "enum", "value": ["a"], "enumOptions": "a\nb", "multiValuesOptions": SEVERAL}


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("x = '{{ p }}'", "x = :p"),
        ("x = '{{p}}'::text", "x = :p::text"),
        ("x = E'{{ p }}'", "x = :p"),
        ("x LIKE '%{{ p }}%'", "x LIKE ('%' || CAST(:p AS text) || '%')"),
        ("x = 'it''s {{ p }}'", "x = ('it''s ' || CAST(:p AS text))"),
        ("x = E'a\\'{{ p }}'", "x = (E'a\\'' || CAST(:p AS text))"),
        ("x = '{{p}}{{p}}'", "x = (CAST(:p AS text) || CAST(:p AS text))"),
        ("x = '{{ p }} -- no'", "x = (CAST(:p AS text) || ' -- no')"),
        ("x -- '{{ p }}'\n= '{{ p }}'", "x -- '{{ p }}'\n= :p"),
        ("x /* {{ p }} */ = 1", "x /* {{ p }} */ = 1"),
        (
            "d > now() - interval '{{ n }} days'",
            "d > now() - CAST((CAST(:n AS text) || ' days') AS interval)",
        ),
        ("d > date '{{ d }}'", "d > CAST(:d AS date)"),
        (
            "d > timestamp with time zone '{{ d }}'",
            "d > CAST(:d AS timestamp with time zone)",
        ),
        ("d > '{{ d }} 10:00'", "d > CAST((CAST(:d AS text) || ' 10:00') AS timestamp)"),
        ("x > {{ n }}", "x > :n"),
        ("x > {{{ n }}}", "x > :n"),
        ("x IN ({{ n }})", "x IN (:n)"),
        ("x IN ({{ l }})", "x = ANY(:l)"),
        ("x NOT IN ( {{ l }} )", "x <> ALL(:l)"),
        ("LIMIT {{ n }}", "LIMIT :n"),
        ("f(1, {{ n }})", "f(1, :n)"),
        ("d BETWEEN '{{ r.start }}' AND '{{ r.end }}'", "d BETWEEN :start_date AND :end_date"),
    ],
)
def test_values_become_parameters(sql: str, expected: str):
    assert taken(f"SELECT 1 WHERE {sql}", TEXT, NUMBER, DAY, RANGE, LIST) == f"SELECT 1 WHERE {expected}"


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("FROM {{ p }}", "is a name"),
        ("FROM data.{{ p }}", "is a name"),
        ("FROM {{ p }}.orders", "is a name"),
        ("FROM orders_{{ n }}", "is a name"),
        ("FROM {{ n }}_orders", "is a name"),
        ('FROM "{{ p }}"', "a part of a name"),
        ("WHERE x = {{ p }}", "is pasted as a piece of SQL"),
        ("WHERE {{ p }}", "is pasted as a piece of SQL"),
        ("WHERE {{ p }}(1) > 2", "is a name"),
        ("ORDER BY {{ n }}", "to sort or to group"),
        ("GROUP BY 1, {{ n }}", "to sort or to group"),
        ("WHERE x = $${{ p }}$$", "a part of a name or of a text"),
        ("WHERE x = U&'{{ p }}'", "a part of a name or of a text"),
        ("WHERE x = '{{ p }}", "a text without an end"),
        ("WHERE x = '{{ l }}'", "several values, but stands in quotes"),
        ("WHERE x > {{ l }}", "can only stand alone in IN"),
        ("WHERE x IN (1, {{ l }})", "can only stand alone in IN"),
        ("{{# p }}WHERE x = 1{{/ p }}", "template block"),
        ("WHERE d > '{{ r }}'", "needs .start or .end"),
        ("WHERE x = '{{ }}'", "template block"),
    ],
)
def test_pieces_of_sql_are_refused(sql: str, why: str):
    assert why in refused(f"SELECT 1 {sql}", TEXT, NUMBER, DAY, RANGE, LIST)


def test_a_range_that_moves_is_the_default_of_the_window():
    sql = taken("SELECT 1 WHERE d BETWEEN '{{ r.start }}' AND '{{ r.end }}'", WEEK)
    assert sql == (
        "SELECT 1 WHERE d BETWEEN coalesce(:start_date, CURRENT_DATE - 7) AND "
        "(coalesce(:end_date, CURRENT_DATE) + time '23:59:59.999999')"
    )


def test_two_ranges_are_parameters_of_their_own():
    other = RANGE | {"name": "before"}
    sql = "SELECT 1 WHERE d > '{{ r.start }}' OR d > '{{ before.start }}'"
    assert taken(sql, RANGE, other) == "SELECT 1 WHERE d > :r_start OR d > :before_start"


def test_names_are_safe_and_differ():
    names = ("Länge (cm)", "länge cm", "format", "2nd", "r.start", "売上")
    sql = "SELECT " + ", ".join(f"'{{{{ {name} }}}}'" for name in names)
    assert taken(sql, RANGE) == "SELECT :lange_cm, :lange_cm_2, :p_format, :p_2nd, :start_date, :p"


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
    if not path:
        return value
    changed = copy.deepcopy(document)
    holder = changed
    for step in path[:-1]:
        holder = holder[step]
    holder[path[-1]] = value
    return changed


@pytest.mark.parametrize("tool", sorted(READERS))
def test_no_odd_value_at_any_place_breaks_a_reader(tool: str):
    document = json.loads((EXPORTS / f"{tool}-dashboard.json").read_text())
    for number, path in enumerate(paths(document)):
        for odd in (ODD[number % len(ODD)], ODD[(number * 7 + 3) % len(ODD)]):
            try:
                plan = READERS[tool](Node(with_value(document, path, odd)))
            except Stop:
                continue
            else:
                assert all(each.title and each.sql for each in plan.queries)
                assert all(each.title and each.why for each in plan.left_out)


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
