"""Gives errors from behind the gate the shape that OpenAI's clients read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.datastructures import Headers, State
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.gate.errors import reshaped


class OpenAIErrors:
    """Rewrites JSON bodies from status 400 on; all other responses pass as they come."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun: Message | None = None
        body = bytearray()

        async def send_reshaped(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start" and _is_json_error(message):
                begun = message
            elif begun is None:
                await send(message)
            else:
                body.extend(message.get("body", b""))
                if not message.get("more_body", False):
                    sent = scope.get("state", {}).get("json", {})  # see `server.gate.body`
                    await _send_error(begun, bytes(body), sent, scope["app"].state, send)

        await self.app(scope, receive, send_reshaped)


def _is_json_error(start: Message) -> bool:
    kind = Headers(raw=start["headers"]).get("content-type", "")
    return start["status"] >= HTTPStatus.BAD_REQUEST and kind.startswith("application/json")


async def _send_error(begun: Message, body: bytes, sent: Mapping[str, Any], state: State, send: Send) -> None:
    """The original's headers stay, such as `Allow` and `Retry-After`. `sent` is the request's body."""
    response = reshaped(HTTPStatus(begun["status"]), json.loads(body), sent, state)
    headers = begun["headers"]
    if response is not None:
        body = bytes(response.body)
        length = (b"content-length", str(len(body)).encode())
        headers = [header for header in headers if header[0].lower() != b"content-length"] + [length]
    await send({**begun, "headers": headers})
    await send({"type": "http.response.body", "body": body})
