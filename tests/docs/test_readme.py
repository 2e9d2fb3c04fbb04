"""What README and docs say is so: commands exist, examples run as pasted and print what is shown."""

import json
import re
import shlex
import subprocess
import urllib.request
from collections.abc import Generator
from pathlib import Path

import click
import pytest

from service.cli import tally
from tests.processes import serving_seeds

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGES = [README, *(page.read_text() for page in sorted((ROOT / "docs").glob("*.md")))]


def test_every_make_target_that_is_named_exists():
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"(?:`|^)make ([a-z]+)", "\n".join(PAGES), re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


TESTS = Path(__file__).parents[1]


def test_the_map_of_the_tests_names_every_folder_and_only_what_is_there():
    named = set(re.findall(r"`([\w/]+(?:\.py)?)`", (TESTS / "README.md").read_text().split("\n\n")[1]))
    assert named == {path.parent.name for path in TESTS.glob("*/*.py")}
    files = re.findall(r"`(\w+/[\w/]*\.py)`", (TESTS / "README.md").read_text())
    assert len(files) > 30
    assert [file for file in files if not (TESTS / file).is_file()] == []


def test_every_command_that_is_named_exists():
    named = re.findall(r"(?:`|^|/)tally ([a-z]+)(?: ([a-z]+))?", "\n".join(PAGES), re.MULTILINE)
    assert len(named) > 10
    context = click.Context(tally)
    for first, second in named:
        command = tally.get_command(context, first)
        assert command is not None, first
        if isinstance(command, click.Group) and second:
            assert command.get_command(context, second) is not None, f"{first} {second}"


def lines_of_tally() -> list[list[str]]:
    """Each command line of `tally` in the blocks, without what a shell adds."""
    blocks = "\n".join(re.findall(r"```(?:sh|bash)\n(.*?)```", "\n".join(PAGES), re.DOTALL))
    blocks = re.sub(r"\\\n\s*", " ", blocks)
    found = re.findall(r"(?:^|[ /(])tally ([a-z][^\n#|>&)]*)", blocks, re.MULTILINE)
    return [words for line in found if (words := shlex.split(line))[0].isalpha()]


def test_every_option_that_an_example_uses_exists():
    lines = lines_of_tally()
    assert len(lines) > 15
    for words in lines:
        command: click.Command = tally
        while isinstance(command, click.Group) and words:
            command = command.commands[words.pop(0)]
        known = {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
        options = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert options <= known, (command.name, options - known)


EXAMPLES = [
    example
    for page in PAGES
    for example in re.findall(r"```bash\n(.*?)```(?:\n+```text\n(.*?)```)?", page, re.DOTALL)
]
"""Scripts, and what they print where it is shown."""
ANSWER = re.search(r"```json\n(.*?)```", README, re.DOTALL)


@pytest.fixture(scope="module")
def address() -> Generator[str]:
    with serving_seeds() as base:
        yield base


def test_there_are_examples():
    assert len(EXAMPLES) >= 8


def test_the_answer_that_is_shown_is_the_answer(address: str):
    assert ANSWER
    shown = json.loads(ANSWER[1])
    with urllib.request.urlopen(f"{address}/api/v1/metrics/{shown['id']}") as answer:
        assert json.load(answer) | {"as_of": ""} == shown | {"as_of": ""}


def test_the_examples_run_as_pasted_and_in_order(address: str):
    for example, shown in EXAMPLES:
        script = example.replace("http://127.0.0.1:8000", address).replace(
            "curl -s", "curl -s --fail-with-body"
        )
        done = subprocess.run(
            ["bash", "-ec", script],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, (example, done.stdout)
        assert done.stdout
        assert '"status":422' not in done.stdout, done.stdout
        assert not shown or done.stdout.strip() == shown.strip(), example


def test_some_examples_show_what_they_print():
    assert sum(1 for _, shown in EXAMPLES if shown) >= 3
