"""Send spans to a collector by OTLP over HTTP. Needs the extra `otel`.

A thread of the SDK sends them in batches. What a collector does not take in time is dropped: nobody waits.
The SDK itself reads OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, OTEL_TRACES_SAMPLER and the like.
"""

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from threading import Thread
from typing import Any, Final
from uuid import UUID

import structlog
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from service import __version__
from service.observe.trace import Kind, Span, Trace, Value, attribute

STOP_WAIT_S: Final = 2.0

_CONTEXT_HEADERS: Final = (b"traceparent", b"tracestate")
_KINDS: Final = {"internal": trace.SpanKind.INTERNAL, "client": trace.SpanKind.CLIENT}
_PROPAGATOR: Final = TraceContextTextMapPropagator()

_from_caller: Final[ContextVar[bool]] = ContextVar("from_caller", default=False)
"""Whether the open span belongs to the trace of a caller, which follows its request to the database."""


class OpenTelemetry:
    """Opens spans and sends them. Before `start` they are not recorded."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._tracer: trace.Tracer = trace.NoOpTracer()
        self._provider: TracerProvider | None = None

    def start(self) -> None:
        # The SDK logs each failed try and each dropped span. We log the loss and the return of the collector.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL + 1)
        self._provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(_Exporter(self._endpoint)))
        self._tracer = self._provider.get_tracer("tally", __version__)

    async def stop(self) -> None:
        provider, self._provider = self._provider, None
        if provider is None:
            return
        self._tracer = trace.NoOpTracer()
        stopped, loop = asyncio.Event(), asyncio.get_running_loop()

        def shut_down() -> None:
            provider.shutdown()
            with suppress(RuntimeError):  # the loop has ended, because the collector took too long
                loop.call_soon_threadsafe(stopped.set)

        Thread(target=shut_down, daemon=True).start()
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_WAIT_S):
                await stopped.wait()

    @contextmanager
    def request(self, headers: Iterable[tuple[bytes, bytes]]) -> Generator[Span]:
        given = [(name, value) for name, value in headers if name in _CONTEXT_HEADERS]
        often = Counter(name for name, _ in given)
        carrier = {name.decode(): value.decode("latin-1") for name, value in given if often[name] == 1}
        parent = _PROPAGATOR.extract(carrier, Context())
        follows = _from_caller.set(trace.get_current_span(parent).get_span_context().trace_flags.sampled)
        try:
            with self._open("request", parent, trace.SpanKind.SERVER) as span:
                yield span
        finally:
            _from_caller.reset(follows)

    @contextmanager
    def span(self, name: str, kind: Kind = "internal") -> Generator[Span]:
        with self._open(name, None, _KINDS[kind]) as span:
            yield span

    @contextmanager
    def apart(self, name: str) -> Generator[Span]:
        cause = trace.get_current_span().get_span_context()
        links = [trace.Link(cause)] if cause.is_valid else []
        follows = _from_caller.set(False)
        try:
            with self._open(name, Context(), trace.SpanKind.INTERNAL, links) as span:
                yield span
        finally:
            _from_caller.reset(follows)

    def comment(self) -> str:
        found = self.current() if _from_caller.get() else None
        # As sqlcommenter writes it; numbers alone, whatever the caller's header held.
        return "" if found is None else f"\n/*traceparent='00-{found[0]:032x}-{found[1]:016x}-01'*/"

    def current(self) -> Trace | None:
        context = trace.get_current_span().get_span_context()
        return (context.trace_id, context.span_id) if context.trace_flags.sampled else None

    @contextmanager
    def _open(
        self, name: str, parent: Context | None, kind: trace.SpanKind, links: Sequence[trace.Link] = ()
    ) -> Generator[Span]:
        with self._tracer.start_as_current_span(
            name, parent, kind, links=links, record_exception=False, set_status_on_exception=False
        ) as span:
            yield _Span(span)


class _Span:
    def __init__(self, span: trace.Span) -> None:
        self._span = span

    def name(self, name: str) -> None:
        self._span.update_name(name)

    def note(self, **attributes: Value | None) -> None:
        given: dict[str, str | int | float | bool] = {
            attribute(name): str(value) if isinstance(value, UUID) else value
            for name, value in attributes.items()
            if value is not None
        }
        self._span.set_attributes(given)

    def fail(self, problem: str) -> None:
        self._span.set_attribute("error.type", problem)
        self._span.set_status(trace.StatusCode.ERROR)


class _Exporter(SpanExporter):
    """Sends batches, and logs the loss and the return of the collector once each."""

    def __init__(self, endpoint: str) -> None:
        self._exporter = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces")
        self._endpoint = endpoint
        self._lost = False
        self._log: Any = structlog.get_logger("traces")

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        lost = result is not SpanExportResult.SUCCESS
        if lost and not self._lost:
            self._log.warning("collector lost: spans are dropped", endpoint=self._endpoint)
        elif self._lost and not lost:
            self._log.info("collector is back", endpoint=self._endpoint)
        self._lost = lost
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


def _resource() -> Resource:
    """What sends the spans. OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES may name it otherwise."""
    own: dict[str, str | int] = {
        "service.name": "tally",
        "service.version": __version__,
        "process.pid": os.getpid(),
    }
    given = OTELResourceDetector().detect().attributes
    return Resource.create({**own, **given})
