"""API-key authentication for every route."""

from __future__ import annotations

import base64
from argparse import Namespace
from dataclasses import replace
from http import HTTPStatus

from starlette._utils import get_route_path
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from server import metrics
from server.gate.context import CONTEXT, entered
from server.gate.errors import openai_error
from server.gate.keys import ApiKeys
from server.gate.methods import OPEN

PAGES = ("/", "/pages.css", "/docs", "/playground")
"""Paths that a browser opens. Files of the last two lie below them."""


class Authentication:
    """Accepts a key as `Authorization: Bearer KEY`, or as the password of `Authorization: Basic`, with which a browser
    can open a page. Without configured keys every request passes."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):  # the server's start and end
            await self.app(scope, receive, send)
            return
        args: Namespace = scope["app"].state.args
        keys: ApiKeys | None = args.api_keys
        # The router's own reading of the path: no spelling is open here and leads elsewhere there.
        path = get_route_path(scope)
        headers = Headers(scope=scope)
        if keys is None or path in OPEN or _is_preflight(scope, headers):
            await self.app(scope, receive, send)
            return
        key = presented_key(headers)
        salt = None if key is None else keys.salt(key)
        if salt is None:
            metrics.REJECTED_REQUESTS.labels("unauthorized").inc()
            said = "No API key was given" if key is None else "The API key is not valid"
            answer = openai_error(
                HTTPStatus.UNAUTHORIZED,
                f"{said}: send `Authorization: Bearer KEY` with a key of this server.",
                code="invalid_api_key",
                headers={"WWW-Authenticate": 'Basic realm="API key as password"' if is_page(path) else "Bearer"},
            )
            await answer(scope, receive, send)
            return
        with entered(replace(CONTEXT.get(), cache_salt=salt if args.isolate_keys else None)):
            await self.app(scope, receive, send)


def is_page(path: str) -> bool:
    return path in PAGES or path.startswith(("/docs/", "/playground/"))


def presented_key(headers: Headers) -> str | None:
    """The key that a request presents, if any."""
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return credentials.strip()
    # A browser adds a stored password by itself, also to requests of pages from other sites.
    if scheme.lower() == "basic" and headers.get("sec-fetch-site", "none") in ("none", "same-origin"):
        try:
            return base64.b64decode(credentials, validate=True).decode().partition(":")[2]
        except ValueError:
            return None
    return None


def _is_preflight(scope: Scope, headers: Headers) -> bool:
    """Whether this is a CORS preflight, which browsers send without credentials and the CORS middleware answers."""
    asked = "origin" in headers and "access-control-request-method" in headers
    return scope.get("method") == "OPTIONS" and asked
