"""No spelling of a path leads past the gate, over real connections: no client library tidies the request up."""

from __future__ import annotations

import re
import socket

import pytest
from fastapi import FastAPI

PATHS = [
    "/v1/models",
    "//v1/models",
    "///v1///models",
    "/v1//models",
    "/./v1/models",
    "/v1/../v1/models",
    "/%76%31/models",
    "/v1%2fmodels",
    "/v1/models/",
    "/v1/models;livez",
    "/v1/models?/livez",
    "/V1/MODELS",
    "/livez/../v1/models",
    "/v1/../livez/../v1/models",
    "/livez/..;/v1/models",
    "/livez%2f..%2fv1/models",
    "/livez%2e%2e/v1/models",
    "/livez/%2e%2e/v1/models",
    "/livez/%2e%2e%2fv1%2fmodels",
    "/livez\\..\\v1\\models",
    "/livez%00/v1/models",
    "/livez%00",
    "/livez%20",
    "/livez/",
    "/livez;x",
    "//livez",
    "/Livez",
    "/LIVEZ",
    "/livez/v1/models",
    "/readyz/x",
    "/health/x",
    "/api/livez",
    "/api/v1/models",
    "/apilivez",
    "/version",
    "/metrics",
    "/metrics/",
    "/metrics/livez",
    "/metricsx",
    "/",
    "*",
    "http://x/v1/models",
    "http://x//v1/models",
    "http://livez/v1/models",
    "http://user:right@x/v1/models",
]


def raw(port: int, request: str) -> int:
    """The status of the answer to exactly these bytes."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(request.encode("latin-1"))
        answer = b""
        while b"\r\n" not in answer and (part := connection.recv(4096)):
            answer += part
    return int(answer.split(b" ", 2)[1])


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("path", PATHS)
def test_no_spelling_of_a_path_leads_past_the_gate(port: int, path: str, method: str) -> None:
    for host in ("127.0.0.1", "localhost", "evil.example", "/livez", "127.0.0.1/livez?"):
        tail = f"Host: {host}\r\nContent-Length: 0\r\nX-Original-URL: /livez\r\nX-Forwarded-Prefix: /livez\r\n\r\n"
        assert raw(port, f"{method} {path} HTTP/1.1\r\n{tail}") in (400, 401), host


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/health", "/%6civez", "/livez?x=1", "http://x/livez"])
def test_the_three_are_open(port: int, path: str) -> None:
    assert raw(port, f"GET {path} HTTP/1.1\r\nHost: any\r\n\r\n") == 200


def test_a_request_hidden_behind_an_open_one_is_closed(port: int) -> None:
    """Two requests on one connection, and one in the body of another, are two requests."""
    hidden = "GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    for first in (
        "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
        "GET /livez HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            connection.sendall((first + hidden).encode())
            answer = connection.makefile("rb").read()
        assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"200", b"401"]


def test_a_root_path_opens_nothing(closed: FastAPI, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closed, "root_path", "/api")
    for path in ("/livez", "/api/livez"):
        assert raw(port, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n") == 200
    for path in ("/api/v1/models", "/v1/models", "/api//livez", "/api/api/livez", "/apilivez", "/api", "/api/livez/x"):
        assert raw(port, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n") == 401
