"""The hot lane: fresh answers straight from memory, before logging, routing or anything else has begun.

It knows an answer by the request as it was written. The normal path tells it which answer that is, once it
has checked and understood such a request; whatever is not plain is left to that path. Rights (`admit`),
freshness (`Results.fresh`) and headers (`reply`) are decided by the functions that path uses.
"""

from collections.abc import Callable, Hashable
from typing import Any, Final

import structlog

from service.http.asgi import App, Receive, Scope, Send
from service.http.representation import Coding
from service.http.request_log import request_id_of
from service.results.cache import Results
from service.results.headers import reply
from service.results.table import Headers, Messages

Admit = Callable[[dict[bytes, bytes], str], tuple[str, Headers] | None]
"""From a request's headers and path: the caller's claims and the headers that the answer gets."""
Signature = tuple[str, bytes, bytes, bytes]

ALIASES: Final = 32_768
LONGEST: Final = 1024  # bytes of a request that is worth remembering
LOG_EVERY_S: Final = 10.0

_NOT_PLAIN: Final = frozenset({b"cache-control", b"pragma", b"origin", b"range", b"transfer-encoding"})


class RequestIndex:
    """Which answer a request asks for; notes from another `version` of the catalogue do not count."""

    def __init__(self) -> None:
        self.version = 0
        self._known: dict[Signature, tuple[int, Hashable, Coding]] = {}

    def __len__(self) -> int:
        return len(self._known)

    def remember(self, scope: Scope, key: Hashable, coding: Coding, version: int) -> None:
        """Note what a request was understood to ask for while the catalogue stood at `version`."""
        headers = plain(scope)
        if headers is None or version != self.version:
            return
        signature = _signature(scope, headers)
        if len(signature[0]) + len(signature[1]) + len(signature[2]) + len(signature[3]) > LONGEST:
            return
        self._known[signature] = (version, key, coding)
        if len(self._known) > ALIASES:
            del self._known[next(iter(self._known))]

    def find(self, signature: Signature) -> tuple[int, Hashable, Coding] | None:
        """The version, the key and the coding of an answer."""
        found = self._known.get(signature)
        return found if found is not None and found[0] == self.version else None


class CacheHitMiddleware:
    """The outermost ASGI layer; `admit` lets callers in who may read metrics."""

    def __init__(self, app: App, aliases: RequestIndex, results: Results, admit: Admit) -> None:
        self._app = app
        self._aliases = aliases
        self._results = results
        self._admit = admit
        self._log: Any = structlog.get_logger("hits")
        self._logged = 0
        self._log_at = 0.0
        self.hits = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            answer = self._answer(scope) if scope["type"] == "http" and scope["method"] == "GET" else None
        except Exception as error:  # noqa: BLE001 (the long way answers)
            self._log.error("a held answer could not be given", exc_info=error)
            answer = None
        if answer is None:
            await self._app(scope, receive, send)
        else:
            await send(answer[0])
            await send(answer[1])

    def _answer(self, scope: Scope) -> Messages | None:
        request = plain(scope)
        if request is None:
            return None
        found = self._aliases.find(_signature(scope, request))
        if found is None:
            return None
        _, key, coding = found
        served = self._results.fresh(key)
        if served is None or coding not in served.entry.representations:
            return None
        admitted = self._admit(request, scope["path"])
        if admitted is None:
            return None
        now = self._results.clock()
        self.hits += 1
        if now >= self._log_at:
            self._log_hits(now)
        request_id = (b"x-request-id", request_id_of(request.get(b"x-request-id")))
        return reply(served, coding, now).messages(request.get(b"if-none-match"), (*admitted[1], request_id))

    def _log_hits(self, now: float) -> None:
        """Say now and then how many there were."""
        self._log.info("hits", number=self.hits - self._logged)
        self._logged, self._log_at = self.hits, now + LOG_EVERY_S


def plain(scope: Scope) -> dict[bytes, bytes] | None:
    """A request's headers; None for one that only the long way understands."""
    headers = dict(scope["headers"])
    if len(headers) == len(scope["headers"]) and _NOT_PLAIN.isdisjoint(headers):
        return headers
    return None


def _signature(scope: Scope, headers: dict[bytes, bytes]) -> Signature:
    get = headers.get
    return scope["path"], scope["query_string"], get(b"accept", b""), get(b"accept-encoding", b"")
