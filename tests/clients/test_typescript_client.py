"""The TypeScript client against a running service: every operation."""

import json
import shutil
from pathlib import Path

from tests.clients.conftest import SECRET, run_node
from tests.clients.test_python_client import not_asked


def test_every_operation_answers(sdk, address):
    shutil.copy(Path(__file__).with_name("tour.mts"), sdk)
    asked = json.loads(run_node(sdk / "tour.mts", address, SECRET))
    assert not_asked(sdk, {tuple(each.split(" ", 1)) for each in asked}) == []
