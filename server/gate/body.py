"""Limits on request bodies: their size, their time to arrive, and JSON that all readers understand alike."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from model_impl.faults import LONGEST_KEY
from server import metrics
from server.gate.connection.body_budget import BodyBudget, Share
from server.gate.errors import openai_error

BODY_SECONDS = 30.0
"""A whole body must arrive in this time, so that nobody holds a connection by sending a byte now and then."""

LINGER_SECONDS = 1.0
"""Time for a client that is still sending to read its refusal: closing at once would reset the connection."""

MAX_DEPTH = 128
"""Nesting of arrays and objects. Real requests stay below 40; recursive readers fail near 1,000."""

MAX_CONTAINERS, MAX_KEYS = 1 << 14, 1 << 16
"""Arrays and objects, and keys of all objects. Real requests hold a few hundred. Making a million delays others by a
second, because Python's garbage collector traverses them again and again."""

MAX_ITEMS = 1 << 11
"""Items of each of LISTS. An item costs several tokens, so this is more than a context holds."""

LISTS = ("messages", "input", "tools")

LARGE_BODY = 1 << 16
"""Bytes from which a body is parsed in a thread, so that the event loop serves others meanwhile."""

_ESCAPED = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")
_UNREADABLE = re.compile("[\x00\ud800-\udfff]")
_HALF = re.compile("[\ud800-\udfff]")
_AS_ZEROS, _LONG = bytes.maketrans(b"123456789", b"0" * 9), b"0" * 19
"""For finding integers that may have more than 64 bits, ten times faster than with a regular expression."""

_TOKENISED = re.compile(
    r"(?:prompt|completion|input|instructions|system|stop|bad_words|(?:messages|input)(?:\[\d+\])+\.content)"
    r"(?:\[\d+\])?(?:\.text)?"
)
"""Parameters that become tokens, and may hold NUL: byte-level tokenizers have a token for it, so texts of random tokens
hold it. Elsewhere, as in grammars and names, NUL would end a string for readers in C."""


UNREAD = (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.SERVICE_UNAVAILABLE)
"""Answers to bodies that have not been read to their end."""


class BodyRefused(Exception):
    """A refused body: the answer's status, `code`, message, and the parameter that is to blame, if one is."""

    def __init__(self, status: HTTPStatus, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.param = status, code, message, param


class BodyLimits:
    """Reads and checks a body before anything else works on the request. The parsed JSON is `json` in the request's
    state; the app reads the same bytes again."""

    def __init__(self, app: ASGIApp) -> None:
        self.app, self.budget = app, BodyBudget()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        with self.budget.share(scope["app"].state.args.max_body_bytes) as share:
            try:
                body = await read(headers, receive, share)
                if body is None:
                    return
                if body and not _has_type(headers, "multipart/form-data"):
                    parse = asyncio.to_thread(parsed, headers, body) if len(body) > LARGE_BODY else None
                    scope.setdefault("state", {})["json"] = await parse if parse else parsed(headers, body)
            except BodyRefused as refused:
                share.release()
                metrics.REJECTED_REQUESTS.labels(refused.code.removeprefix("body_")).inc()
                await _refuse(refused, scope, receive, send)
                return
            await self.app(scope, _replay(body, receive), send)


async def read(headers: Headers, receive: Receive, share: Share) -> bytes | None:
    """The whole body; None if the client has gone. Raises BodyRefused."""
    limit = share.largest
    too_large = BodyRefused(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body_too_large", f"The body is larger than {limit:,} bytes."
    )
    length = headers.get("content-length", "0")
    if len(length) > len(str(limit)) or (length.isdecimal() and int(length) > limit):
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS) as patience:
            share.wake = lambda: patience.reschedule(0)
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return None
                body += message.get("body", b"")
                if len(body) > limit:
                    raise too_large
                share.grow(len(body))
                if share.given_up:
                    raise TimeoutError
                if not message.get("more_body", False):
                    share.arrived()
                    return bytes(body)
    except TimeoutError:
        if share.given_up:
            text = "The server holds as many bytes of bodies as it has room for."
            raise BodyRefused(HTTPStatus.SERVICE_UNAVAILABLE, "bodies_full", text) from None
        text = f"The body did not arrive within {BODY_SECONDS:g} seconds."
        raise BodyRefused(HTTPStatus.REQUEST_TIMEOUT, "body_timeout", text) from None
    finally:
        body.clear()  # which the exception's frames would keep


