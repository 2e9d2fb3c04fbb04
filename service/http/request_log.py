"""One id and one event per request."""

import re
import time
from collections.abc import Mapping
from random import getrandbits
from typing import Any, Final, cast

from litestar.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import AUTH_PROBLEMS
from service.http.log_fields import cache_outcome, caller_of, shown_path, shown_query
from service.observe.events import AuthFailed, Observe, RequestDone, Served
from service.observe.log import current_request_id

_REQUEST_ID: Final = re.compile(rb"[\x21-\x7e]{1,128}")


class RequestLog:
    """ASGI layer that gives each request an id, and tells `observe` when the request ends.

    A caller's `X-Request-ID` is used if it is at most 128 visible ASCII characters. Otherwise it is replaced.
    """

    def __init__(self, app: ASGIApp, observe: Observe) -> None:
        self._app = app
        self._observe = observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = cast("str", scope["type"])
        if kind == "lifespan":
            await self._app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), None)
        request_id = request_id_of(given).decode()
        cast("Any", scope).setdefault("state", {})["request_id"] = request_id
        current_request_id.set(request_id)
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            self._tell_refusal(scope["state"])
            return
        started = time.perf_counter()
        status = 499  # nginx's status for a client that disconnected before the response
        size = 0
        cache: Served | None = None

        async def observed(message: Message) -> None:
            nonlocal status, size, cache
            if message["type"] == "http.response.start":
                status = message["status"]
                cache = cache_outcome(message["headers"])
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            elif message["type"] == "http.response.body":
                size += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, observed)
        finally:
            self._observe(
                RequestDone(
                    scope["method"],
                    shown_path(scope["path"]),
                    cast("Any", scope).get("path_template", ""),
                    status,
                    size,
                    time.perf_counter() - started,
                    query=shown_query(scope["query_string"]),
                    cache=cache,
                    caller=caller_of(scope["state"]),
                    address=client[0] if (client := scope.get("client")) else None,
                )
            )
            self._tell_refusal(scope["state"])
            current_request_id.set(None)

    def _tell_refusal(self, state: Mapping[str, Any]) -> None:
        if (code := state.get("problem")) in AUTH_PROBLEMS:
            self._observe(AuthFailed(code))


def request_id_of(given: bytes | None) -> bytes:
    """The caller's id if it is at most 128 visible ASCII characters, else a new random id."""
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given
    return getrandbits(128).to_bytes(16).hex().encode()  # half the time of a format
