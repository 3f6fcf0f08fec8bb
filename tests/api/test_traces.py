"""vLLM's OpenTelemetry traces, received as a collector receives them."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.demo_server import DEMO
from tests.servers import Server, started

pytestmark = pytest.mark.server

BODY = {"model": "demo", "messages": [{"role": "user", "content": "Who are you?"}], "max_tokens": 4}


class Collector(TraceServiceServicer):
    """A collector's end of OTLP: the spans that arrive."""

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


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Collector]]:
    collector = Collector()
    receiver = grpc.server(ThreadPoolExecutor(1))
    add_TraceServiceServicer_to_server(collector, receiver)
    port = receiver.add_insecure_port("127.0.0.1:0")
    receiver.start()
    flags = ["--served-model-name", "demo", "--otlp-traces-endpoint", f"http://127.0.0.1:{port}"]
    log = tmp_path_factory.mktemp("traces") / "log"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")  # milliseconds; spans wait 5 s for company by default
        with started(DEMO, log, flags, "demo") as server:
            yield server, collector
    receiver.stop(None)


def ask(server: Server, headers: dict[str, str]) -> Any:
    response = httpx.post(f"{server.url}/v1/chat/completions", json=BODY, headers=headers, timeout=60)
    assert response.status_code == 200, response.text
    return response.json()


def test_a_request_has_a_span(traced: tuple[Server, Collector]) -> None:
    server, collector = traced
    answer = ask(server, {"X-Request-Id": "traced-1"})
    span, attributes = collector.span_of("chatcmpl-traced-1")
    assert answer["id"] == "chatcmpl-traced-1"
    assert span.name == "llm_request"
    assert attributes["gen_ai.usage.prompt_tokens"] == answer["usage"]["prompt_tokens"]
    assert attributes["gen_ai.usage.completion_tokens"] == answer["usage"]["completion_tokens"]
    assert 0 < attributes["gen_ai.latency.time_to_first_token"] <= attributes["gen_ai.latency.e2e"]
    text = str(span)
    assert "Who are you" not in text and answer["choices"][0]["message"]["content"] not in text


def test_the_clients_span_is_its_parent(traced: tuple[Server, Collector]) -> None:
    server, collector = traced
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    ask(server, {"X-Request-Id": "traced-2", "traceparent": f"00-{trace}-{parent}-01"})
    span, _ = collector.span_of("chatcmpl-traced-2")
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (trace, parent)
