"""Serve cache hits from memory, before logging and routing: a shortcut past the endpoints.

An endpoint validates a request once and records its cache key in `RequestIndex`. The same raw request then
finds its key here. Requests with `Cache-Control` or a repeated header always go to their endpoint. Both use
the same functions for access (`Gate`), freshness (`Results`) and headers (`results/headers.py`).
"""

import time
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Hashable
from typing import Any, Final

import structlog

from service.auth.guards import Gate
from service.http.asgi import SAFE_METHODS, App, Receive, Scope, Send
from service.http.representation import Coding
from service.http.request_log import request_id_of
from service.observe.events import HitsServed, Observe
from service.results.cache import Results
from service.results.headers import hit
from service.results.table import Messages

Signature = tuple[str, bytes, bytes, bytes]

Answered = list[int]
"""How many hits of a route were answered, by `_KINDS`."""

IndexEntry = tuple[int, Hashable, Coding, Answered]
"""The catalogue version, the cache key and the content coding of a request, and the counts of its route."""

MAX_REQUESTS: Final = 32_768
MAX_SIGNATURE: Final = 1024  # characters; longer signatures are not indexed

_KINDS: Final = (("GET", 200), ("GET", 304), ("HEAD", 200), ("HEAD", 304))


class RequestIndex:
    """Maps raw requests to cache keys. Entries of older definitions are ignored.

    A second map has the keys by what an endpoint has read of a request, whatever its headers: plans are kept
    for fewer metrics than results are, so a request in other words must not need the plan of a held result.
    """

    def __init__(self, results: Results) -> None:
        self._results = results
        self._entries: OrderedDict[Signature, IndexEntry] = OrderedDict()
        self._keys: OrderedDict[Hashable, tuple[object, Hashable]] = OrderedDict()
        self.answered: dict[str, Answered] = {}
        """By route."""

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
        answered = self.answered.setdefault(scope.get("path_template", ""), [0] * len(_KINDS))
        _keep(self._entries, signature, (version, key, coding, answered))

    def find(self, signature: Signature) -> IndexEntry | None:
        """What was recorded of a request."""
        found = self._entries.get(signature)
        return found if found is not None and found[0] == self._results.definitions else None

    def remember_key(self, read: Hashable, definition: object, key: Hashable) -> None:
        """Record the cache key of what was read of a request for a metric of this very `definition`."""
        _keep(self._keys, read, (definition, key))

    def key_of(self, read: Hashable, definition: object) -> Hashable | None:
        """The cache key that was recorded; None if the definition is another one by now."""
        found = self._keys.get(read)
        return found[1] if found is not None and found[0] is definition else None


def _keep(entries: OrderedDict[Any, Any], key: Hashable, value: object) -> None:
    """Set an entry, and forget the oldest if there are too many. (A `dict` would search for it.)"""
    entries[key] = value
    if len(entries) > MAX_REQUESTS:
        entries.popitem(last=False)


class CacheHitMiddleware:
    """The outermost ASGI layer. Callers of cached results need the scope `need`.

    Hits are counted. `observe` learns of them by `tell_hits`, which somebody has to call about once a second.
    """

    def __init__(
        self, app: App, index: RequestIndex, results: Results, gate: Gate, *, need: str, observe: Observe
    ) -> None:
        self._app = app
        self._index = index
        self._results = results
        self._gate = gate
        self._need = need
        self._observe = observe
        self._log: Any = structlog.get_logger("hits")
        self._told: Counter[tuple[str, str, int]] = Counter()
        self._duration = 0.0
        self._time_one = True  # reading the clock for each would cost a hundredth of the rate

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        try:
            response = self._respond(scope) if scope["type"] == "http" else None
        except Exception as error:  # noqa: BLE001 (the endpoint answers)
            self._log.error("a held answer could not be given", exc_info=error)
            response = None
        return self._app(scope, receive, send) if response is None else _sent(response, send)

    def _respond(self, scope: Scope) -> Messages | None:
        started = time.perf_counter() if self._time_one else 0.0
        request = plain(scope)
        if request is None:
            return None
        found = self._index.find(_signature(scope, request))
        if found is None:
            return None
        _, key, coding, answered = found
        now = self._results.clock()
        entry = self._results.fresh_entry(key, now)
        if entry is None or coding not in entry.representations:
            return None
        extra = self._gate.known(request, scope["path"], self._need)
        if extra is None:
            return None
        extra = [*extra, (b"x-request-id", request_id_of(request.get(b"x-request-id")))]
        method = scope["method"]
        messages = hit(entry, coding, now).messages(method, request.get(b"if-none-match", b""), extra)
        kind = 0 if messages[0]["status"] == _OK else 1
        answered[kind if method == "GET" else kind + 2] += 1
        if started:
            self._duration, self._time_one = time.perf_counter() - started, False
        return messages

    def tell_hits(self) -> None:
        """Tell `observe` the number of hits since the last time, if there are any."""
        answered = self._answered()
        requests, self._told = answered - self._told, answered
        if requests:
            self._time_one = True
            self._observe(HitsServed(requests.total(), tuple(requests.items()), self._duration))

    def _answered(self) -> Counter[tuple[str, str, int]]:
        return Counter(
            {
                (route, *kind): number
                for route, numbers in self._index.answered.items()
                for kind, number in zip(_KINDS, numbers, strict=True)
            }
        )


_OK: Final = 200


async def _sent(response: Messages, send: Send) -> None:
    await send(response[0])
    await send(response[1])


def plain(scope: Scope) -> dict[bytes, bytes] | None:
    """The headers of a GET or HEAD; None if only the endpoint reads them right.

    It may have to run the SQL for `Cache-Control`, and joins the lines of a repeated header.
    """
    headers = dict(scope["headers"])
    if len(headers) == len(scope["headers"]) and b"cache-control" not in headers:
        return headers if scope["method"] in SAFE_METHODS else None
    return None


def _signature(scope: Scope, headers: dict[bytes, bytes]) -> Signature:
    get = headers.get
    return scope["path"], scope["query_string"], get(b"accept", b""), get(b"accept-encoding", b"")
