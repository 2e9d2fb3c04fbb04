"""Serve cache hits from memory, before logging and routing.

The full path validates a request once and records its cache key in `RequestIndex`. The same raw request then
finds its key here. Requests with unusual headers always take the full path. Both paths use the same functions
for access (`admit`), freshness (`Results.fresh`) and headers (`reply`).
"""

from collections.abc import Callable, Hashable
from typing import Any, Final

import structlog

from service.http.asgi import App, Receive, Scope, Send
from service.http.representation import Coding
from service.http.request_log import request_id_of
from service.observe.events import HitsServed, Observe
from service.results.cache import Results
from service.results.headers import reply
from service.results.table import Headers, Messages

Admit = Callable[[dict[bytes, bytes], str], tuple[str, Headers] | None]
"""Takes a request's headers and path. Returns the caller's claims and headers to add to the response."""
Signature = tuple[str, bytes, bytes, bytes]

MAX_REQUESTS: Final = 32_768
MAX_SIGNATURE: Final = 1024  # characters; longer signatures are not indexed
TELL_EVERY_S: Final = 10.0

_NOT_PLAIN: Final = frozenset({b"cache-control", b"pragma", b"origin", b"range", b"transfer-encoding"})


class RequestIndex:
    """Maps raw requests to cache keys. Entries of older definitions are ignored."""

    def __init__(self, results: Results) -> None:
        self._results = results
        self._entries: dict[Signature, tuple[int, Hashable, Coding]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def remember(self, scope: Scope, key: Hashable, coding: Coding, version: int) -> None:
        """Record the cache key of a request that was validated against catalogue `version`."""
        headers = plain(scope)
        if headers is None or version != self._results.definitions:
            return
        signature = _signature(scope, headers)
        if len(signature[0]) + len(signature[1]) + len(signature[2]) + len(signature[3]) > MAX_SIGNATURE:
            return
        self._entries[signature] = (version, key, coding)
        if len(self._entries) > MAX_REQUESTS:
            del self._entries[next(iter(self._entries))]

    def find(self, signature: Signature) -> tuple[int, Hashable, Coding] | None:
        """The catalogue version, the cache key and the content coding of a request."""
        found = self._entries.get(signature)
        return found if found is not None and found[0] == self._results.definitions else None


class CacheHitMiddleware:
    """The outermost ASGI layer. `admit` authenticates callers and checks that they may read metrics.

    Hits are counted. `observe` is told their number at most every `TELL_EVERY_S`.
    """

    def __init__(
        self, app: App, index: RequestIndex, results: Results, admit: Admit, observe: Observe
    ) -> None:
        self._app = app
        self._index = index
        self._results = results
        self._admit = admit
        self._observe = observe
        self._log: Any = structlog.get_logger("hits")
        self._told = 0
        self._tell_at = 0.0
        self.hits = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            response = self._respond(scope) if scope["type"] == "http" and scope["method"] == "GET" else None
        except Exception as error:  # noqa: BLE001 (the full path answers)
            self._log.error("a held answer could not be given", exc_info=error)
            response = None
        if response is None:
            await self._app(scope, receive, send)
        else:
            await send(response[0])
            await send(response[1])

    def _respond(self, scope: Scope) -> Messages | None:
        request = plain(scope)
        if request is None:
            return None
        found = self._index.find(_signature(scope, request))
        if found is None:
            return None
        _, key, coding = found
        outcome = self._results.fresh(key)
        if outcome is None or coding not in outcome.entry.representations:
            return None
        admitted = self._admit(request, scope["path"])
        if admitted is None:
            return None
        now = self._results.clock()
        self.hits += 1
        if now >= self._tell_at:
            self._tell_at = now + TELL_EVERY_S
            self.tell_hits()
        request_id = (b"x-request-id", request_id_of(request.get(b"x-request-id")))
        return reply(outcome, coding, now).messages(request.get(b"if-none-match"), (*admitted[1], request_id))

    def tell_hits(self) -> None:
        """Tell `observe` the number of hits since the last time."""
        number, self._told = self.hits - self._told, self.hits
        self._observe(HitsServed(number))


def plain(scope: Scope) -> dict[bytes, bytes] | None:
    """A request's headers; None if only the full path can handle the request."""
    headers = dict(scope["headers"])
    if len(headers) == len(scope["headers"]) and _NOT_PLAIN.isdisjoint(headers):
        return headers
    return None


def _signature(scope: Scope, headers: dict[bytes, bytes]) -> Signature:
    get = headers.get
    return scope["path"], scope["query_string"], get(b"accept", b""), get(b"accept-encoding", b"")
