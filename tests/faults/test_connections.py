"""A server with keys and few file descriptors, and clients without a key that hold its connections and its memory."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import httpx
import psutil
import pytest

from tests.faults.held import CHUNKED, DRIPS, HEADERS
from tests.faults.lasting import FLAGS, NAME, body, checkpoint, wait_for
from tests.support.ports import free_ports
from tests.support.servers import Server, command_line, running

pytestmark = pytest.mark.server

KEY = "sk-few-descriptors"
DESCRIPTORS = 256
MEMORY = 150 << 20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("connections")
    (port,) = free_ports(1)
    (root / "keys").write_text(KEY)
    (root / "keys").chmod(0o600)
    command = command_line("serve", checkpoint(root / "checkpoint"), "--port", port, *FLAGS)
    limited = ["bash", "-c", f'ulimit -n {DESCRIPTORS}; exec "$@"', "-", *command, "--api-key-file", str(root / "keys")]
    with running(limited, port, root / "log", NAME) as started:
        started.wait_until_ready()
        yield started
        assert started.process.poll() is None, started.tail()


def connect(server: Server) -> socket.socket:
    url = httpx.URL(server.url)
    return socket.create_connection((url.host, url.port), timeout=20)


def resident(server: Server) -> int:
    return int(psutil.Process(server.process.pid).memory_info().rss)


def answer(server: Server) -> str:
    asked = httpx.post(
        f"{server.url}/v1/completions", json=body(300), headers={"Authorization": f"Bearer {KEY}"}, timeout=120
    )
    return str(asked.raise_for_status().json()["choices"][0]["text"])


def all_is_well(server: Server, expected: str) -> None:
    for path in ("/livez", "/readyz", "/health"):
        assert httpx.get(server.url + path, timeout=20).status_code == 200
    assert answer(server) == expected


@pytest.mark.parametrize(("begun", "drip"), DRIPS.values(), ids=DRIPS)
def test_who_holds_connections_keeps_nobody_out(server: Server, begun: bytes, drip: bytes) -> None:
    """Others are answered even at the limit of connections, and held connections are soon closed."""
    expected, own = answer(server), psutil.Process(server.process.pid)
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(server)) for _ in range(2 * DESCRIPTORS)]
        for client in clients:
            with suppress(OSError):
                client.sendall(begun)
        all_is_well(server, expected)

        def gone() -> bool:
            for client in clients:
                with suppress(OSError):
                    client.sendall(drip)
            time.sleep(0.5)
            return sum(found.status == psutil.CONN_ESTABLISHED for found in own.net_connections("tcp")) < 40

        wait_for(gone)
        all_is_well(server, expected)


def test_endless_trailers_take_no_memory(server: Server) -> None:
    expected, before = answer(server), resident(server)
    with connect(server) as client, pytest.raises((BrokenPipeError, ConnectionResetError)):
        client.sendall(CHUNKED + b"2\r\n{}\r\n0\r\n")
        for number in range(2000):
            client.sendall(b"".join(b"t-%d: x\r\n" % i for i in range(number, number + 3000)))
    assert resident(server) - before < MEMORY
    all_is_well(server, expected)


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/health", "/v1/completions"])
def test_bodies_without_an_end_take_no_memory(server: Server, path: str) -> None:
    """On the open paths, bodies are refused unread. Elsewhere they are read, with a key, up to a limit."""
    expected, before = answer(server), resident(server)
    key = f"authorization: Bearer {KEY}\r\n".encode() if path.startswith("/v1") else b""
    head = f"POST {path} HTTP/1.1\r\ncontent-length: {4 << 20}\r\n".encode() + key + HEADERS + b"\r\n"
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(server)) for _ in range(DESCRIPTORS)]
        for client in clients:
            with suppress(OSError):
                client.sendall(head)
                client.settimeout(0.2)
                client.sendall(b"x" * ((4 << 20) - 10))
        held = (128 << 20) if key else 0
        assert resident(server) - before < held + MEMORY
        if not key:
            with connect(server) as client:
                client.sendall(head)
                assert client.recv(100).startswith(b"HTTP/1.1 405 ")
        all_is_well(server, expected)


def test_web_sockets_are_refused_and_not_logged(server: Server) -> None:
    handshake = b"connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
    handshake += b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    for path, status in ((b"/v1/realtime", b"401"), (b"/livez", b"200")):
        with connect(server) as client:
            client.sendall(b"GET " + path + b"?key=zqxmarker HTTP/1.1\r\n" + HEADERS + handshake + b"\r\n")
            received = b""
            while data := client.recv(1000):
                received += data
        assert received.startswith(b"HTTP/1.1 " + status)
    assert "zqxmarker" not in server.log.read_text()