def parsed(headers: Headers, body: bytes) -> dict[str, Any]:
    """The JSON object in a body, by the letter of the standard; the last of equal keys counts. Raises BodyRefused."""
    if not _has_type(headers, "application/json") or headers.get("content-encoding", "identity") != "identity":
        text = "The body must be JSON, uncompressed, and the header Content-Type say so: application/json."
        raise BodyRefused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", text)
    try:
        text = body.decode()
        _count(text)
        found = json.loads(text, parse_constant=_no_number, parse_float=_finite)
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:
        reason = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else error
        raise _invalid(f"The body is not valid JSON: {reason}.") from None
    if not isinstance(found, dict):
        raise _invalid("The body must be a JSON object.")
    for name in LISTS:
        if isinstance(found.get(name), list) and len(found[name]) > MAX_ITEMS:
            text = f"Invalid value for '{name}': it has more than {MAX_ITEMS:,} items."
            raise _invalid(text, code="invalid_value", param=name)
    if _ESCAPED.search(text) or _LONG in body.translate(_AS_ZEROS) or text.count("[") + text.count("{") > MAX_DEPTH:
        _look_through(found)
    return found


def _count(text: str) -> None:
    """Raises BodyRefused for too many arrays, objects and keys, before they are made."""
    if text.count("[") + text.count("{") <= MAX_CONTAINERS and text.count(":") <= MAX_KEYS:
        return
    pieces = text.replace("\\\\", "").replace('\\"', "").split('"')
    outside = "".join(pieces[::2])  # of strings
    if outside.count("[") + outside.count("{") > MAX_CONTAINERS:
        raise _invalid(f"The body holds more than {MAX_CONTAINERS:,} arrays and objects.")
    if outside.count(":") > MAX_KEYS:
        raise _invalid(f"The body's objects have more than {MAX_KEYS:,} keys.")


def _look_through(found: dict[str, Any]) -> None:
    """Raises BodyRefused for nesting deeper than MAX_DEPTH, and for forbidden characters and integers."""
    level: list[tuple[str, Any]] = [("", found)]
    for _ in range(MAX_DEPTH):
        inner = []
        for path, container in level:
            for step, value, is_key in _items(path, container):
                if isinstance(value, str):
                    if _UNREADABLE.search(value) and (held := _flaw(step, value, is_key)):
                        text = f"Invalid value for '{step}': it holds {held}."
                        raise _invalid(text, code="invalid_value", param=step)
                elif isinstance(value, dict | list):
                    inner.append((step, value))
                elif isinstance(value, int) and not -(1 << 63) <= value < 1 << 64:
                    text = f"Invalid value for '{step}': it is an integer of more than 64 bits."
                    raise _invalid(text, code="invalid_value", param=step)
        if not inner:
            return
        level = inner
    raise _too_deep()


def _flaw(step: str, text: str, is_key: bool) -> str | None:
    """The forbidden character in a text, if it is forbidden at this place."""
    if _HALF.search(text):
        return "half of a surrogate pair"
    return "a NUL character" if is_key or not _TOKENISED.fullmatch(step) else None


def _items(path: str, container: dict[str, Any] | list[Any]) -> Iterator[tuple[str, Any, bool]]:
    """Values and keys of a container, each with its parameter's name in OpenAI's form, and whether it is a key."""
    if isinstance(container, list):
        for i, value in enumerate(container):
            if isinstance(value, str | dict | list | int):
                yield f"{path}[{i}]", value, False
        return
    for key, value in container.items():
        yield path or "body", key, True
        if len(key) > LONGEST_KEY:
            yield path or "body", value, False
        else:
            yield f"{path}.{key}" if path else key, value, False


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"{text[:20]} is too large a number")
    return number


def _invalid(message: str, *, code: str = "invalid_json", param: str | None = None) -> BodyRefused:
    return BodyRefused(HTTPStatus.BAD_REQUEST, code, message, param)


def _too_deep() -> BodyRefused:
    return _invalid(f"The body holds arrays and objects in each other more than {MAX_DEPTH} deep.")


def _has_type(headers: Headers, media_type: str) -> bool:
    return headers.get("content-type", "").partition(";")[0].strip().lower() == media_type


def _replay(body: bytes, receive: Receive) -> Receive:
    """The body in one message, and then the server's own messages: the disconnect of the client."""
    waiting = [body]

    async def replayed() -> Message:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}
        return await receive()

    return replayed


async def _refuse(refused: BodyRefused, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer at once. A connection with an unread body is closed, after the client has had time to read the answer."""
    unread = refused.status in UNREAD
    full = refused.status == HTTPStatus.SERVICE_UNAVAILABLE
    answer = openai_error(
        refused.status,
        refused.message,
        code=refused.code,
        type="service_unavailable_error" if full else "invalid_request_error",
        param=refused.param,
        headers=({"Connection": "close"} if unread else {}) | ({"Retry-After": "1"} if full else {}),
    )
    if not unread:
        await answer(scope, receive, send)
        return

    async def send_open(message: Message) -> None:
        await send({**message, "more_body": True} if message["type"] == "http.response.body" else message)

    await answer(scope, receive, send_open)
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER_SECONDS):
            while (await receive()).get("more_body", False):
                pass  # discarded
    await send({"type": "http.response.body", "body": b"", "more_body": False})
