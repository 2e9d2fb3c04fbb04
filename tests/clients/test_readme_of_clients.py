"""What the README of the clients shows is what they say."""

import os
import re
import subprocess
import sys

import pytest

from tests.clients.conftest import run_node
from tests.clients.test_typed_metrics import written
from tests.processes import ROOT

README = (ROOT / "clients" / "README.md").read_text()
SHOWN = re.findall(r"```(python|js)\n(.*?)```\n\n```text\n(.*?)```", README, re.DOTALL)
PYTHON = [(program, said) for language, program, said in SHOWN if language == "python"]
[JAVASCRIPT] = [(program, said) for language, program, said in SHOWN if language == "js"]


@pytest.fixture
def run_python(sdk, address, token_of, tmp_path):
    def run(program):
        environment = os.environ | {"PYTHONPATH": f"{sdk / 'python'}:{tmp_path}", "TALLY_TOKEN": token_of}
        command = [sys.executable, "-W", "error", "-c", program.replace("http://127.0.0.1:8000", address)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_every_example_has_its_answer():
    assert len(SHOWN) == len(re.findall(r"```(?:python|js)", README)) == 3


def test_the_python_example_says_what_is_shown(run_python):
    program, said = PYTHON[0]
    assert run_python(program) == said


def test_the_typed_metrics_example_says_what_is_shown(run_python, sdk, client, token_of, tmp_path):
    made = client.create_metric(
        {"sql": "SELECT 9007199254740993 AS big, 1.10 AS price", "title": "Exact numbers"}
    )
    status, text, _ = written(sdk, client.address, token_of)
    assert status == 0
    (tmp_path / "metrics.py").write_text(text)
    program, said = PYTHON[1]
    assert run_python(program) == said
    client.delete_metric(made.id)


def test_the_javascript_example_says_what_is_shown(sdk, address, token_of, tmp_path, monkeypatch):
    program, said = JAVASCRIPT
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules" / "tally-client").symlink_to(sdk / "js")
    (tmp_path / "use.mjs").write_text(program.replace("http://127.0.0.1:8000", address))
    monkeypatch.setenv("TALLY_TOKEN", token_of)
    assert run_node(tmp_path / "use.mjs") == said
