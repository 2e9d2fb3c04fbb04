"""The hot lane: fresh answers straight from memory, before logging, routing or anything else has begun.

It knows an answer by the request as it was written. The normal path tells it which answer that is, once it
has checked and understood such a request; whatever is not plain is left to that path. Rights (`admit`),
freshness (`Results.fresh`) and headers (`result_headers`) are decided by the functions that path uses.
"""

from collections.abc import Callable, Hashable
from typing import Any, Final

import structlog

from service.observe import request_id_of
from service.results.cache import Results
from service.results.headers import result_headers
from service.results.table import Headers, Served
from service.wire import App, Coding, Message, Receive, Scope, Send, matches

Admit = Callable[[dict[bytes, bytes], str], Headers | None]
"""From a request's headers and path."""
Signature = tuple[str, bytes, bytes, bytes]

ALIASES: Final = 32_768
LONGEST: Final = 1024  # bytes of a request that is worth remembering
LOG_EVERY_S: Final = 10.0

_NOT_PLAIN: Final = frozenset({b"cache-control", b"pragma", b"origin", b"range", b"transfer-encoding"})


class Aliases:
    """Which answer a request asks for; notes from another `version` of the catalogue do not count."""

    def __init__(self) -> None:
        self.version = 0
        self._known: dict[Signature, tuple[int, Hashable, Coding]] = {}

    def __len__(self) -> int:
        return len(self._known)

    def remember(self, scope: Scope, key: Hashable, coding: Coding, version: int) -> None:
        """Note what a request was understood to ask for while the catalogue stood at `version`."""
        headers = _plain(scope)
        if headers is None or version != self.version:
            return
        signature = _signature(scope, headers)
        if len(signature[0]) + len(signature[1]) + len(signature[2]) + len(signature[3]) > LONGEST:
            return
        self._known[signature] = (version, key, coding)
        if len(self._known) > ALIASES:
            del self._known[next(iter(self._known))]

    def find(self, scope: Scope, headers: dict[bytes, bytes]) -> tuple[Hashable, Coding] | None:
        found = self._known.get(_signature(scope, headers))
        return (found[1], found[2]) if found is not None and found[0] == self.version else None


class Lane:
    """The outermost ASGI layer; `admit` gives the headers for a caller who may read metrics, else None."""

    def __init__(self, app: App, aliases: Aliases, results: Results, admit: Admit) -> None:
        self._app = app
        self._aliases = aliases
        self._results = results
        self._admit = admit
        self._log: Any = structlog.get_logger("hits")
        self._logged = (0, 0.0)
        self.hits = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = self._answer(scope) if scope["type"] == "http" and scope["method"] == "GET" else None
        if answer is None:
            await self._app(scope, receive, send)
            return
        for message in answer:
            await send(message)

    def _answer(self, scope: Scope) -> tuple[Message, Message] | None:
        request = _plain(scope)
        found = None if request is None else self._aliases.find(scope, request)
        if request is None or found is None:
            return None
        key, coding = found
        served = self._results.fresh(key)
        if served is None or coding not in served.entry.representations:
            return None
        admitted = self._admit(request, scope["path"])
        if admitted is None:
            return None
        now = self._results.clock()
        of_the_body, rest, body = self._head(served, coding, now)
        self._count(now)
        own = [*rest, *admitted, (b"x-request-id", request_id_of(request.get(b"x-request-id")))]
        asked = request.get(b"if-none-match")
        if asked is not None and matches(asked.decode("latin-1"), served.entry.representations[coding].etag):
            return {"type": "http.response.start", "status": 304, "headers": own}, _NO_BODY
        return {"type": "http.response.start", "status": 200, "headers": of_the_body + own}, body

    def _head(self, served: Served, coding: Coding, now: float) -> tuple[Headers, Headers, Message]:
        """What hits share: headers that a 304 lacks, the others, the body; they change once a second."""
        entry = served.entry
        age = int(now - entry.terms.made_at)
        known = entry.heads.get(coding)
        if known is not None and known[0] == age:
            return known[1]
        body = entry.representations[coding].body
        headers = result_headers(served, coding, now)
        headers["content-length"] = str(len(body))
        lines = [(name.encode(), value.encode()) for name, value in headers.items()]
        head: tuple[Headers, Headers, Message] = (
            [line for line in lines if line[0].startswith(b"content-")],
            [line for line in lines if not line[0].startswith(b"content-")],
            {"type": "http.response.body", "body": body, "more_body": False},
        )
        entry.heads[coding] = (age, head)
        return head

    def _count(self, now: float) -> None:
        """Count a hit; the log says now and then how many there were."""
        self.hits += 1
        if now - self._logged[1] >= LOG_EVERY_S:
            self._log.info("hits", number=self.hits - self._logged[0])
            self._logged = (self.hits, now)


_NO_BODY: Final[Message] = {"type": "http.response.body", "body": b"", "more_body": False}


def _plain(scope: Scope) -> dict[bytes, bytes] | None:
    """The request's headers; None for a request that the lane leaves alone."""
    headers = dict(scope["headers"])
    if len(headers) == len(scope["headers"]) and _NOT_PLAIN.isdisjoint(headers):
        return headers
    return None


def _signature(scope: Scope, headers: dict[bytes, bytes]) -> Signature:
    accept, encoding = headers.get(b"accept", b""), headers.get(b"accept-encoding", b"")
    return scope["path"], scope["query_string"], accept, encoding
