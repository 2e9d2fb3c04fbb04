"""Structured logs. Each line carries the id of the request that caused it."""

import asyncio
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import cached_property
from math import inf
from multiprocessing.util import Finalize
from threading import RLock
from typing import Any, Final, TextIO, cast

import msgspec
import structlog

from service.observe.events import (
    AlertChanged,
    AuthFailed,
    BreakerClosed,
    BreakerOpened,
    CallersShed,
    ChangeHeard,
    ConnectionLost,
    ConnectionRestored,
    Event,
    HitsServed,
    IdleConnectionsClosed,
    ImportDone,
    KeysNotFetched,
    MessageTried,
    MetricLingered,
    QueryRun,
    RequestDone,
    ResultRefreshed,
    ResultServed,
    StatementLingers,
    StatementSuspended,
    WorkerLost,
    WorkerStarted,
)
from service.settings import Logs

HITS_EVERY_S: Final = 10.0
REFUSALS_A_SECOND: Final = 20
"""Lines for requests answered with 503. A refusal has to be cheap, and a line costs more than the rest."""

GATHER_S: Final = 0.02
GATHERED_CHARACTERS: Final = 4096
"""So many are written at once even to a pipe, so lines of several workers do not mix."""

current_request_id: Final[ContextVar[str | None]] = ContextVar("request_id", default=None)


def set_up_logs(settings: Logs) -> None:
    """Log to stderr. LOG_FORMAT sets the format; the default is coloured lines on a terminal, else JSON."""
    on_terminal = sys.stderr.isatty()
    console = settings.format == "console" or (settings.format is None and on_terminal)
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    shared: list[structlog.typing.Processor] = [_add_context]
    # Tracebacks omit local variables, because requests among them hold tokens.
    transformer = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    renderers: list[structlog.typing.Processor] = [structlog.processors.ExceptionRenderer(transformer)]
    renderers += (
        [_escape, structlog.dev.ConsoleRenderer(colors=on_terminal, sort_keys=False)]
        if console
        else [_to_json]
    )
    structlog.configure(
        processors=[*shared, *renderers],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", standard_error)),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(cast("TextIO", standard_error))
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(level, logging.WARNING), force=True)
    # `atexit` would do nothing in a worker, a process that multiprocessing has forked.
    Finalize(None, standard_error.release, exitpriority=0)


