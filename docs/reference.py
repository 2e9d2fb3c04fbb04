"""Write the tables of reference.md from the code: settings, commands, routes and errors.

`make reference` writes them. A test compares the page with the code.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import click
from litestar.routes import HTTPRoute

from service.app import routed
from service.cli import tally
from service.environment import rows
from service.errors import all_problems

PAGE: Final = Path(__file__).with_name("reference.md")
API: Final = "/api/v1"
TABLE: Final = re.compile(r"^<!-- from the code: (\w+) -->$.*?^<!-- end -->$", re.MULTILINE | re.DOTALL)
SOCKET: Final = ("GET", "/live", "metrics:read", "The WebSocket of live results, see [live results](live.md)")
"""The route that is an ASGI layer and no handler."""

FOR_PEOPLE: Final = {
    "/alerts": "The page of alerts",
    "/ask": "The page of questions",
    "/d": "The page of all dashboards",
    "/d/{dashboard_id}": "The page of a dashboard",
    "/data": "The page of files and quarantine",
    "/docs": "Documentation of the API, to be tried in the browser",
    "/docs/assets/{name}": "A file of that page",
    "/openapi.json": "The OpenAPI document; `?metrics=true` adds a path for each metric",
    "/redoc": "Leads to `/docs`",
    "/s/{token}": "The page of a signed link, with `/data`, `/events` and `/metrics/{id}` below it",
    "/sign-in": "The form of the sign-in",
    "/sign-in/callback": "Where the issuer sends people back to",
    "/sign-in/issuer": "Leads to the sign-in at OIDC_ISSUER",
    "/sign-out": "Ends the session",
    "/static/{version}/{name}": "A file of the pages",
}
"""Routes of the pages, which the OpenAPI document leaves out."""


def table(heads: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    names = list(heads)
    cells = [[" ".join(cell.split()).replace("|", "\\|") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in [names, ["---"] * len(names), *cells])


def settings() -> str:
    lines = [(f"`{row.env}`", row.default, row.help) for row in rows()]
    return table(("setting", "default", "meaning"), lines)


def _leaves(command: click.Command, context: click.Context) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from _leaves(found, click.Context(found, info_name=name, parent=context))
    else:
        yield context.command_path, command


def _option(option: click.Parameter) -> str:
    if isinstance(option, click.Argument):
        return f"`{(option.metavar or option.name or '').upper()}`"
    said = (getattr(option, "help", None) or "").rstrip(".")
    return f"`{', '.join(option.opts)}` {said}".strip()


def commands() -> str:
    """One line for each command: its arguments and options, and what it does."""
    root = click.Context(tally, info_name="tally")
    lines = [
        (f"`{path}`", command.get_short_help_str(1000), "; ".join(map(_option, command.params)))
        for path, command in _leaves(tally, root)
    ]
    return table(("command", "does", "arguments and options"), lines)


def _said(path: str, handler: Any) -> str:
    """What a route does: its summary, ours, or the first paragraph of its docstring."""
    summary = handler.summary if isinstance(handler.summary, str) else ""
    return summary or FOR_PEOPLE.get(path) or (handler.fn.__doc__ or "").strip().partition("\n\n")[0]


def _http_routes() -> list[HTTPRoute]:
    found = [route for route in routed().routes if isinstance(route, HTTPRoute)]
    return [route for route in found if not route.path_format.startswith("/internal/openapi")]


def _short_paths(all_routes: list[HTTPRoute]) -> set[str]:
    """Paths that lead to the same as the path below `API`."""
    paths = {route.path_format for route in all_routes}
    return {path for path in paths if API + path in paths and path not in FOR_PEOPLE}


def served() -> list[tuple[str, str, str, str]]:
    """Method, path, scope and purpose of each route. A short path of an API route is left out."""
    found = [SOCKET]
    all_routes = _http_routes()
    short = _short_paths(all_routes)
    for route in all_routes:
        for handler in route.route_handlers if route.path_format not in short else ():
            scope = handler.opt.get("scope") or "none"
            methods = sorted({str(each) for each in handler.http_methods} - {"OPTIONS", "HEAD"})
            said = _said(route.path_format, handler)
            found += [(method, route.path_format, scope, said) for method in methods]
    return sorted(found, key=lambda line: (not line[1].startswith(API), line[1], line[0]))


def routes() -> str:
    lines = [(method, f"`{path}`", scope, said) for method, path, scope, said in served()]
    beginnings = sorted({f"`/{path.split('/')[1]}`" for path in _short_paths(_http_routes())})
    also = f"Paths of the API that begin with {', '.join(beginnings)} also work without `{API}`."
    return f"{also}\n\n{table(('method', 'path', 'scope', 'does'), lines)}"


def errors() -> str:
    kinds = sorted(all_problems(), key=lambda kind: (kind.status, kind.code))
    lines = [(f"`{kind.code}`", str(kind.status), kind.__doc__ or "", kind.remedy) for kind in kinds]
    return table(("code", "status", "meaning", "remedy"), lines)


TABLES: Final[dict[str, Callable[[], str]]] = {
    "settings": settings,
    "commands": commands,
    "routes": routes,
    "errors": errors,
}


def filled(page: str) -> str:
    """The page with each table as the code has it."""
    return TABLE.sub(
        lambda old: f"<!-- from the code: {old[1]} -->\n\n{TABLES[old[1]]()}\n\n<!-- end -->", page
    )


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text()))
