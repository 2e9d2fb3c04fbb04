"""Answer the addresses below a signed link as the API does, for what the link names and no more.

A request below `/s/{token}/` becomes the API's request with the parameters that the token fixes. An address
that names other parameters, or other values, is refused: its answer would not be what it asks for.
"""

from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import urlencode

from service.dashboard.links import Links, OpenLink
from service.errors import FieldError, InvalidInput, MethodNotAllowed, NotFound, Problem
from service.http.asgi import SAFE_METHODS, App, Receive, Refuse, Scope, Send, query_pairs
from service.http.ids import parse_uuid
from service.metrics.models import Metric
from service.metrics.result_endpoint import ANSWER_PARAMETERS

API: Final = "/api/v1"
RESUME: Final = "last_event_id"
IDS: Final = "ids"


class LinkRoutes:
    """ASGI layer: turns requests below a link into requests of the API. Others go to `app`."""

    def __init__(self, app: App, links: Callable[[], Links], refuse: Refuse) -> None:
        self._app = app
        self._links = links
        self._refuse = refuse

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        found = _below_link(scope)
        if found is None:
            return self._app(scope, receive, send)
        return self._answer(*found, scope, receive, send)

    async def _answer(self, token: str, rest: list[str], scope: Scope, receive: Receive, send: Send) -> None:
        scope["path_template"] = f"/s/{{token}}/{_shape(rest)}"
        try:
            links = self._links()
            link = await links.open(token)
            path, query = await _inside(links, link, rest, _pairs(scope))
            if scope["method"] not in SAFE_METHODS:
                raise MethodNotAllowed(headers={"Allow": "GET, HEAD"})
        except Problem as problem:
            await self._refuse(scope, send, problem)
            return
        scope["state"]["admitted"] = link.principal
        kept = [line for line in scope["headers"] if line[0] not in {b"authorization", b"cookie"}]
        inner = {
            **scope,
            "path": path,
            "raw_path": path.encode(),
            "query_string": urlencode(query).encode(),
            "headers": kept,
        }
        await self._app(inner, receive, send)
        if "stream" in inner:  # `RequestBounds` runs it
            scope["stream"] = inner["stream"]


def _below_link(scope: Scope) -> tuple[str, list[str]] | None:
    """The token and the rest of a path below a link. The link itself is a page."""
    if scope["type"] != "http" or not scope["path"].startswith("/s/"):
        return None
    parts = [part for part in scope["path"].split("/") if part]
    return (parts[1], parts[2:]) if len(parts) > _PAGE_PARTS else None


async def _inside(
    links: Links, link: OpenLink, rest: list[str], given: dict[str, str]
) -> tuple[str, dict[str, str]]:
    """The path and the query of the API for a path below a link. Raises `NotFound`."""
    metrics = {metric.id: metric for metric in links.dashboard(link).metrics}

    def named(text: str) -> Metric:
        found = metrics.get(parse_uuid(text))
        if found is None:
            raise NotFound(f"The dashboard of this link has no metric {text[:60]}.")
        return found

    match rest:
        case ["data"]:
            _refuse_others(given, link, ())
            return f"{API}/dashboards/{link.claims.dashboard}/data", link.claims.parameters
        case ["metrics", text]:
            metric = named(text)
            _refuse_others(given, link, ANSWER_PARAMETERS)
            options = {name: value for name, value in given.items() if name in ANSWER_PARAMETERS}
            # A spreadsheet reads it, most likely: nothing runs in it unless its reader says so.
            options.setdefault("excel", "true")
            return f"{API}/metrics/{metric.id}", await links.taken(link, [metric]) | options
        case ["events"]:
            _refuse_others(given, link, (IDS, RESUME))
            shown = [named(each.strip()) for each in given.get(IDS, "").split(",") if each] or [
                *metrics.values()
            ]
            if not shown:
                raise NotFound("The dashboard of this link is empty.")
            query = {IDS: ",".join(str(metric.id) for metric in shown)}
            resume = {RESUME: given[RESUME]} if RESUME in given else {}
            return f"{API}/events", query | await links.taken(link, shown) | resume
        case _:
            raise NotFound


def _refuse_others(given: dict[str, str], link: OpenLink, known: tuple[str, ...]) -> None:
    """Raise `InvalidInput` for parameters that are neither known nor repeat what the link fixes."""
    fixed = link.claims.parameters
    others = [name for name, value in given.items() if name not in known and fixed.get(name) != value]
    if others:
        takes = f"; it takes {', '.join(known)}" if known else ""
        wrong = f"the link fixes its parameters{takes}"
        raise InvalidInput(errors=tuple(FieldError(name, wrong) for name in others))


def _pairs(scope: Scope) -> dict[str, str]:
    pairs = query_pairs(scope["query_string"])
    given = dict(pairs)
    if len(given) < len(pairs):
        twice = next(name for name in given if sum(each == name for each, _ in pairs) > 1)
        raise InvalidInput(errors=(FieldError(twice, "given more than once"),))
    return given


def _shape(rest: list[str]) -> str:
    """The path template for the log and for Prometheus: bounded, whatever a caller asks for."""
    if rest[0] == "metrics":
        return "metrics/{metric_id}"
    return rest[0] if rest in (["data"], ["events"]) else "{path}"


_PAGE_PARTS: Final = 2
