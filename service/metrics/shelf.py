"""Finished results as HTTP replies: what a request asks for, and the headers and coding that it gets.

`Straight` answers a metric's GET without the framework around the route that documents it: the same
functions, less than half the time.
"""

import re
from collections.abc import Awaitable, Callable
from typing import Any, Final
from urllib.parse import parse_qsl

from service.errors import FieldError, InvalidInput, Problem
from service.metrics.batch import parse_id
from service.metrics.catalog import Catalog
from service.metrics.execute import Asker, Executor
from service.metrics.formats import choose
from service.results.cache import Results
from service.results.headers import Reply, directives, reply
from service.results.lane import Aliases
from service.results.table import Served
from service.wire import SMALLEST, App, Coding, Receive, Scope, Send, choose_coding

# Query parameters of the answer itself; every other one is the metric's.
ANSWER_PARAMETERS: Final = ("format", "excel")

_RESULT: Final = re.compile(r"(?:/api/v1)?/metrics/([^/]+)")


class Shelf:
    """Hands finished results out, and tells the hot lane what it may hand out by itself."""

    def __init__(self, catalog: Catalog, executor: Executor, results: Results, aliases: Aliases) -> None:
        self._catalog = catalog
        self._executor = executor
        self._results = results
        self._aliases = aliases

    async def result(self, metric_id: str, scope: Scope, claims: str) -> Reply:
        """Answer a metric's GET; raises the problems of the metric, its parameters and its run."""
        version = self._catalog.version
        metric = self._catalog.get(parse_id(metric_id))
        pairs = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = [pair for pair in pairs if pair[0] not in ANSWER_PARAMETERS]
        options = _options(pairs) if len(given) < len(pairs) else {}
        form = choose(header_of(scope, b"accept"), options.get("format"))
        excel = options.get("excel") == "true"
        served = await self._executor.answer(metric, given, form, excel=excel, asker=asker_of(scope, claims))
        return await self.reply(scope, served, version)

    async def reply(self, scope: Scope, served: Served, version: int) -> Reply:
        """`version` is the catalogue's when the request was first looked at."""
        entry = served.entry
        coding: Coding = "identity"
        if len(entry.representations[coding].body) > SMALLEST:
            coding = choose_coding(header_of(scope, b"accept-encoding"))
        await self._results.encode(entry, coding)
        if entry.shared:
            self._aliases.remember(scope, entry.key, coding, version)
        return reply(served, coding, self._results.clock())


class Straight:
    """ASGI layer within the gate: metrics' results past the framework, everything else on to it."""

    def __init__(
        self,
        app: App,
        shelf: Callable[[], Shelf | None],
        refuse: Callable[[Any, Any, Problem], Awaitable[None]],
    ) -> None:
        self._app = app
        self._shelf = shelf
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = (
            _RESULT.fullmatch(scope["path"]) if scope["type"] == "http" and scope["method"] == "GET" else None
        )
        shelf = self._shelf()
        if found is None or shelf is None or "metrics:read" not in scope["state"]["principal"].scopes:
            await self._app(scope, receive, send)
            return
        try:
            reply = await shelf.result(found[1], scope, scope["state"]["principal"].claims)
        except Problem as problem:
            await self._refuse(scope, send, problem)
            return
        headers = [(name.encode(), value.encode()) for name, value in reply.headers.items()]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})


def header_of(scope: Scope, name: bytes) -> str:
    """All lines of a header as one, empty without it."""
    return ",".join(value.decode("latin-1") for each, value in scope["headers"] if each == name)


def asker_of(scope: Scope, claims: str) -> Asker:
    return Asker(claims, directives(header_of(scope, b"cache-control")))


def _options(pairs: list[tuple[str, str]]) -> dict[str, str]:
    """The answer's own parameters, each at most once."""
    options: dict[str, str] = {}
    for name, value in pairs:
        if name in ANSWER_PARAMETERS:
            if name in options:
                raise InvalidInput(errors=(FieldError(name, "given more than once"),))
            options[name] = value
    if options.get("excel") not in {None, "true", "false"}:
        raise InvalidInput(errors=(FieldError("excel", "true or false"),))
    return options
