"""`POST /mcp`: read the request, answer it, or open the stream of a subscription.

It answers before the framework, because errors of the protocol have a form of their own. The route in
`connect/api.py` only documents it.
"""

from collections.abc import Awaitable, Callable
from typing import Final

from msgspec import Raw

from service.auth.guards import Gate, require
from service.auth.live import LiveRights
from service.auth.tokens import Principal
from service.connect.mcp.messages import (
    INVALID_PARAMS,
    Answer,
    Call,
    RpcError,
    failure,
    id_of,
    read_call,
    read_fields,
    success,
)
from service.connect.mcp.server import LISTEN, Server
from service.errors import (
    BadRequest,
    InvalidInput,
    NotAcceptable,
    NotFound,
    Problem,
    TooLarge,
    UnsupportedMediaType,
)
from service.http.asgi import (
    EVENT_STREAM,
    App,
    Headers,
    Receive,
    Refuse,
    Scope,
    Send,
    field_of,
    header_of,
    query_pairs,
    with_headers,
)
from service.http.fields import media_type_of, media_weight
from service.http.representation import RepresentationMiddleware
from service.http.requests import unknown_parameters
from service.metrics.notices import OpenedStream, OpenNotices
from service.metrics.result_endpoint import READ

PATH: Final = "/mcp"
BYTES_LIMIT: Final = 1 << 20

_ACCEPTED: Final = 202
_JSON: Final = "application/json"
_STREAM: Final = "text/event-stream"


class Mcp:
    """What the endpoint needs of the open services."""

    def __init__(self, server: Server, rights: LiveRights, open_notices: OpenNotices) -> None:
        self.server = server
        self.rights = rights
        self.open_notices = open_notices


class McpEndpoint:
    """ASGI layer that answers `POST /mcp`. Other requests go to `app`."""

    def __init__(
        self,
        app: App,
        gate: Gate,
        mcp: Callable[[], Mcp],
        refuse: Refuse,
    ) -> None:
        self._app = app
        self._gate = gate
        self._mcp = mcp
        self._refuse = refuse

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "http" or scope["method"] != "POST" or scope["path"].strip("/") != "mcp":
            return self._app(scope, receive, send)
        return self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["path_template"] = PATH
        extra = [*self._gate.browser_headers(field_of(scope, b"origin"))]
        send = with_headers(send, extra)
        try:
            self._gate.refuse_foreign(scope)
            principal = scope["state"]["principal"] = await self._gate.admit(scope)
            extra += self._gate.take(principal, PATH)
            answer = await self._answered(scope, receive, send, require(principal, READ))
        except Problem as problem:
            await self._refuse(scope, send, problem)
            return
        if isinstance(answer, Answer):
            await _send(answer, scope, receive, send)
        else:
            scope["stream"] = answer

    async def _answered(
        self, scope: Scope, receive: Receive, send: Send, caller: Principal
    ) -> Answer | OpenedStream:
        """Raises the problems of HTTP: rights, media types, sizes."""
        mcp = self._mcp()
        accept = header_of(scope, b"accept")
        _check(scope, accept)
        request_id: Raw | None = None
        modern = True  # also until that is known
        try:
            fields = read_fields(await _body(scope, receive))
            request_id = id_of(fields)
            call = read_call(fields, request_id, scope["headers"])
            modern = call.modern
            if call.id is None:
                return Answer(_ACCEPTED)
            if call.modern and call.method == LISTEN:
                return await _listen(mcp, call, caller, scope, send)
            return success(call.id, await mcp.server.answer(call, caller))
        except RpcError as error:
            return failure(request_id, error, modern=modern)


async def _listen(mcp: Mcp, call: Call, caller: Principal, scope: Scope, send: Send) -> OpenedStream:
    if not media_weight(header_of(scope, b"accept"), _STREAM):
        raise NotAcceptable(f"The answer to {LISTEN} is `{_STREAM}`: accept it.")
    listening = mcp.server.listening(call, caller)
    credential = await mcp.rights.admit(scope)

    async def begin() -> None:
        await send({"type": "http.response.start", "status": 200, "headers": list(EVENT_STREAM)})

    try:
        return await mcp.open_notices(credential, listening.followed, listening.events, begin)
    except (InvalidInput, NotFound) as wrong:  # a parameter in an address
        raise RpcError(INVALID_PARAMS, wrong.sentence, wrong.document()) from None


def _check(scope: Scope, accept: str) -> None:
    """Raise the problem of a request whose head is wrong."""
    if wrong := unknown_parameters(name for name, _ in query_pairs(scope["query_string"])):
        raise InvalidInput(errors=wrong)
    media_type = media_type_of(header_of(scope, b"content-type"))
    if media_type not in {"", _JSON}:
        raise UnsupportedMediaType(f"Send {_JSON}, not {media_type[:60]}.")
    if not (media_weight(accept, _JSON) or media_weight(accept, _STREAM)):
        raise NotAcceptable(f"Answers are `{_JSON}`, and `{_STREAM}` for subscriptions: accept both.")


async def _body(scope: Scope, receive: Receive) -> bytes:
    length = header_of(scope, b"content-length")
    parts: list[bytes] = []
    left = BYTES_LIMIT - (
        int(length) if length.isascii() and length.isdigit() and len(length) < _DIGITS else 0
    )
    left = BYTES_LIMIT if left >= 0 else left
    while left >= 0:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise BadRequest("The connection ended within the body.")
        parts.append(message.get("body", b""))
        left -= len(parts[-1])
        if left >= 0 and not message.get("more_body", False):
            return b"".join(parts)
    raise TooLarge(f"A message takes up to {BYTES_LIMIT} bytes.")


_DIGITS: Final = 20


async def _send(answer: Answer, scope: Scope, receive: Receive, send: Send) -> None:
    """Send a body, compressed as for all other responses."""

    async def respond(_scope: Scope, _receive: Receive, send: Send) -> None:
        headers: Headers = [(b"content-type", _JSON.encode())] if answer.body else []
        headers.append((b"cache-control", b"no-store"))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body, "more_body": False})

    await RepresentationMiddleware(respond)(scope, receive, send)
