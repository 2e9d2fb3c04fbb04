"""What the README says is so: its settings are the service's, its examples run as pasted."""

import re
import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest

from service.environment import rows
from tests.processes import serving_seeds

README = (Path(__file__).parents[2] / "README.md").read_text()


def test_the_settings_table_is_that_of_the_service():
    _, table = README.split("| setting | default | meaning |\n|---|---|---|\n")
    listed = [line for line in table.split("\n\n")[0].splitlines() if line.startswith("|")]
    assert listed == [f"| `{row.env}` | {row.default} | {row.help} |" for row in rows()]


def test_every_make_target_that_is_named_exists():
    makefile = (Path(__file__).parents[2] / "Makefile").read_text()
    for target in set(re.findall(r"`make ([a-z]+)", README)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


TESTS = Path(__file__).parents[1]


def test_the_map_of_the_tests_names_every_folder_and_only_what_is_there():
    named = set(re.findall(r"`([\w/]+(?:\.py)?)`", (TESTS / "README.md").read_text().split("\n\n")[1]))
    assert named == {path.parent.name for path in TESTS.glob("*/*.py")}
    files = re.findall(r"`(\w+/[\w/]*\.py)`", (TESTS / "README.md").read_text())
    assert len(files) > 30
    assert [file for file in files if not (TESTS / file).is_file()] == []


EXAMPLES = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)


@pytest.fixture(scope="module")
def address() -> Generator[str]:
    with serving_seeds() as base:
        yield base


def test_there_are_five_examples():
    assert len(EXAMPLES) >= 5


def test_the_examples_run_as_pasted_and_in_order(address: str):
    for example in EXAMPLES:
        script = example.replace("http://127.0.0.1:8000", address).replace(
            "curl -s", "curl -s --fail-with-body"
        )
        done = subprocess.run(["bash", "-ec", script], capture_output=True, text=True, check=False)
        assert done.returncode == 0, (example, done.stdout)
        assert done.stdout
        assert '"status":422' not in done.stdout, done.stdout
