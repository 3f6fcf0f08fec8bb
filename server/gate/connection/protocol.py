"""An HTTP connection with limits on memory and time, whatever the client does."""

from __future__ import annotations

import asyncio
import json
import socket
from http import HTTPStatus

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from server import metrics
from server.gate.connection.limit import ConnectionLimit
from server.gate.methods import OPEN

MAX_HEADER_BYTES = 64 << 10
"""Limit on the request line and headers together, and on chunk extensions and trailers.

vLLM's flags for headers apply to uvicorn's other, slower parser only.
"""

HEADER_SECONDS = 15.0
"""Time for a request's line and headers to arrive."""

SEND_BUFFER_BYTES = 256 << 10
"""The kernel's buffer for one connection. A reader may lag behind by this and uvicorn's own 64 KiB."""

STALL_SECONDS = 30.0
"""A reader that has taken nothing for this time is given up, and its request with it."""

MAX_PIPELINED = 16
"""Requests that may wait on one connection behind the one that is being answered."""


def _refusal(status: HTTPStatus, code: str, kind: str, message: str, *headers: str) -> bytes:
    body = json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}})
    lines = [f"HTTP/1.1 {status.value} {status.phrase}", "content-type: application/json"]
    return "\r\n".join([*lines, f"content-length: {len(body)}", "connection: close", *headers, "", body]).encode()


HEADERS_TOO_LARGE = _refusal(
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    "headers_too_large",
    "invalid_request_error",
    f"The request line and headers are larger than {MAX_HEADER_BYTES} bytes.",
)
TOO_MANY_CONNECTIONS = _refusal(
    HTTPStatus.SERVICE_UNAVAILABLE,
    "too_many_connections",
    "service_unavailable_error",
    "The server answers as many requests as it has connections for.",
    "retry-after: 1",
)


class BoundedConnection(HttpToolsProtocol):
    """uvicorn's connection with a deadline for every state but "the request is being answered", a limit on everything
    but bodies, and a place among a limited number of connections. It accepts no upgrade to another protocol."""

    places = ConnectionLimit()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.in_headers = self.parsed = self.upgrade_asked = False
        self.unparsed_bytes = self.unsent = 0
        self.given_up = self.cut_off = False
        """Whether the server ended the connection, and whether an answer was not sent completely."""
        self.deadline: asyncio.TimerHandle | None = None
        self._expect(HEADER_SECONDS)
        connection = transport.get_extra_info("socket")
        if connection is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        if not self.places.take(self, len(self.connections)):
            self.give_up()

    def connection_lost(self, exc: Exception | None) -> None:
        self.cut_off = self.flow.write_paused or (self.cycle is not None and not self.cycle.response_complete)
        if self.deadline is not None:
            self.deadline.cancel()
        self.places.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.upgrade_asked or self.transport.is_closing():
            return
        self.parsed = False
        super().data_received(data)
        if not self.parsed:  # headers, chunk extensions, trailers, blank lines
            self.unparsed_bytes += len(data)
            if self.unparsed_bytes > MAX_HEADER_BYTES:
                self._refuse(HEADERS_TOO_LARGE, "too_large")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.in_headers, self.unparsed_bytes = True, 0
        self._expect(HEADER_SECONDS)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.in_headers:  # otherwise a trailer, which nobody reads
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._progress()
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > MAX_HEADER_BYTES:
            self._refuse(HEADERS_TOO_LARGE, "too_large")
        elif len(self.pipeline) >= MAX_PIPELINED:
            self.give_up()
        elif self.places.crowded(len(self.connections)) and httptools.parse_url(self.url).path.decode() not in OPEN:
            self._refuse(TOO_MANY_CONNECTIONS, "too_many_connections")
        self.in_headers = False
        if not self.transport.is_closing():
            self.scope["state"]["connection"] = self
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._progress()
        if not self.transport.is_closing():
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._progress()
        if not self.transport.is_closing():
            super().on_message_complete()
            self._take_turn()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._expect(self.timeout_keep_alive)
        self._take_turn()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._expect(STALL_SECONDS)

    def give_up(self) -> None:
        """End the connection at once; close() would wait for the client to read. The request sees a disconnect."""
        self.given_up = True
        self.transport.abort()

    def _should_upgrade_to_ws(self) -> bool:
        return False

    def _unsupported_upgrade_warning(self) -> None:
        """Answer as if no upgrade had been asked for; the parser takes the following bytes for another protocol."""
        self.upgrade_asked = True
        self.cycle.keep_alive = False

    def _answering(self) -> bool:
        """Whether a request is being answered, or its body read by the gate, which has its own time limit."""
        return self.cycle is not None and not self.cycle.response_complete and not self.transport.is_closing()

    def _take_turn(self) -> None:
        if self._answering() and not self.cycle.more_body:
            self.places.keep(self)
        elif not self.transport.is_closing():
            self.places.wait(self)

    def _progress(self) -> None:
        self.parsed, self.unparsed_bytes = True, 0

    def _expect(self, seconds: float) -> None:
        """Set the deadline for the client's next step; STALL_SECONDS while it has an answer to read."""
        if self.deadline is not None:
            self.deadline.cancel()
        self.unsent = self.transport.get_write_buffer_size()
        self.deadline = self.loop.call_later(STALL_SECONDS if self.unsent else seconds, self._overdue)

    def _overdue(self) -> None:
        takes = self.transport.get_write_buffer_size() < self.unsent
        if takes or (self._answering() and not self.flow.write_paused):
            self._expect(self.timeout_keep_alive)
        else:
            self.give_up()

    def _refuse(self, answer: bytes, reason: str) -> None:
        """Close, with an answer where the client would take it for this request's."""
        metrics.REJECTED_REQUESTS.labels(reason).inc()
        if self._answering() or not self.in_headers:
            self.give_up()
        elif not self.transport.is_closing():
            self.transport.write(answer)
            self.transport.close()
            self._expect(self.timeout_keep_alive)
