"""What one connection may take, on a real uvicorn."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from server import connection
from server.connection import MAX_HEADER_BYTES, BoundedConnection
from tests.ports import free_ports

CHUNK = b"x" * 65536


class Endless:
    """A stream that says when it was cancelled."""

    def __init__(self) -> None:
        self.ended = threading.Event()

    async def chunks(self) -> object:
        try:
            while True:
                yield CHUNK
                await asyncio.sleep(0)
        finally:
            self.ended.set()


@pytest.fixture(scope="module")
def endless() -> Endless:
    return Endless()


@pytest.fixture(scope="module")
def port(endless: Endless) -> Iterator[int]:
    async def stream(request: Request) -> StreamingResponse:
        return StreamingResponse(endless.chunks())  # type: ignore[arg-type]

    async def length(request: Request) -> PlainTextResponse:
        return PlainTextResponse(str(len(await request.body())))

    routes = [Route("/endless", stream), Route("/length", length, methods=["GET", "POST"])]
    (number,) = free_ports(1)
    config = uvicorn.Config(Starlette(routes=routes), port=number, log_level="error", http=BoundedConnection)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connection, "HEADER_SECONDS", 1.0)
        patch.setattr(connection, "STALL_SECONDS", 1.0)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield number
        server.should_exit = True
        thread.join()


def exchange(port: int, *parts: bytes, pause: float = 0) -> bytes:
    """What the server answers to `parts`, until it closes the connection."""
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        try:
            for part in parts:
                client.sendall(part)
                time.sleep(pause)
            while data := client.recv(65536):
                received += data
        except (BrokenPipeError, ConnectionResetError):
            pass
    return received


def test_ordinary_requests_pass(port: int) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        for size in (0, 10, 10_000_000):  # a body is not a header, however large, also on a connection that is kept
            assert client.post("/length", content=b"x" * size).text == str(size)
        assert client.get("/length", headers={"x-long": "y" * 30_000}).status_code == 200


@pytest.mark.parametrize(
    "head",
    [
        b"GET /length HTTP/1.1\r\nhost: a\r\nx-long: " + b"y" * 2 * MAX_HEADER_BYTES,
        b"GET /length HTTP/1.1\r\nhost: a\r\n" + b"".join(b"x-%d: y\r\n" % i for i in range(10_000)) + b"\r\n",
        b"GET /" + b"y" * 2 * MAX_HEADER_BYTES,
        b"GET /length HTTP/1.1\r\nhost: a\r\nx-long: " + b"y" * MAX_HEADER_BYTES + b"\r\n\r\n",
    ],
    ids=["one long header, never finished", "many headers", "a long path, never finished", "one long header"],
)
def test_large_headers(port: int, head: bytes) -> None:
    answer = exchange(port, head)
    assert answer.startswith(b"HTTP/1.1 431 ") or not answer  # reset, when it is cut off while we still send
    assert answer.count(b"HTTP/1.1") <= 1


def test_large_headers_get_an_answer(port: int) -> None:
    answer = exchange(
        port, b"GET /length HTTP/1.1\r\nhost: a\r\nx-long: " + b"y" * (MAX_HEADER_BYTES + 1) + b"\r\n\r\n"
    )
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert b'"headers_too_large"' in answer


@pytest.mark.parametrize("start", [b"", b"GET /length HT", b"GET /length HTTP/1.1\r\nhost: a\r\n"])
def test_headers_that_do_not_come(port: int, start: bytes) -> None:
    began = time.monotonic()
    assert exchange(port, start) == b""
    assert time.monotonic() - began < 15


def test_headers_that_trickle(port: int) -> None:
    assert exchange(port, b"GET /length HTTP/1.1\r\n", *[b"x: y\r\n"] * 8, pause=0.3) == b""


def test_a_reader_that_stalls_is_given_up(port: int, endless: Endless) -> None:
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", port))
        client.sendall(b"GET /endless HTTP/1.1\r\nhost: a\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 200 ")
        assert endless.ended.wait(20)
        received = 0
        with pytest.raises((ConnectionResetError, EOFError)):  # what was on its way, then the end
            while data := client.recv(1 << 20):
                received += len(data)
            raise EOFError
    assert received < 4 << 20


def test_a_slow_reader_is_not(port: int, endless: Endless) -> None:
    endless.ended.clear()
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"GET /endless HTTP/1.1\r\nhost: a\r\n\r\n")
        for _ in range(30):
            assert client.recv(1 << 20)
            time.sleep(0.1)
        assert not endless.ended.is_set()
    assert endless.ended.wait(20)
