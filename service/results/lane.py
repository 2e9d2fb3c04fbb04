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
from service.wire import App, Coding, Receive, Scope, Send, matches

Signature = tuple[str, bytes, bytes, bytes]

ALIASES: Final = 32_768
LONGEST: Final = 1024  # bytes of a request that is worth remembering
SAMPLE: Final = 1000

_ACCEPT: Final = b"accept"
_ENCODING: Final = b"accept-encoding"
_IF_NONE_MATCH: Final = b"if-none-match"
_READ: Final = frozenset({_ACCEPT, _ENCODING, _IF_NONE_MATCH})
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

    def __init__(
        self, app: App, aliases: Aliases, results: Results, admit: Callable[[Scope], Headers | None]
    ) -> None:
        self._app = app
        self._aliases = aliases
        self._results = results
        self._admit = admit
        self._log: Any = structlog.get_logger("request")
        self.hits = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = self._answer(scope) if scope["type"] == "http" and scope["method"] == "GET" else None
        if answer is None:
            await self._app(scope, receive, send)
            return
        status, headers, body = answer
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})
        self.hits += 1
        if self.hits % SAMPLE == 0:
            self._log.info("request", path=scope["path"], status=status, bytes=len(body), sampled=SAMPLE)

    def _answer(self, scope: Scope) -> tuple[int, Headers, bytes] | None:
        request = _plain(scope)
        found = None if request is None else self._aliases.find(scope, request)
        if request is None or found is None:
            return None
        key, coding = found
        served = self._results.fresh(key)
        if served is None or coding not in served.entry.representations:
            return None
        admitted = self._admit(scope)
        if admitted is None:
            return None
        representation = served.entry.representations[coding]
        own = [*admitted, (b"x-request-id", request_id_of(scope["headers"]).encode())]
        asked = request.get(_IF_NONE_MATCH)
        of_the_body, rest = self._head(served, coding)
        if asked is not None and matches(asked.decode("latin-1"), representation.etag):
            return 304, [*rest, *own], b""
        return 200, [*of_the_body, *rest, *own], representation.body

    def _head(self, served: Served, coding: Coding) -> tuple[Headers, Headers]:
        """The headers of a hit, those that a 304 lacks apart; they change once a second."""
        entry = served.entry
        now = self._results.clock()
        age = int(now - entry.terms.made_at)
        known = entry.heads.get(coding)
        if known is not None and known[0] == age:
            return known[1], known[2]
        headers = result_headers(served, coding, now)
        headers["content-length"] = str(len(entry.representations[coding].body))
        lines = [(name.encode(), value.encode()) for name, value in headers.items()]
        of_the_body = [line for line in lines if line[0].startswith(b"content-")]
        rest = [line for line in lines if not line[0].startswith(b"content-")]
        entry.heads[coding] = (age, of_the_body, rest)
        return of_the_body, rest


def _plain(scope: Scope) -> dict[bytes, bytes] | None:
    """The headers that choose among answers; None for a request that the lane leaves alone."""
    read: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        if name in _READ:
            if name in read:
                return None
            read[name] = value
        elif name in _NOT_PLAIN:
            return None
    return read


def _signature(scope: Scope, headers: dict[bytes, bytes]) -> Signature:
    return (scope["path"], scope["query_string"], headers.get(_ACCEPT, b""), headers.get(_ENCODING, b""))
