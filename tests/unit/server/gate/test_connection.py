"""The limits of one connection, on a real uvicorn."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from argparse import Namespace
from collections.abc import Iterator

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from server.gate.access_log import AccessLog
from server.gate.connection.protocol import MAX_HEADER_BYTES, MAX_PIPELINED
from tests.support.raw_server import SECONDS, connect, exchange, is_closed_while, rest, serving

CHUNK = b"x" * 65536
LARGE = b"x" * (8 << 20)

CHUNKED = b"POST %s HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
UPGRADE = b"host: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"


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

    async def large(request: Request) -> Response:
        return Response(LARGE)

    async def refused(request: Request) -> PlainTextResponse:
        return PlainTextResponse("no", 401)

    app = Starlette(
        routes=[
            Route("/endless", stream),
            Route("/large", large),
            Route("/length", length, methods=["GET", "POST"]),
            Route("/refused", refused, methods=["GET", "POST"]),
        ]
    )
    app.add_middleware(AccessLog)
    app.state.args = Namespace(access_log="json")
    with serving(app) as number:
        yield number


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
def test_large_headers_get_a_431_or_a_reset(port: int, head: bytes) -> None:
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


@pytest.mark.parametrize(
    ("begun", "drip"),
    [
        (b"GET /length HTTP/1.1\r\nhost: a\r\n\r\n", b"\r\n"),
        (CHUNKED % b"/refused" + b"0\r\n", b"a: b\r\n"),
        (CHUNKED % b"/refused" + b"1", b";a=b"),
        (CHUNKED % b"/refused", b"1\r\nx\r\n"),
        (b"POST /refused HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\n", b"x"),
        (b"GET /length HTTP/1.1\r\n" + UPGRADE + b"\r\n", b"x"),
        (b"GET /length HTTP/1.1\r\n" + UPGRADE, b"x: y\r\n"),
        (b"GET /length HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", b"x"),
    ],
    ids=[
        "blank lines",
        "trailers",
        "an extension",
        "chunks",
        "a body",
        "after an upgrade",
        "an upgrade",
        "after close",
    ],
)
def test_no_connection_is_held_by_single_bytes(port: int, begun: bytes, drip: bytes) -> None:
    assert is_closed_while(port, begun, drip, 10 * SECONDS)


def test_a_body_that_comes_after_its_refusal_leaves_the_connection_usable(port: int) -> None:
    body = b"x" * 500_000
    with connect(port) as client:
        client.sendall(b"POST /refused HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % len(body))
        assert client.recv(1000).startswith(b"HTTP/1.1 401 ")
        client.sendall(body + b"GET /length HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        assert rest(client).startswith(b"HTTP/1.1 200 ")


def test_trailers_are_ignored(port: int) -> None:
    rest_of_it = b"3\r\nabc\r\n0\r\nhost: b\r\nx-sum: 9\r\n\r\n"
    answer = exchange(port, CHUNKED % b"/length" + rest_of_it)
    assert answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"\r\n\r\n3")


@pytest.mark.parametrize("path", [b"/refused", b"/length"])
@pytest.mark.parametrize("piece", [b"trailer: y\r\n", b"y" * 50], ids=["many", "one long"])
def test_endless_trailers_end_the_connection(port: int, path: bytes, piece: bytes) -> None:
    """Whether the answer has been sent or not; more than fits into the buffers on the way."""
    with connect(port) as client, pytest.raises((BrokenPipeError, ConnectionResetError)):
        client.sendall(CHUNKED % path + b"2\r\n{}\r\n0\r\n")
        for _ in range(400):
            client.sendall(piece * 4000)


def test_an_endless_chunk_extension_ends_the_connection(port: int) -> None:
    with connect(port) as client, pytest.raises((BrokenPipeError, ConnectionResetError)):
        client.sendall(CHUNKED % b"/length" + b"2")
        for _ in range(400):
            client.sendall(b";name=value" * 4000)


def test_requests_that_wait_on_one_connection_are_few(port: int) -> None:
    request = b"GET /length HTTP/1.1\r\nhost: a\r\n\r\n"
    assert exchange(port, request * 10).count(b"HTTP/1.1 200 ") == 10
    assert exchange(port, request * 1_500).count(b"HTTP/1.1 200 ") <= MAX_PIPELINED + 1


def test_an_upgrade_is_ignored_and_not_logged(port: int, capfd: pytest.CaptureFixture[str]) -> None:
    answer = exchange(
        port, b"GET /length?secret=zqx HTTP/1.1\r\n" + UPGRADE + b"\r\n", b"GET /smuggled HTTP/1.1\r\n\r\n"
    )
    assert answer.startswith(b"HTTP/1.1 200 ") and b"connection: close" in answer
    assert answer.count(b"HTTP/1.1") == 1
    assert "secret" not in capfd.readouterr().err


def ended(capfd: pytest.CaptureFixture[str]) -> str:
    """How the next line of the log says that a request ended."""
    began, text = time.monotonic(), ""
    while not (text := text + capfd.readouterr().err).endswith("\n"):
        assert time.monotonic() - began < 20
        time.sleep(0.05)
    return str(json.loads(text)["ended"])


def test_a_steady_reader_gets_all_of_a_large_answer(port: int, capfd: pytest.CaptureFixture[str]) -> None:
    began, received = time.monotonic(), 0
    with connect(port, receive_buffer=65536) as client:
        client.sendall(b"GET /large HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        while data := client.recv(1 << 17):
            received += len(data)
            time.sleep(max(0.0, 4 * SECONDS * received / len(LARGE) - (time.monotonic() - began)))
    assert received > len(LARGE)
    assert time.monotonic() - began > 3 * SECONDS, "too fast to show anything"
    assert ended(capfd) == "complete"


def test_the_log_says_whose_answer_was_cut_off(port: int, capfd: pytest.CaptureFixture[str]) -> None:
    with connect(port, receive_buffer=4096) as client:
        client.sendall(b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n")
        assert ended(capfd) == "cut_off"
        assert len(rest(client)) < len(LARGE)


def test_the_log_says_who_went_before_the_end(port: int, capfd: pytest.CaptureFixture[str]) -> None:
    with connect(port, receive_buffer=4096) as client:
        client.sendall(b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n")
        client.recv(1000)
    assert ended(capfd) == "client_gone"
