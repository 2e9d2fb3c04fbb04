"""A stand-in for an OpenTelemetry collector: it takes OTLP over HTTP, and reads it as the protocol has it."""

import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from msgspec import Struct
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


class Received(Struct, frozen=True):
    """A span as a collector sees it. Ids are hexadecimal."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: int
    failed: bool
    attributes: dict[str, Any]
    links: list[str]
    service: dict[str, Any]


class Collector:
    """`address` is what OTEL_EXPORTER_OTLP_ENDPOINT is set to. It answers with `status`, and may hang."""

    def __init__(self) -> None:
        self.spans: list[Received] = []
        self.status = 200
        self.tried = 0
        self.release = threading.Event()
        self.release.set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                collector.tried += 1
                collector.release.wait(60)
                if collector.status == 200 and self.path == "/v1/traces":
                    assert self.headers["content-type"] == "application/x-protobuf"
                    collector.take(ExportTraceServiceRequest.FromString(body))
                self.send_response(collector.status)
                self.end_headers()
                self.wfile.write(ExportTraceServiceResponse().SerializeToString())

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}"

    def take(self, request: ExportTraceServiceRequest) -> None:
        for resource in request.resource_spans:
            service = _values(resource.resource.attributes)
            for scope in resource.scope_spans:
                self.spans += [
                    Received(
                        name=span.name,
                        trace_id=span.trace_id.hex(),
                        span_id=span.span_id.hex(),
                        parent_id=span.parent_span_id.hex(),
                        kind=span.kind,
                        failed=span.status.code == 2,
                        attributes=_values(span.attributes),
                        links=[link.span_id.hex() for link in span.links],
                        service=service,
                    )
                    for span in scope.spans
                ]

    def named(self, name: str) -> list[Received]:
        return [span for span in self.spans if span.name == name]


def _values(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}


@contextmanager
def collecting() -> Generator[Collector]:
    collector = Collector()
    thread = threading.Thread(target=collector.server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield collector
    finally:
        collector.release.set()
        collector.server.shutdown()
        thread.join()
        collector.server.server_close()
