"""What is kept of a plan: all that answers depend on, and never much."""

import msgspec
import pytest

from service.database.stored_sql.plans import TEXT_CHARS, TEXTS_CHARS, read_plan
from service.errors import QueryFailed


def plan(**fields):
    return msgspec.json.encode([{"Plan": {"Node Type": "Result", "Total Cost": 0.01, **fields}}])


def test_tables_and_texts_are_found_at_any_depth():
    scan = {"Node Type": "Seq Scan", "Schema": "data", "Relation Name": "customers", "Filter": "(a > now())"}
    found = read_plan(plan(Output=["lower(a)"], Plans=[{"Node Type": "Limit", "Plans": [scan]}]), "", 1)
    assert found.tables == {("data", "customers")}
    assert {"lower(a)", "(a > now())"} < set(found.texts)
    assert (found.cost, found.hides, found.cut) == (0.01, False, False)


def test_each_text_is_kept_once():
    found = read_plan(plan(Plans=[{"Node Type": "Result", "Output": ["lower(a)"]}] * 1000), "", 1)
    assert sorted(found.texts) == ["Result", "lower(a)"]


def test_a_folded_constant_is_left_out_and_counts_as_anything():
    found = read_plan(plan(Output=["'" + "x" * TEXT_CHARS + "'", "lower(a)"]), "", 1)
    assert found.cut
    assert "lower(a)" in found.texts
    assert sum(map(len, found.texts)) < 100


def test_all_texts_together_are_bounded():
    found = read_plan(plan(Output=[f"{n}{'x' * 100_000}" for n in range(50)]), "", 1)
    assert found.cut
    assert sum(map(len, found.texts)) <= TEXTS_CHARS


@pytest.mark.parametrize("node", ["Foreign Scan", "Custom Scan"])
def test_nodes_that_hide_what_they_read(node):
    assert read_plan(plan(Plans=[{"Node Type": node}]), "", 1).hides


def test_a_statement_weighs_what_its_plan_text_and_columns_do():
    light = read_plan(plan(), "SELECT 1", 1).weight
    assert read_plan(plan(Output=["x" * 10_000]), "SELECT 1", 1).weight > light + 10_000
    assert read_plan(plan(), "SELECT 1" + " " * 1000, 1).weight > light + 1000
    assert read_plan(plan(), "SELECT 1", 1000).weight > light + 100_000
    values = plan(Plans=[{"Node Type": "Values Scan"}])
    assert read_plan(values, "SELECT 1", 1).weight > 1 << 20


def test_a_command_is_refused():
    with pytest.raises(QueryFailed):
        read_plan(b'["Utility Statement"]', "SET a = 1", 0)
