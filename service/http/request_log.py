"""One id and one event per request."""

import os
import re
import time
from collections.abc import Awaitable, Iterator, Mapping
from typing import Any, Final

from service.errors import AUTH_PROBLEMS
from service.http.asgi import App, Message, Receive, Scope, Send
from service.http.client_address import Proxies
from service.http.current_caller import address_of, current_caller
from service.http.log_fields import cache_outcome, caller_of, shown_path, shown_query
from service.observe.events import AuthFailed, Observe, RequestDone, Served
from service.observe.log import current_request_id
from service.observe.trace import UNTRACED, Span, Traces

_SERVER_FAULTS: Final = 500
_UNTRACED: Final = re.compile(r"(?:/api/v1)?/health(?:/|$)|/internal/")
"""Health checks and scrapes, which come all the time."""
_REQUEST_ID: Final = re.compile(rb"[\x21-\x7e]{1,128}")


class RequestLog:
    """ASGI layer that gives each request an id and its client's address, and tells `observe` when it ends.

    A caller's `X-Request-ID` is used if it is at most 128 visible ASCII characters. Otherwise it is replaced.
    """

    def __init__(
        self,
        app: App,
        observe: Observe,
        traces: Traces = UNTRACED,
        proxies: Proxies | None = None,
    ) -> None:
        self._app = app
        self._observe = observe
        self._traces = traces
        self._proxies = proxies or Proxies(())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), None)
        request_id = request_id_of(given).decode()
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        state["address"] = self._proxies.client_address(scope)
        current_request_id.set(request_id)
        current_caller.set(address_of(scope))
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            self._tell_refusal(scope["state"])
            return
        if self._traces is UNTRACED or _UNTRACED.match(scope["path"]):
            await self._answer(scope, receive, send, None)
            return
        with self._traces.request(scope["headers"]) as span:
            await self._answer(scope, receive, send, span)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, span: Span | None) -> None:
        started = time.perf_counter()
        state = scope["state"]
        status = 499  # nginx's status for a client that disconnected before the response
        size = 0
        cache: Served | None = None

        def observed(message: Message) -> Awaitable[None]:
            nonlocal status, size, cache
            if message["type"] == "http.response.start":
                status = message["status"]
                cache = cache_outcome(message["headers"])
                message["headers"] = [*message["headers"], (b"x-request-id", state["request_id"].encode())]
            elif message["type"] == "http.response.body":
                size += len(message.get("body", b""))
            return send(message)

        try:
            await self._app(scope, receive, observed)
        finally:
            done = RequestDone(
                scope["method"],
                shown_path(scope["path"]),
                scope.get("path_template", ""),
                status,
                size,
                time.perf_counter() - started,
                query=shown_query(scope["query_string"]),
                cache=cache,
                caller=caller_of(state),
                address=state["address"],
            )
            if span is not None:
                _note(span, done, state)
            self._observe(done)
            self._tell_refusal(state)
            current_request_id.set(None)

    def _tell_refusal(self, state: Mapping[str, Any]) -> None:
        if (code := state.get("problem")) in AUTH_PROBLEMS:
            self._observe(AuthFailed(code))


def _note(span: Span, done: RequestDone, state: Mapping[str, Any]) -> None:
    span.name(f"{done.method} {done.route}".rstrip())
    span.note(
        http_request_method=done.method,
        http_route=done.route or None,
        http_response_status__code=done.status,
        url_path=done.path,
        tally_cache=done.cache,
        tally_request__id=state["request_id"],
    )
    if done.status >= _SERVER_FAULTS:
        span.fail(state.get("problem", str(done.status)))


def request_id_of(given: bytes | None) -> bytes:
    """The caller's id if it is at most 128 visible ASCII characters, else a new random id."""
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given
    return next(_ids)


def _random_ids() -> Iterator[bytes]:
    """Ids of 128 random bits, made many at a time: one by one they take three times as long."""
    while True:
        digits = os.urandom(16 * _IDS_AT_ONCE).hex().encode()
        for at in range(0, len(digits), 32):
            yield digits[at : at + 32]


_IDS_AT_ONCE: Final = 256
_ids: Final = _random_ids()
