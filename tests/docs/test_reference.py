"""The reference has every setting, command, route and error of the code, each with what it is."""

import importlib.util
import re
from pathlib import Path

import click
import pytest
from litestar.routes import HTTPRoute

from service.app import routed
from service.auth.tokens import SCOPES
from service.cli import tally
from service.environment import rows
from service.errors import all_problems

SCRIPT = Path(__file__).parents[2] / "docs" / "reference.py"


@pytest.fixture(scope="module")
def reference():
    spec = importlib.util.spec_from_file_location("reference", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def page(reference) -> str:
    return reference.PAGE.read_text()


def cells(page: str, heading: str) -> list[list[str]]:
    section = page.split(f"\n## {heading}\n")[1].split("\n## ", maxsplit=1)[0]
    lines = re.findall(r"^\| (.*) \|$", section, re.MULTILINE)[2:]
    return [re.split(r" (?<!\\)\| ", line) for line in lines]


def test_every_setting(page):
    expected = [[f"`{row.env}`", row.default, row.help.replace("|", "\\|")] for row in rows()]
    assert cells(page, "Settings") == expected


def paths_of(command: click.Command, path: str) -> list[str]:
    if not isinstance(command, click.Group):
        return [path]
    return [found for name, each in command.commands.items() for found in paths_of(each, f"{path} {name}")]


def test_every_command_and_option(page):
    listed = {name.strip("`"): rest for name, *rest in cells(page, "Commands")}
    assert sorted(listed) == sorted(paths_of(tally, "tally"))
    assert len(listed) > 30
    assert all(does for does, *_ in listed.values())
    assert "`--dry-run`" in listed["tally import"][1]
    assert "`FILE...`" in listed["tally import"][1]


def test_every_route(page):
    lines = cells(page, "Routes")
    listed = {(method, path.strip("`")) for method, path, *_ in lines}
    for route in routed().routes:
        if not isinstance(route, HTTPRoute) or route.path_format.startswith("/internal/openapi"):
            continue
        for handler in route.route_handlers:
            for method in {str(each) for each in handler.http_methods} - {"OPTIONS", "HEAD"}:
                both = {(method, route.path_format), (method, f"/api/v1{route.path_format}")}
                assert both & listed, route.path_format
    assert {scope for _, _, scope, _ in lines} <= {*SCOPES, "none"}


def test_every_route_says_what_it_does(page):
    silent = [line for line in cells(page, "Routes") if len(line) != 4 or not line[3].strip()]
    assert silent == [], "give the handler a summary, or its path a line in docs/reference.py"
    assert not any("Wrap a given callable" in line[3] for line in cells(page, "Routes"))


def test_routes_that_exist_no_more_are_not_described(reference):
    paths = {route.path_format for route in routed().routes if isinstance(route, HTTPRoute)}
    assert set(reference.FOR_PEOPLE) <= paths


def test_every_error_with_its_remedy(page):
    listed = {code.strip("`"): rest for code, *rest in cells(page, "Errors")}
    assert listed.keys() == {kind.code for kind in all_problems()}
    for kind in all_problems():
        status, meaning, remedy = listed[kind.code]
        assert status == str(kind.status)
        assert meaning
        assert remedy == kind.remedy.replace("|", "\\|")


def test_the_tables_are_those_of_the_code(reference, page):
    assert page == reference.filled(page), "run: make reference"
    assert len(reference.TABLE.findall(page)) == len(reference.TABLES)
