"""Installs connections with limits, which carry HTTP only."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from server.gate.connection.protocol import BoundedConnection


class Connections:
    """Makes uvicorn use `BoundedConnection` from the first connection on, and refuses WebSockets."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] == "lifespan" and hasattr(scope["app"].state, "server"):  # uvicorn listens only after this
            BoundedConnection.places.fit_descriptors()
            scope["app"].state.server.config.http_protocol_class = BoundedConnection
        await self.app(scope, receive, send)
