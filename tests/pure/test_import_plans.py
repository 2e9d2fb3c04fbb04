"""A plan is a list of named statements, made from the dataset and the columns of the file."""

from uuid import UUID

import pytest

from service.imports.datasets import find
from service.imports.plan import Run, plan_import, plan_return
from service.imports.readers.tables import Table

RUN = Run(UUID(int=1), 1, "file.csv", "hash")
PLANS = {
    "queries": "check refuse_repeats sql_to_validate explain update_changed insert_new"
    " close_equal quarantine",
    "metric_records": "check doubt_points doubt_points add_words use_known_spelling"
    " add_words use_known_spelling explain number_facts insert_facts unmark_facts close_equal quarantine",
    "external_interactions": "check add_words use_known_spelling find_orphans explain update_changed"
    " insert_new close_equal quarantine",
}


def names(steps) -> str:
    return " ".join(step.command.name if hasattr(step, "command") else step.name for step in steps)


@pytest.mark.parametrize(("dataset", "steps"), PLANS.items(), ids=PLANS)
def test_a_plan_names_its_steps_in_order(dataset: str, steps: str):
    found = find(dataset)
    assert found
    table = Table(found.names, iter(()), set(found.names), returns=False)
    assert names(plan_import(found, RUN, table, mirror=False).steps) == steps
    mirrored = plan_import(found, RUN, table, mirror=True)
    assert names(mirrored.steps) == f"{steps} mark_gone"


def test_rows_that_return_are_held_against_quarantine_and_stored_rows():
    customers = find("customers")
    assert customers
    table = Table(customers.names, iter(()), {"customer_id"}, returns=True)
    planned = names(plan_import(customers, RUN, table, mirror=False).steps)
    assert planned.startswith("check refuse_closed refuse_unmended")
    assert planned.endswith("quarantine update_reasons close_returned")
    assert "quarantine" not in names(plan_return(customers).steps).split()
