"""Traces: spans of the service's own work, which other modules open. Without a collector they cost nothing.

Spans are made of requests that are no cache hits, of executions, refreshes, imports and calls to other
services. `observe/otel.py` sends them, and is only imported when OTEL_EXPORTER_OTLP_ENDPOINT is set.
"""

from collections.abc import Iterable
from contextlib import AbstractContextManager
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Final, Literal, Protocol
from uuid import UUID

from service.errors import Stop
from service.settings import Traces as TraceSettings

Kind = Literal["internal", "client"]
Value = str | int | float | bool | UUID
Trace = tuple[int, int]
"""Ids of a trace and a span."""

MISSING: Final = (
    "OTEL_EXPORTER_OTLP_ENDPOINT is set, but OpenTelemetry is not installed: install tally-metrics[otel], or "
    "unset it"
)
_PARTS: Final = ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http.trace_exporter")


class Span(Protocol):
    """A piece of work. It begins and ends with its context manager."""

    def name(self, name: str) -> None: ...

    def note(self, **attributes: Value | None) -> None:
        """Add attributes, except those that are None. In names `_` stands for `.`, and `__` for `_`."""
        ...

    def fail(self, problem: str) -> None:
        """The work failed; `problem` is the code of its error."""
        ...


class Traces(Protocol):
    """Opens spans. A span is the child of the one that is open in its task, or was when the task began."""

    def request(self, headers: Iterable[tuple[bytes, bytes]]) -> AbstractContextManager[Span]:
        """A span for a request, in the trace that its `traceparent` names, if it has a valid one."""
        ...

    def span(self, name: str, kind: Kind = "internal") -> AbstractContextManager[Span]: ...

    def apart(self, name: str) -> AbstractContextManager[Span]:
        """A span that begins a trace of its own, with a link to the span that caused it."""
        ...

    def comment(self) -> str:
        """An SQL comment that names the open span, if it is part of a caller's own trace; otherwise empty."""
        ...

    def current(self) -> Trace | None:
        """The open span, if it is recorded."""
        ...

    def start(self) -> None:
        """Begin to send, in the process that serves."""
        ...

    async def stop(self) -> None:
        """Send what is left, but never wait for long."""
        ...


class _Nothing(AbstractContextManager["Span"]):
    """A span that nobody records."""

    def __enter__(self) -> Span:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def name(self, name: str) -> None:
        pass

    def note(self, **attributes: Value | None) -> None:
        pass

    def fail(self, problem: str) -> None:
        pass


NOTHING: Final[AbstractContextManager[Span]] = _Nothing()


class Untraced:
    """Records nothing."""

    def request(self, headers: Iterable[tuple[bytes, bytes]]) -> AbstractContextManager[Span]:  # noqa: ARG002
        return NOTHING

    def span(self, name: str, kind: Kind = "internal") -> AbstractContextManager[Span]:  # noqa: ARG002
        return NOTHING

    def apart(self, name: str) -> AbstractContextManager[Span]:  # noqa: ARG002
        return NOTHING

    def comment(self) -> str:
        return ""

    def current(self) -> Trace | None:
        return None

    def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass


UNTRACED: Final = Untraced()


def traces(settings: TraceSettings) -> Traces:
    """What opens spans. Raises `Stop` if a collector is set and OpenTelemetry is not installed."""
    if settings.endpoint is None:
        return UNTRACED
    check_installed(settings)
    found: Traces = import_module("service.observe.otel").OpenTelemetry(settings.endpoint)
    return found


def check_installed(settings: TraceSettings) -> None:
    """Raise `Stop` if a collector is set and OpenTelemetry is not installed."""
    if settings.endpoint is not None and not all(map(_found, _PARTS)):
        raise Stop(MISSING, exit_code=2)


@cache
def attribute(name: str) -> str:
    """The name of an attribute, from that of an argument of `Span.note`."""
    return name.replace("__", "\0").replace("_", ".").replace("\0", "_")


def _found(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ImportError:  # a package above it is missing
        return False
