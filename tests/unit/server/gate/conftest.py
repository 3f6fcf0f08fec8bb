"""The gated apps that several modules ask, and a server for one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from tests.support.gate_app import app_of
from tests.support.raw_server import running


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
    with running(closed, lifespan="off", log_level="critical", http="httptools") as port:
        yield port


@pytest.fixture(scope="module")
def local() -> Iterator[TestClient]:
    with pytest.MonkeyPatch.context() as patch:
        yield TestClient(app_of(patch, keys=None), "http://localhost", raise_server_exceptions=False)
