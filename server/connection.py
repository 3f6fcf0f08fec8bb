"""An HTTP connection that can hold neither memory nor time for ever, whatever its other end does."""

from __future__ import annotations

import asyncio
import json
import socket

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from server import metrics

MAX_HEADER_BYTES = 64 << 10
"""Of one request's line and headers together; vLLM's flags for it are for uvicorn's other, slower parser."""

HEADER_SECONDS = 15.0
"""In which a request's line and headers must have come."""

SEND_BUFFER_BYTES = 256 << 10
"""Of the kernel, for one connection: what a reader may lag behind, together with uvicorn's own buffer of 64 KiB."""

STALL_SECONDS = 30.0
"""After which a reader that takes nothing is given up, and its request with it."""

_BODY = json.dumps(
    {
        "error": {
            "message": f"The request line and headers are larger than {MAX_HEADER_BYTES} bytes.",
            "type": "invalid_request_error",
            "param": None,
            "code": "headers_too_large",
        }
    }
).encode()
HEADERS_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: application/json\r\n"
    b"content-length: %d\r\nconnection: close\r\n\r\n%s" % (len(_BODY), _BODY)
)


class BoundedConnection(HttpToolsProtocol):
    """uvicorn's connection with limits on headers, on slow headers, and on readers that stall."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.in_headers, self.header_bytes = False, 0
        self.stalled: asyncio.TimerHandle | None = None
        self.headers_due: asyncio.TimerHandle | None = None
        self._expect_headers()
        connection = transport.get_extra_info("socket")
        if connection is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.in_headers:
            self.header_bytes += len(data)
            if self.header_bytes > MAX_HEADER_BYTES:
                self._refuse_headers()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.in_headers, self.header_bytes = True, 0
        self._expect_headers()

    def on_headers_complete(self) -> None:
        self.in_headers = False
        self._headers_came()
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > MAX_HEADER_BYTES:
            self._refuse_headers()
        if not self.transport.is_closing():
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if not self.transport.is_closing():
            super().on_body(body)

    def on_message_complete(self) -> None:
        if not self.transport.is_closing():
            super().on_message_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.stalled = self.loop.call_later(STALL_SECONDS, self._give_up)

    def resume_writing(self) -> None:
        self._reader_moved()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._headers_came()
        self._reader_moved()
        super().connection_lost(exc)

    def _expect_headers(self) -> None:
        if self.headers_due is None:
            self.headers_due = self.loop.call_later(HEADER_SECONDS, self._give_up)

    def _headers_came(self) -> None:
        if self.headers_due is not None:
            self.headers_due.cancel()
            self.headers_due = None

    def _reader_moved(self) -> None:
        if self.stalled is not None:
            self.stalled.cancel()
            self.stalled = None

    def _give_up(self) -> None:
        """Not close(), which would wait for the buffer to be read. The request sees its client go."""
        self.transport.abort()

    def _refuse_headers(self) -> None:
        self.in_headers = False
        metrics.REJECTED_REQUESTS.labels("too_large").inc()
        if not self.transport.is_closing():
            self.transport.write(HEADERS_TOO_LARGE)
            self.transport.close()
