"""The limit of connections of a process, on a real uvicorn and by itself."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from server.gate.connection.limit import MAX_CONNECTIONS, PROBE_CONNECTIONS, SPARE_DESCRIPTORS, ConnectionLimit
from server.gate.connection.protocol import BoundedConnection
from tests.support.raw_server import connect, exchange, rest, serving

ANSWERS = 8
LIMIT = PROBE_CONNECTIONS + ANSWERS


class Client:
    def __init__(self) -> None:
        self.gone = False

    def give_up(self) -> None:
        self.gone = True


def test_the_one_that_has_waited_longest_goes() -> None:
    places = ConnectionLimit(limit=3)
    clients = [Client() for _ in range(5)]
    for count, client in enumerate(clients[:3], 1):
        assert places.take(client, count)
    places.keep(clients[0])  # it is being answered
    places.keep(clients[1])
    places.wait(clients[1])  # it has been answered, after the third came
    assert places.take(clients[3], 4)
    assert [client.gone for client in clients] == [False, False, True, False, False]
    assert places.take(clients[4], 4)
    assert [client.gone for client in clients] == [False, True, True, False, False]


def test_nobody_who_is_being_answered_goes() -> None:
    places = ConnectionLimit(limit=1)
    first, second = Client(), Client()
    assert places.take(first, 1)
    places.keep(first)
    assert not places.take(second, 2)
    assert not first.gone


@pytest.mark.parametrize(
    ("descriptors", "limit"),
    [
        (256, 256 - SPARE_DESCRIPTORS - 50),
        (100, 2 * PROBE_CONNECTIONS),
        (1 << 20, MAX_CONNECTIONS),
        (resource.RLIM_INFINITY, MAX_CONNECTIONS),
    ],
)
def test_it_fits_the_descriptors(monkeypatch: pytest.MonkeyPatch, descriptors: int, limit: int) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (descriptors, descriptors))
    monkeypatch.setattr("psutil.Process.num_fds", lambda self: 50)
    places = ConnectionLimit()
    places.fit_descriptors()
    assert places.limit == limit


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    async def endless(request: Request) -> StreamingResponse:
        async def chunks() -> AsyncIterator[bytes]:
            while True:
                yield b"x"
                await asyncio.sleep(0.05)

        return StreamingResponse(chunks())

    async def short(request: Request) -> PlainTextResponse:
        await request.body()
        return PlainTextResponse("here")

    routes = [Route("/endless", endless), Route("/livez", short), Route("/short", short, methods=["GET", "POST"])]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BoundedConnection, "places", ConnectionLimit(LIMIT))
        with serving(Starlette(routes=routes)) as number:
            yield number


def request(path: str, *headers: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "host: a", *headers, "", ""]).encode()


@pytest.mark.parametrize(
    "held",
    [
        b"",
        b"GET /short HTTP/1.1\r\n",
        request("/short"),
        request("/short")[:-2] + b"content-length: 9\r\n\r\n",
        b"POST /short HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nx",
    ],
    ids=["nothing", "half a request", "an answered request", "half a body after its answer", "half a body"],
)
def test_who_holds_connections_keeps_nobody_out(port: int, held: bytes) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(port)) for _ in range(4 * LIMIT)]
        for client in clients:
            try:
                client.sendall(held)
            except OSError:  # it is gone already
                continue
        assert exchange(port, request("/short", "connection: close")).endswith(b"here")


def test_probes_are_answered_when_all_other_connections_are(port: int) -> None:
    with ExitStack() as stack:
        for _ in range(ANSWERS - 1):
            client = stack.enter_context(connect(port))
            client.sendall(request("/endless"))
            assert client.recv(100).startswith(b"HTTP/1.1 200 ")
        assert exchange(port, request("/short", "connection: close")).endswith(b"here")  # there is one place more
        client = stack.enter_context(connect(port))
        client.sendall(request("/endless"))
        assert client.recv(100).startswith(b"HTTP/1.1 200 ")
        refused = exchange(port, request("/short"))
        assert refused.startswith(b"HTTP/1.1 503 ") and b'"too_many_connections"' in refused
        assert b"retry-after: 1\r\n" in refused
        idle = [stack.enter_context(connect(port)) for _ in range(LIMIT)]
        assert exchange(port, request("/livez", "connection: close")).endswith(b"here")
        assert rest(idle[0]) == b""
