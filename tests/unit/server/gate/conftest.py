"""The gated apps that several modules ask, and a server for one."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn
from fastapi import FastAPI
from starlette.testclient import TestClient

from tests.support.gate_app import app_of
from tests.support.ports import free_ports


@pytest.fixture(scope="module")
def closed() -> Iterator[FastAPI]:
    """An app with keys."""
    with pytest.MonkeyPatch.context() as patch:
        yield app_of(patch)


@pytest.fixture(scope="module")
def client(closed: FastAPI) -> TestClient:
    return TestClient(closed, raise_server_exceptions=False)


@pytest.fixture(scope="module")
def port(closed: FastAPI) -> Iterator[int]:
    (port,) = free_ports(1)
    server = uvicorn.Server(uvicorn.Config(closed, port=port, lifespan="off", log_level="critical", http="httptools"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield port
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def local() -> Iterator[TestClient]:
    with pytest.MonkeyPatch.context() as patch:
        yield TestClient(app_of(patch, keys=None), "http://localhost", raise_server_exceptions=False)
