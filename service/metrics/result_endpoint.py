"""Serve results over HTTP: read the request, get the result, choose its headers and content coding.

`ResultEndpoint` answers before the framework. The route in `metrics/api.py` only documents it.
"""

from collections.abc import Awaitable, Callable
from typing import Final
from uuid import UUID

from service.auth.guards import Gate, require
from service.auth.tokens import Principal
from service.errors import FieldError, InvalidInput, Problem
from service.http.asgi import (
    SAFE_METHODS,
    App,
    Headers,
    Message,
    Receive,
    Refuse,
    Scope,
    Send,
    field_of,
    header_of,
    query_pairs,
    with_headers,
)
from service.http.fields import directives
from service.http.ids import metric_of
from service.http.representation import RepresentationMiddleware, choose_coding
from service.metrics.batch import Caller
from service.metrics.catalog import Catalog
from service.metrics.execute import Executor
from service.metrics.formats import CSV, choose
from service.results.cache import Results
from service.results.cache_hits import MAX_SIGNATURE, RequestIndex
from service.results.headers import reply
from service.results.table import CacheOutcome, Reply

# Query parameters that choose the format. All other query parameters belong to the metric.
ANSWER_PARAMETERS: Final = ("format", "excel", "bom")

PATH: Final = "/api/v1/metrics/{metric_id}"
"""The path that the route documents, for `RequestDone`."""

READ: Final = "metrics:read"
"""The scope that results need."""


class ResultService:
    """Turns results into replies, and registers them in the `RequestIndex` for `CacheHitMiddleware`."""

    def __init__(
        self, catalog: Catalog, executor: Executor, results: Results, request_index: RequestIndex
    ) -> None:
        self._catalog = catalog
        self._executor = executor
        self._results = results
        self._request_index = request_index

    async def result(self, metric_id: UUID, scope: Scope, claims: str) -> Reply:
        """Answer a metric's GET. Raises the problems of the metric, its parameters and its run."""
        version = self._catalog.version
        metric = self._catalog.get(metric_id)
        pairs = query_pairs(scope["query_string"])
        given = [pair for pair in pairs if pair[0] not in ANSWER_PARAMETERS]
        options = _options(pairs) if len(given) < len(pairs) else {}
        arrow = self._executor.arrow is not None
        form = choose(header_of(scope, b"accept"), options.get("format"), arrow=arrow)
        if form == "csv" and options.get("bom") == "1":
            form = "csv-bom"
        excel = form in CSV and options.get("excel", "true" if form == "csv-bom" else "false") == "true"
        wanted = directives(header_of(scope, b"cache-control"))
        query = scope["query_string"]
        read = (metric_id, query, form) if len(query) <= MAX_SIGNATURE else None
        key = self._request_index.key_of(read, metric) if read else None
        outcome = self._results.hit(key, wanted) if key else None
        if outcome is None:
            request = await self._executor.cache_request(metric, given, form, claims=claims, excel=excel)
            outcome = await self._results.get(request, wanted)
            if read and request.shared:
                self._request_index.remember_key(read, metric, request.key)
        return await self.reply(scope, outcome, version)

    async def reply(self, scope: Scope, outcome: CacheOutcome, version: int) -> Reply:
        """Build the reply. `version` is the catalogue's version when the request arrived."""
        entry = outcome.entry
        coding = choose_coding(header_of(scope, b"accept-encoding"))
        await self._results.encode(entry, coding)
        if entry.shared and entry.policy.fresh_until > entry.policy.made_at:
            self._request_index.remember(scope, entry.key, coding, version)
        return reply(outcome, coding, self._results.clock())


class ResultEndpoint:
    """ASGI layer that answers every GET and HEAD of a metric's result. Other requests go to `app`.

    `gate` authenticates. `refuse` answers with a problem.
    """

    def __init__(
        self,
        app: App,
        gate: Gate,
        service: Callable[[], ResultService],
        refuse: Refuse,
    ) -> None:
        self._app = app
        self._gate = gate
        self._service = service
        self._refuse = refuse

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        metric_id = _metric_of(scope)
        if metric_id is None:
            return self._app(scope, receive, send)
        return self._answer(metric_id, scope, send)

    async def _answer(self, metric_id: UUID, scope: Scope, send: Send) -> None:
        scope["path_template"] = PATH
        extra = self._gate.browser_headers(field_of(scope, b"origin"))
        try:
            principal = scope["state"]["principal"] = await self._gate.admit(scope)
            extra = [*extra, *self._gate.take(principal, scope["path"])]
            claims = require(principal, READ).claims
            reply = await self._service().result(metric_id, scope, claims)
        except Problem as problem:
            await self._send(problem, scope, send, extra)
            return
        for message in reply.messages(scope["method"], field_of(scope, b"if-none-match"), extra):
            await send(message)

    async def _send(self, problem: Problem, scope: Scope, send: Send, extra: Headers) -> None:
        async def refuse(scope: Scope, _receive: Receive, send: Send) -> None:
            await self._refuse(scope, send, problem)

        await RepresentationMiddleware(refuse)(scope, _nothing_more, with_headers(send, extra))


def _metric_of(scope: Scope) -> UUID | None:
    """The metric whose result a request reads. The router answers paths whose id is no UUID."""
    if scope["type"] != "http" or scope["method"] not in SAFE_METHODS:
        return None
    return metric_of(scope["path"], whole=True)


async def _nothing_more() -> Message:
    return {"type": "http.disconnect"}


def caller_of(scope: Scope, principal: Principal) -> Caller:
    return Caller(principal.claims, directives(header_of(scope, b"cache-control")), principal.subject)


def _options(pairs: list[tuple[str, str]]) -> dict[str, str]:
    """The parameters that choose the format, each at most once."""
    options: dict[str, str] = {}
    for name, value in pairs:
        if name in ANSWER_PARAMETERS:
            if name in options or not value:
                raise InvalidInput(errors=(FieldError(name, "give it once, with a value"),))
            options[name] = value
    if options.get("excel") not in {None, "true", "false"}:
        raise InvalidInput(errors=(FieldError("excel", "true or false"),))
    if options.get("bom") not in {None, "0", "1"}:
        raise InvalidInput(errors=(FieldError("bom", "0 or 1"),))
    return options
