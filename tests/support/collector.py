"""A collector of OpenTelemetry traces, which keeps what it receives."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class Collector(TraceServiceServicer):
    """A collector's end of OTLP: the spans that arrive."""

    url: str

    def __init__(self) -> None:
        self.spans: queue.Queue[Span] = queue.Queue()

    def Export(self, request: ExportTraceServiceRequest, context: Any) -> ExportTraceServiceResponse:
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self.spans.put(span)
        return ExportTraceServiceResponse()

    def span_of(self, request_id: str) -> tuple[Span, dict[str, Any]]:
        """The span of a request to the engine, and its attributes; start-up and other requests have theirs, too."""
        while True:
            span = self.spans.get(timeout=60)
            attributes = {entry.key: getattr(entry.value, entry.value.WhichOneof("value")) for entry in span.attributes}
            if attributes.get("gen_ai.request.id") == request_id:
                return span, attributes


@contextmanager
def collecting() -> Iterator[Collector]:
    collector = Collector()
    receiver = grpc.server(ThreadPoolExecutor(1))
    add_TraceServiceServicer_to_server(collector, receiver)
    collector.url = f"http://127.0.0.1:{receiver.add_insecure_port('127.0.0.1:0')}"
    receiver.start()
    try:
        yield collector
    finally:
        receiver.stop(None)
