"""The TypeScript client against a running service: every operation."""

import json

from tests.clients.conftest import SECRET, run_node, type_check_python, type_check_typescript
from tests.clients.test_python_client import not_asked


def test_every_operation_answers(sdk, address):
    assert type_check_typescript(sdk) == ""
    asked = json.loads(run_node(sdk / "tour.mts", address, SECRET))
    assert not_asked(sdk, {tuple(each.split(" ", 1)) for each in asked}) == []


def test_both_clients_are_typed_without_a_doubt(sdk):
    assert type_check_python(sdk) == ""
