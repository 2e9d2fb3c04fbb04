"""What the page of the architecture names is there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text()
NAMED = sorted(set(re.findall(r"`([\w/]+\.py)(?::([\w.]+))?`", PAGE)))


def names(body: list[ast.stmt], prefix: str = "") -> set[str]:
    found: set[str] = set()
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(prefix + node.name)
            if isinstance(node, ast.ClassDef):
                found |= names(node.body, f"{node.name}.")
    return found


def test_the_page_names_functions():
    assert len(NAMED) > 30


@pytest.mark.parametrize(("file", "name"), NAMED, ids=[f"{file}:{name}" for file, name in NAMED])
def test_a_named_function_exists(file: str, name: str):
    module = ast.parse((ROOT / "service" / file).read_text())
    assert not name or name in names(module.body)


def test_each_path_is_short():
    for path in PAGE.split("\n## How things travel\n")[1].split("\n## ")[1:]:
        assert 5 <= len(re.findall(r"^\d+\. ", path, re.MULTILINE)) <= 10
