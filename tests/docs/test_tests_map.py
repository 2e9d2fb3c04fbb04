"""tests/README.md names every test file, and no other."""

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
MAP = (TESTS / "README.md").read_text()


def test_the_map_names_every_test_file():
    named = set(re.findall(r"`([a-z_]+(?:/[a-z_.]*)*)`", MAP.split("| promise |")[1]))
    files = [path.relative_to(TESTS) for path in TESTS.glob("[a-z]*/**/test_*.py")]
    files = [path for path in files if not {"node_modules", ".venv"} & {*path.parts}]
    assert len(files) > 100
    missing = [
        path
        for path in files
        if path.as_posix() not in named and not named & {f"{path.parent}/", path.parent.as_posix()}
    ]
    assert missing == []


def test_the_map_names_no_file_that_is_not_there():
    named = re.findall(r"`([a-z_]+/[a-z_/]+\.py)`", MAP)
    assert [path for path in named if not (TESTS / path).exists()] == []
