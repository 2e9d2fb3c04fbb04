"""Render every error as a problem document (RFC 9457)."""

from collections.abc import Awaitable, Mapping
from typing import Any, Final, cast

import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException

from service import errors
from service.errors import FieldError, InvalidInput, Problem
from service.http.asgi import App, Message, Receive, Scope, Send

_BY_STATUS: Final[Mapping[int, type[Problem]]] = {
    400: errors.BadRequest,
    401: errors.Unauthorized,
    403: errors.Forbidden,
    404: errors.NotFound,
    405: errors.MethodNotAllowed,
    413: errors.TooLarge,
    415: errors.UnsupportedMediaType,
    422: errors.InvalidInput,
    429: errors.TooManyRequests,
}


_log: Any = structlog.get_logger("error")


def answer_problem(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Render an exception. An unknown one is logged with its traceback and tells the caller nothing."""
    problem = _as_problem(error)
    if problem.status == 500:  # noqa: PLR2004
        _log.error("unexpected error", exc_info=error)
    return Response(
        _document(problem, cast("Scope", request.scope)),
        status_code=problem.status,
        media_type="application/problem+json",
        headers=problem.headers,
    )


async def send_problem(scope: Scope, send: Send, problem: Problem) -> None:
    """Send a problem from outside the framework. A WebSocket handshake gets an HTTP response too."""
    prefix = "http" if scope["type"] == "http" else "websocket.http"
    start = {
        "type": f"{prefix}.response.start",
        "status": problem.status,
        "headers": [
            (b"content-type", b"application/problem+json"),
            *((name.lower().encode(), value.encode()) for name, value in problem.headers.items()),
        ],
    }
    body = {"type": f"{prefix}.response.body", "body": _document(problem, scope), "more_body": False}
    await send(start)
    await send(body)


def note_problem(problem: Problem, scope: Any) -> None:
    """Leave the code of the answer's problem for the request log."""
    scope["state"]["problem"] = problem.code


def _document(problem: Problem, scope: Scope) -> bytes:
    note_problem(problem, scope)
    request_id = scope["state"].get("request_id", "")
    return msgspec.json.encode(problem.document(instance=scope["path"], request_id=request_id))


class ErrorMiddleware:
    """ASGI layer inside the request log that logs unexpected errors of all inner layers and sends a problem.

    If the response has begun, the error goes on to the server, which closes the connection.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        def observed(message: Message) -> Awaitable[None]:
            nonlocal begun
            begun = True
            return send(message)

        try:
            await self._app(scope, receive, observed)
        except Exception as error:
            _log.error("unexpected error", exc_info=error)
            if begun or scope["type"] == "lifespan":
                raise
            await send_problem(scope, send, Problem())


def _as_problem(error: Exception) -> Problem:
    if isinstance(error, Problem):
        return error
    if isinstance(error, ValidationException):
        return InvalidInput(
            errors=tuple(_field_error(item) for item in error.extra or ({"message": error.detail},))
        )
    if isinstance(error, HTTPException):
        headers = dict(error.headers or {})
        return _BY_STATUS.get(error.status_code, Problem)(headers=headers)
    return Problem()


def _field_error(item: Any) -> FieldError:
    return FieldError(str(item.get("key", "body")), str(item.get("message", "invalid")))
