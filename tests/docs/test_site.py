"""`make docs` builds the site, without warnings and without a network."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from service.environment import rows

ROOT = Path(__file__).parents[2]
PAGES = {path.stem for path in (ROOT / "docs").glob("*.md")}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built by the command of the Makefile, where any look-up of a name fails."""
    folder = tmp_path_factory.mktemp("site")
    recipe = re.search(r"^docs:.*\n\t@\$\(BIN\)/python (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert recipe
    arguments = recipe[1].replace("$(or $(SITE),docs/_build)", str(folder)).split()
    offline = f"import socket, runpy, sys; socket.getaddrinfo = None; sys.argv = {arguments[1:]!r}; "
    assert arguments[0] == "-m"
    done = subprocess.run(
        [sys.executable, "-c", f"{offline}runpy.run_module({arguments[1]!r}, run_name='__main__')"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return folder


def addresses(page: str) -> Iterator[str]:
    """What a page loads and links to."""
    yield from re.findall(r'\b(?:src|href)="([^"]+)"', page)


def test_warnings_are_errors():
    assert re.search(r"sphinx .*-W ", (ROOT / "Makefile").read_text())


def test_every_page_is_there_and_in_the_contents(site: Path):
    first = (site / "index.html").read_text()
    for name in PAGES:
        assert (site / f"{name}.html").is_file()
        assert name == "quick-start" or f'href="{name}.html"' in first


def test_the_reference_has_its_tables(site: Path):
    text = (site / "reference.html").read_text()
    assert [row.env for row in rows() if f">{row.env}<" not in text] == []


def test_every_link_of_the_site_leads_somewhere(site: Path):
    for path in site.glob("*.html"):
        for address in addresses(path.read_text()):
            parts = urlsplit(address)
            if parts.scheme or not parts.path:
                continue
            target = path.parent / unquote(parts.path)
            assert target.exists(), (path.name, address)
            if parts.fragment and target.suffix == ".html":
                assert f'id="{parts.fragment}"' in target.read_text(), (path.name, address)


def test_pages_load_nothing_from_elsewhere(site: Path):
    for path in site.glob("*.html"):
        text = path.read_text()
        loaded = re.findall(r"<(?:script|img|iframe)[^>]*\bsrc=\"([^\"]+)\"", text)
        loaded += re.findall(r"<link[^>]*\bhref=\"([^\"]+)\"", text)
        assert [each for each in loaded if urlsplit(each).netloc] == [], path.name


def test_git_ignores_the_site():
    done = subprocess.run(["git", "check-ignore", "docs/_build/index.html"], cwd=ROOT, check=False)
    assert done.returncode == 0
