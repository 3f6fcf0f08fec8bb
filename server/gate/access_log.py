"""Request ids, latencies, and the access log: one line of JSON for every finished request."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from http import HTTPMethod, HTTPStatus
from typing import Any, Literal

from pydantic_core import to_json
from starlette.datastructures import Headers, MutableHeaders
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from vllm.utils import random_uuid

from server import metrics
from server.gate.auth import is_page
from server.gate.connection.protocol import BoundedConnection
from server.gate.context import RequestContext, RequestRecord, entered
from server.gate.errors import openai_error
from server.requests.request_ids import PATTERN, valid_request_id

REQUEST_ID = "x-request-id"

QUIET = ("/health", "/livez", "/load", "/metrics", "/ping", "/readyz", "/version")
"""Paths that machines poll. They are neither logged nor timed, and neither are pages."""

Ending = Literal["complete", "rejected", "error", "client_gone", "cut_off"]

SUMMARY = {
    *("risk", "reason", "calibrated", "abstain", "mean_entropy", "max_entropy"),
    *("mean_variance", "min_logprob", "tokens"),
}
"""Fields of `choices[].uncertainty` that are logged; its spans hold text."""


class AccessLog:
    """Gives every response an `x-request-id`, refuses ids that cannot be logged unchanged, fills the latency metrics
    and writes the log unless `--access-log off`."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).getlist(REQUEST_ID)
        if not given:  # vLLM makes the ids of answers from the request's header
            given = [random_uuid()]
            scope["headers"] = [*scope["headers"], (REQUEST_ID.encode(), given[0].encode())]
        valid = len(given) == 1 and valid_request_id(given[0])
        connection = scope.get("state", {}).get("connection")
        exchange = Exchange(RequestRecord(given[0] if valid else random_uuid()), receive, send, connection)
        quiet = is_quiet(scope)
        try:
            with entered(RequestContext(None if quiet else exchange.record)):
                if valid:
                    await self.app(scope, exchange.receive, exchange.send)
                else:
                    await refuse_id(scope, exchange)
        except Exception:
            # Starlette answers outside of all middleware, without an id. The traceback goes to the server's log.
            if exchange.status is None:
                await fail(scope, exchange)
            raise
        finally:
            if not quiet:
                account(scope, exchange)


class Exchange:
    """The ASGI messages of one request, and its state."""

    def __init__(
        self, record: RequestRecord, receive: Receive, send: Send, connection: BoundedConnection | None
    ) -> None:
        self.record, self._receive, self._send, self.connection = record, receive, send, connection
        self.status: int | None = None
        self.stream = self.complete = self.gone = False

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect" and not self.complete:
            self.gone = True
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers[REQUEST_ID] = self.record.request_id  # replaces the one of --enable-request-id-headers
            self.status = message["status"]
            self.stream = headers.get("content-type", "").startswith("text/event-stream")
        last = message["type"] == "http.response.body" and not message.get("more_body")
        if last and len(message.get("body", b"")) > HIGH_WATER_LIMIT:
            # uvicorn accepts a part of any size, and waits for the reader before it accepts another.
            await self._send({**message, "more_body": True})
            message = {**message, "body": b""}
        await self._send(message)
        if last:
            self.complete = not self.lost

    @property
    def lost(self) -> bool:
        """Whether the connection ended before the answer did."""
        return self.connection is not None and self.connection.cut_off

    @property
    def ending(self) -> Ending:
        if self.gone or self.lost:
            return "cut_off" if self.connection is not None and self.connection.given_up else "client_gone"
        if self.status is None or not self.complete:
            return "error"
        if self.status >= 400:
            return "rejected" if self.status < 500 or self.status == HTTPStatus.SERVICE_UNAVAILABLE else "error"
        return "error" if self.record.failed else "complete"


def is_quiet(scope: Scope) -> bool:
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    return path in QUIET or is_page(path)


async def refuse_id(scope: Scope, exchange: Exchange) -> None:
    metrics.REJECTED_REQUESTS.labels("invalid_request_id").inc()
    message = f"The header X-Request-Id must be given once at most and match {PATTERN}."
    answer = openai_error(HTTPStatus.BAD_REQUEST, message, code="invalid_request_id", param="X-Request-Id")
    await answer(scope, exchange.receive, exchange.send)


async def fail(scope: Scope, exchange: Exchange) -> None:
    message = "The server failed to answer this request."
    answer = openai_error(HTTPStatus.INTERNAL_SERVER_ERROR, message, code="internal_error", type="server_error")
    await answer(scope, exchange.receive, exchange.send)


def account(scope: Scope, exchange: Exchange) -> None:
    """Observe the request's latency and write its line."""
    record = exchange.record
    if record.model is not None and exchange.ending == "complete":
        metrics.REQUEST_SECONDS.labels(record.model).observe(record.seconds)
    if scope["app"].state.args.access_log != "off":
        write(describe(scope, exchange))


def describe(scope: Scope, exchange: Exchange) -> dict[str, Any]:
    """The line of the log: numbers, the server's own words and a checked id, and nothing else that a client sent."""
    record = exchange.record
    return {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "request_id": record.request_id,
        "method": scope["method"] if scope["method"] in HTTPMethod.__members__ else "other",
        "route": route_template(scope),
        "status": exchange.status,
        "ended": exchange.ending,
        "model": record.model,
        "stream": exchange.stream,
        "prompt_tokens": record.prompt_tokens,
        "completion_tokens": record.completion_tokens,
        "queued_seconds": record.queued_seconds,
        "first_token_seconds": record.first_token_seconds,
        "seconds": record.seconds,
        "finish_reasons": record.finish_reasons,
        "uncertainty": [
            {"index": index} | found.model_dump(include=SUMMARY) for index, found in sorted(record.uncertainty.items())
        ],
    }


def route_template(scope: Scope) -> str | None:
    """The path of the route that answered or would have answered, with its placeholders; None without a route."""
    route = scope.get("route")
    if route is None:
        route = next((found for found in scope["app"].routes if found.matches(scope)[0] is not Match.NONE), None)
    return getattr(route, "path", None)


def write(entry: dict[str, Any]) -> None:
    """Write the line at once, so that lines of several processes do not mix."""
    sys.stderr.buffer.write(to_json(entry, inf_nan_mode="null") + b"\n")
    sys.stderr.buffer.flush()
