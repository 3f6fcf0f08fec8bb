"""Which methods a request may have."""

from __future__ import annotations

from http import HTTPStatus

from starlette.types import ASGIApp, Receive, Scope, Send

from server import metrics
from server.errors import openai_error

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class KnownMethods:
    """Refuses what HTTP APIs have no use for, before anything counts requests by their method: whoever makes methods
    up must not fill the metrics with them."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in METHODS:
            await self.app(scope, receive, send)
            return
        metrics.REJECTED_REQUESTS.labels("method").inc()
        message = f"The method is none of {', '.join(METHODS)}."
        answer = openai_error(HTTPStatus.NOT_IMPLEMENTED, message, code="unknown_method")
        await answer(scope, receive, send)
