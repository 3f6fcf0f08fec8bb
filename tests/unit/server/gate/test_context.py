"""The context that code finds while it runs for a request."""

from __future__ import annotations

import asyncio
from argparse import Namespace

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from server.gate.access_log import AccessLog
from server.gate.admission import Admission
from server.gate.auth import Authentication
from server.gate.context import CONTEXT, RequestContext
from server.gate.keys import ApiKeys
from tests.unit.server.gate.test_admission import Engine, control


@pytest.mark.parametrize(
    ("method", "path", "recorded", "admitted"),
    [
        ("POST", "/v1/completions", True, True),
        ("GET", "/v1/models", True, False),
        ("GET", "/playground/", False, False),
        ("POST", "/playground/", False, True),
    ],
)
def test_a_request_and_its_tasks_have_what_every_middleware_adds(
    method: str, path: str, recorded: bool, admitted: bool
) -> None:
    found: list[RequestContext] = []
    later: list[asyncio.Task[None]] = []
    answered = asyncio.Event()

    async def note() -> None:
        found.append(CONTEXT.get())

    async def note_later() -> None:
        await answered.wait()
        await note()

    async def route(request: Request) -> Response:
        await asyncio.gather(note(), note())
        later.append(asyncio.create_task(note_later()))
        return Response()

    async def run() -> None:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test", auth=("", "right")) as client:
            responses = await asyncio.gather(*(client.request(method, path) for _ in range(2)))
        assert [response.status_code for response in responses] == [200, 200]
        answered.set()
        await asyncio.gather(*later)

    middleware = [Middleware(AccessLog), Middleware(Authentication), Middleware(Admission)]
    app = Starlette(routes=[Route(path, route, methods=["GET", "POST"])], middleware=middleware)
    keys = ApiKeys.of(["right"])
    app.state.args = Namespace(api_keys=keys, isolate_keys=True, access_log="off")
    app.state.admission = control(Engine())
    asyncio.run(run())
    assert len(found) == 6
    assert {context.cache_salt for context in found} == {keys.salt("right")}
    assert len({context.record.request_id for context in found if context.record}) == (2 if recorded else 0)
    assert len({id(context.ticket) for context in found if context.ticket}) == (2 if admitted else 0)
    assert len({id(context) for context in found}) == 2
    assert CONTEXT.get() == RequestContext()
