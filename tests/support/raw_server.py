"""A small app on a real uvicorn with our connections, and clients that write to it byte by byte."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import uvicorn
from starlette.types import ASGIApp

from server.gate.connection import protocol as connection
from server.gate.connection.protocol import BoundedConnection
from tests.support.ports import free_ports

SECONDS = 1.0
"""Every limit on time here."""


@contextmanager
def serving(app: ASGIApp) -> Iterator[int]:
    """Serve `app` in a thread, on our connections with short limits; gives the port."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connection, "HEADER_SECONDS", SECONDS)
        patch.setattr(connection, "STALL_SECONDS", SECONDS)
        with running(app, log_level="error", http=BoundedConnection, timeout_keep_alive=int(SECONDS)) as port:
            yield port


@contextmanager
def running(app: ASGIApp, **options: Any) -> Iterator[int]:
    """Serve `app` in a thread, with these options of uvicorn; gives the port."""
    (port,) = free_ports(1)
    server = uvicorn.Server(uvicorn.Config(app, port=port, **options))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield port
    server.should_exit = True
    thread.join()


def connect(port: int, receive_buffer: int | None = None) -> socket.socket:
    client = socket.socket()
    client.settimeout(20)
    if receive_buffer:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    client.connect(("127.0.0.1", port))
    return client


def rest(client: socket.socket) -> bytes:
    """All that comes until the server closes the connection."""
    received = b""
    with suppress(ConnectionResetError):
        while data := client.recv(65536):
            received += data
    return received


def exchange(port: int, *parts: bytes, pause: float = 0) -> bytes:
    """The bytes that the server answers to `parts`, until it closes the connection."""
    with connect(port) as client:
        with suppress(BrokenPipeError, ConnectionResetError):
            for part in parts:
                client.sendall(part)
                time.sleep(pause)
        return rest(client)


def is_closed_while(port: int, begun: bytes, drip: bytes, seconds: float) -> bool:
    """Whether the server ends a connection within the time while it sends `drip` again and again."""
    with connect(port) as client:
        client.sendall(begun)
        end = time.monotonic() + seconds
        try:
            while time.monotonic() < end:
                client.sendall(drip)
                time.sleep(0.2)
        except (BrokenPipeError, ConnectionResetError):
            return True
    return False