class _StandardError:
    """Standard error as it is when a line is written, for a logger keeps the file of its first line.

    A line is written at once, after those that `gather` holds back.
    """

    def __init__(self) -> None:
        self._lock = RLock()  # a finalizer may log in the middle of a line
        self._gathered: list[str] = []
        self._characters = 0

    def write(self, text: str) -> int:
        with self._lock:
            self.release()
            return self.put(text)

    def put(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()

    def gather(self, text: str) -> None:
        """Write a line together with others, within `GATHER_S`: each write costs more than the line."""
        if self._characters + len(text) > GATHERED_CHARACTERS:
            self.release()
        with self._lock:
            self._gathered.append(text)
            self._characters += len(text)
            if len(self._gathered) > 1:
                return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.release()
        else:
            loop.call_later(GATHER_S, self.release)

    def release(self) -> None:
        """Write the lines that are held back."""
        if self._gathered:
            with self._lock:
                gathered, self._gathered, self._characters = self._gathered, [], 0
                self.put("".join(gathered))


class _RequestLogger(structlog.BoundLoggerBase):
    """Writes the lines of requests, which `gather` holds back.

    Each miss has such a line. structlog's own loggers copy its fields twice before the processors get them.
    """

    def write(self, level: str, fields: dict[str, Any]) -> None:
        line: Any = fields
        try:
            for process in self._processors:
                line = process(self._logger, level, line)
        except structlog.DropEvent:  # as tests do that capture lines
            return
        standard_error.gather(f"{line}\n")


standard_error: Final = _StandardError()


def _escape(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Escape control characters, so that no value can move the cursor, reverse the text or start a line.

    Callers can put such characters into paths, token subjects and messages of exceptions.
    """
    exceptions = event.pop("exception", None)
    escaped: dict[str, Any] = {escape(name): escape(value) for name, value in event.items()}
    if exceptions is not None:
        escaped["exception"] = "\n".join(_traceback(exceptions))
    return escaped


def escape(value: object) -> str:
    r"""Render a value as one line. Invisible characters are escaped, such as `\x1b` or `\u202e`."""
    text = value if isinstance(value, str) else repr(value)
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def _traceback(exceptions: object, margin: str = "  ") -> Iterator[str]:
    """Render the output of `ExceptionDictTransformer` as lines: each error, then its frames."""
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


def _to_json(_logger: Any, _method: str, event: structlog.typing.EventDict) -> str:
    """Render a line of ASCII that begins with time, level and event."""
    ordered = {"timestamp": event.pop("timestamp"), "level": event.pop("level"), "event": event.pop("event")}
    ordered.update(event)
    try:
        line = _encoder.encode(ordered).decode()
    except (ValueError, TypeError):  # a lone surrogate, an odd key
        line = ""
    if line.isascii() and line.isprintable() and line:
        return line
    return json.dumps(ordered, default=repr, skipkeys=True).replace("\x7f", "\\u007f")


_encoder: Final = msgspec.json.Encoder(enc_hook=repr)


def _add_context(_logger: Any, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Add time, level and the request's id. One step, because each line passes it."""
    event["timestamp"] = datetime.now(UTC).isoformat()[:-6] + "Z"
    event["level"] = _LEVELS.get(method, method)
    if (request_id := current_request_id.get()) is not None:
        event["request_id"] = request_id
    return event


_LEVELS: Final = {"warn": "warning", "exception": "error"}


_LINES: Final[dict[type[Event], tuple[int, str]]] = {
    ResultServed: (logging.DEBUG, "result"),
    ResultRefreshed: (logging.DEBUG, "refresh"),
    AuthFailed: (logging.DEBUG, "auth failed"),
    QueryRun: (logging.DEBUG, "query"),
    ChangeHeard: (logging.DEBUG, "change"),
    ImportDone: (logging.INFO, "import"),
    WorkerLost: (logging.ERROR, "a worker died and is replaced"),
    WorkerStarted: (logging.WARNING, "a worker was started"),
    BreakerOpened: (logging.WARNING, "server cannot be reached"),
    BreakerClosed: (logging.INFO, "server can be reached again"),
    CallersShed: (logging.WARNING, "callers shed"),
    StatementLingers: (logging.WARNING, "statement heeds no cancellation"),
    MetricLingered: (logging.WARNING, "statement lingers"),
    StatementSuspended: (logging.ERROR, "metric suspended"),
    KeysNotFetched: (logging.WARNING, "signing keys not fetched"),
    IdleConnectionsClosed: (logging.WARNING, "idle connections closed"),
    AlertChanged: (logging.INFO, "alert"),
    MessageTried: (logging.DEBUG, "alert message"),
}

_NUMBERS: Final = {"debug": logging.DEBUG, "info": logging.INFO}
_REFUSED: Final = 503
_CONNECTIONS: Final = {"poll": "database", "announcements": "listening"}
"""The names of the health checks."""


class EventLog:
    """Writes events as log lines: one per request, those of `_LINES`, and the number of hits now and then."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._hits = 0
        self._hits_due = -inf
        self._refusals = 0
        self._refusals_due = -inf
        self._write: Final[Mapping[type, Callable[[Any], None]]] = {
            RequestDone: self._write_request,
            HitsServed: self._count_hits,
            ConnectionLost: self._write_connection,
            ConnectionRestored: self._write_connection,
        }

    @cached_property
    def _log(self) -> Any:
        """The bound logger: the lazy one looks up each method, which takes longer than most events."""
        return structlog.get_logger().bind()

    @cached_property
    def _requests(self) -> Any:
        return structlog.wrap_logger(None, wrapper_class=_RequestLogger).bind()

    def __call__(self, event: Event) -> None:
        write = self._write.get(type(event))
        if write is not None:
            write(event)
            return
        level, line = _LINES[type(event)]
        if self._log.is_enabled_for(level):
            self._log.log(level, line, **msgspec.to_builtins(event))

    def _write_request(self, event: RequestDone) -> None:
        if event.status == _REFUSED or self._refusals > REFUSALS_A_SECOND:
            self._count_refusals(event.status)
            if event.status == _REFUSED and self._refusals > REFUSALS_A_SECOND:
                return
        level = "debug" if _is_asked_often(event.route) else "info"
        if not self._log.is_enabled_for(_NUMBERS[level]):
            return
        fields: dict[str, Any] = {"event": "request", "method": event.method, "path": event.path}
        if event.query:
            fields["query"] = event.query
        fields |= {"status": event.status, "ms": round(event.duration * 1000, 2), "bytes": event.bytes}
        if event.cache is not None:
            fields["cache"] = event.cache
        if event.caller is not None:
            fields["caller"] = event.caller
        if event.address is not None:
            fields["address"] = event.address
        self._requests.write(level, fields)

    def _count_refusals(self, status: int) -> None:
        """Count the refusals of a second. Those without a line of their own are told as a number."""
        if self._clock() >= self._refusals_due:
            if self._refusals > REFUSALS_A_SECOND:
                self._log.warning("more requests refused", number=self._refusals - REFUSALS_A_SECOND)
            self._refusals = 0
            self._refusals_due = self._clock() + 1.0
        self._refusals += status == _REFUSED

    def _count_hits(self, event: HitsServed) -> None:
        """Write the number of hits at most every `HITS_EVERY_S`."""
        self._hits += event.number
        if self._clock() >= self._hits_due:
            self._hits_due = self._clock() + HITS_EVERY_S
            self._log.info("hits", number=self._hits)
            self._hits = 0

    def _write_connection(self, event: ConnectionLost | ConnectionRestored) -> None:
        name = _CONNECTIONS.get(event.source, event.source)
        if isinstance(event, ConnectionLost):
            self._log.warning(f"{name} lost", **({"why": event.why} if event.why else {}))
        else:
            self._log.info(f"{name} is back")


def _is_asked_often(route: str) -> bool:
    """Whether machines ask for it all the time."""
    return "/health" in route or route == "/internal/prometheus"
