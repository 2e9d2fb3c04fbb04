"""What the service says of itself: structured logs, a request id and one canonical line per request."""

import logging
import re
import sys
import time
from collections.abc import Iterator
from contextvars import ContextVar
from random import getrandbits
from typing import Any, Final, cast

import structlog
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from service.settings import Logs

_current_id: Final[ContextVar[str | None]] = ContextVar("request_id", default=None)
_REQUEST_ID: Final = re.compile(rb"[\x21-\x7e]{1,128}")


def set_up_logs(settings: Logs) -> None:
    """Write to stderr: lines with colours on a terminal, JSON elsewhere, unless LOG_FORMAT says."""
    terminal = sys.stderr.isatty()
    console = settings.format == "console" or (settings.format is None and terminal)
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    shared: list[structlog.typing.Processor] = [
        _add_request_id,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    # Tracebacks without local variables: these hold requests, and requests hold tokens.
    plain = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    last: list[structlog.typing.Processor] = [structlog.processors.ExceptionRenderer(plain)]
    last += [_escape, structlog.dev.ConsoleRenderer(colors=terminal)] if console else [_to_json]
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(level, logging.WARNING), force=True)


def _escape(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Let no value of a line move the cursor, turn the text around or begin another line.

    Whatever comes from callers may hold such characters: paths, subjects, messages of exceptions.
    """
    exceptions = event.pop("exception", None)
    shown: dict[str, Any] = {escape(name): escape(value) for name, value in event.items()}
    if exceptions is not None:
        shown["exception"] = "\n".join(_traceback(exceptions))
    return shown


def escape(value: object) -> str:
    r"""A value as one line in which every character is visible: others as `\x1b` or `\u202e`."""
    text = value if isinstance(value, str) else repr(value)
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def _traceback(exceptions: object, margin: str = "  ") -> Iterator[str]:
    """The lines of what `ExceptionDictTransformer` makes: the error, where it was, and then its causes."""
    if not isinstance(exceptions, list):
        yield margin + escape(exceptions)
        return
    for each in cast("list[dict[str, Any]]", exceptions):
        yield f"{margin}{escape(each['exc_type'])}: {escape(each['exc_value'])}"
        yield from (f"{margin}  {escape(note)}" for note in each["exc_notes"])
        for frame in each["frames"]:
            yield f"{margin}  {escape(frame['filename'])}:{frame['lineno']} in {escape(frame['name'])}"
        for group in each["exceptions"]:
            yield from _traceback(group, margin + "  | ")


def _to_json(logger: Any, method: str, event: structlog.typing.EventDict) -> str:
    """One line of ASCII; JSON itself leaves DEL as it is."""
    return str(_JSON(logger, method, event)).replace("\x7f", "\\u007f")


_JSON: Final = structlog.processors.JSONRenderer()


def _add_request_id(
    _logger: Any, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    if (request_id := _current_id.get()) is not None:
        event["request_id"] = request_id
    return event


class RequestLog:
    """The outermost ASGI layer: gives each request its id and writes one line when it is answered.

    A caller's `X-Request-ID` is kept when it is up to 128 visible ASCII characters, else replaced.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._log: Any = structlog.get_logger("request")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = cast("str", scope["type"])
        if kind == "lifespan":
            await self._app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), None)
        request_id = request_id_of(given).decode()
        cast("Any", scope).setdefault("state", {})["request_id"] = request_id
        _current_id.set(request_id)
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 499  # nginx's word for a caller who left before the answer
        size = 0

        async def observed(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            elif message["type"] == "http.response.body":
                size += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, observed)
        finally:
            write = self._log.debug if "/health" in scope["path"] else self._log.info
            write(
                "request",
                method=scope["method"],
                path=scope["path"],
                status=status,
                bytes=size,
                ms=round((time.perf_counter() - started) * 1000, 2),
            )
            _current_id.set(None)


def request_id_of(given: bytes | None) -> bytes:
    """What the caller gave, if it is up to 128 visible ASCII characters, else one of our own."""
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given
    return b"%032x" % getrandbits(128)
