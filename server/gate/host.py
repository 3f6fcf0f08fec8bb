"""Host names of a server that only its own machine can reach: protection against DNS rebinding."""

from __future__ import annotations

from argparse import Namespace
from http import HTTPStatus
from ipaddress import ip_address

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from server import metrics
from server.gate.errors import openai_error


class LoopbackHost:
    """Refuses requests with a foreign `Host` where the loopback address is the only guard.

    A web page can let a name of its own point to 127.0.0.1. To a browser on this machine the server then belongs to
    that page, which can send requests and read the answers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            args: Namespace = scope["app"].state.args
            host = Headers(scope=scope).get("host")
            if args.loopback_guards and host is not None and not _is_own(_name(host), args.host):
                metrics.REJECTED_REQUESTS.labels("host").inc()
                message = (
                    "This server answers to `localhost` and loopback addresses only. A proxy in front of it must send "
                    "one of them as `Host`, or the server must be started with API keys."
                )
                answer = openai_error(HTTPStatus.FORBIDDEN, message, code="unknown_host")
                await answer(scope, receive, send)
                return
        await self.app(scope, receive, send)


def _name(host: str) -> str:
    """A Host header's value without port and brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].rstrip(".").lower()


def _is_own(name: str, bound: str) -> bool:
    if name == "localhost" or name == bound.lower():
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False
