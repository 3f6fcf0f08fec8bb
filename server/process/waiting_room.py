"""Answers on the server's socket while the engine starts: alive, not ready yet, and how long it has been."""

from __future__ import annotations

import json
import socket
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from server import metrics

RETRY_SECONDS = 2
READ_SECONDS = 5.0
POLL_SECONDS = 0.02
"""How long `close` may keep who calls it."""

LARGEST_BODY = 1 << 20


class WaitingRoom(ThreadingHTTPServer):
    """Serves from a thread of its own, as the engine's start keeps the event loop; `close` leaves the socket, and the
    connections that wait on it, to the real server."""

    daemon_threads = True

    def __init__(self, listener: socket.socket) -> None:
        """`listener` is bound; it listens from here on."""
        super().__init__(("", 0), Visitor, bind_and_activate=False)
        self.socket.close()
        self.socket = listener.dup()
        self.socket.listen()
        self.began = time.monotonic()
        self.thread = threading.Thread(
            target=self.serve_forever, args=(POLL_SECONDS,), name="waiting room", daemon=True
        )

    def __enter__(self) -> WaitingRoom:
        self.thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Answer nobody any more; a second call does nothing."""
        if self.thread.is_alive():
            self.shutdown()
            self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A visitor that goes before its answer is nothing to report."""


class Visitor(BaseHTTPRequestHandler):
    """One connection to the waiting room: one answer."""

    server: WaitingRoom
    timeout = READ_SECONDS
    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        self.close_connection = True
        if self.command == "POST":
            metrics.REJECTED_REQUESTS.labels("starting").inc()
        length = self.headers.get("Content-Length", "0")
        # Closing on a body that nobody read would reset the connection, and the answer be lost.
        self.rfile.read(min(int(length), LARGEST_BODY) if length.isdecimal() else 0)
        path, seconds = self.path.partition("?")[0], round(time.monotonic() - self.server.began, 1)
        progress = f"the engine has been starting for {seconds:g} s"
        if path == "/livez":
            return self._send(HTTPStatus.OK, {"status": "alive"})
        if path in ("/readyz", "/health"):
            return self._send(HTTPStatus.SERVICE_UNAVAILABLE, {"status": "not ready", "reason": progress})
        error = {"message": f"The server is not ready: {progress}.", "type": "service_unavailable_error"}
        return self._send(HTTPStatus.SERVICE_UNAVAILABLE, {"error": {**error, "param": None, "code": "starting"}})

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = answer

    def _send(self, status: HTTPStatus, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            self.send_header("Retry-After", str(RETRY_SECONDS))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def version_string(self) -> str:
        return "tokenformer"

    def log_message(self, *arguments: Any) -> None:
        """A terminal that waits for the engine should not fill with probes."""
