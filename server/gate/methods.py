"""Allowed HTTP methods."""

from __future__ import annotations

from http import HTTPStatus

from starlette._utils import get_route_path
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from server import metrics
from server.gate.errors import openai_error

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

OPEN = frozenset({"/livez", "/readyz", "/health"})
"""Probes, which need no key; see `server.gate.auth`."""


class KnownMethods:
    """Refuses unknown methods before the metrics count requests by method, so that clients cannot fill them with
    made-up ones. Probes take no body, since nobody without a key may send one."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        method = scope["method"]
        if method not in METHODS:
            message = f"The method is none of {', '.join(METHODS)}."
            answer = openai_error(HTTPStatus.NOT_IMPLEMENTED, message, code="unknown_method")
            await _refuse(answer, scope, receive, send)
        elif get_route_path(scope) not in OPEN or method in ("GET", "OPTIONS"):  # the latter is for browsers
            await self.app(scope, receive, send)
        elif method == "HEAD":  # uvicorn leaves the body out
            await self.app({**scope, "method": "GET"}, receive, send)
        else:
            message = "This path takes GET and HEAD only."
            answer = openai_error(
                HTTPStatus.METHOD_NOT_ALLOWED, message, code="method_not_allowed", headers={"Allow": "GET, HEAD"}
            )
            await _refuse(answer, scope, receive, send)


async def _refuse(answer: JSONResponse, scope: Scope, receive: Receive, send: Send) -> None:
    metrics.REJECTED_REQUESTS.labels("method").inc()
    await answer(scope, receive, send)
