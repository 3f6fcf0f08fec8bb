"""A server whose standard error cannot be written."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.demo_server import DEMO
from tests.support.ports import free_ports
from tests.support.servers import Server, command_line, user_environment

pytestmark = pytest.mark.server


@pytest.fixture(params=["nobody reads", "the reader has gone", "the disk is full"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    (port,) = free_ports(1)
    source, inlet = os.pipe()
    if request.param == "the disk is full":
        os.close(inlet)
        inlet = os.open("/dev/full", os.O_WRONLY)
    command = command_line("serve", DEMO, "--port", port, "--served-model-name", "demo")
    process = subprocess.Popen(command, stdout=inlet, stderr=inlet, env=user_environment())
    os.close(inlet)
    if request.param == "the reader has gone":
        os.close(source)
    (tmp_path / "log").touch()
    try:
        yield Server("demo", f"http://127.0.0.1:{port}", tmp_path / "log", process)
    finally:
        process.kill()
        process.wait()
        if request.param != "the reader has gone":
            os.close(source)


def test_it_answers_and_ends_when_it_is_told(server: Server) -> None:
    server.wait_until_ready()
    with httpx.Client(base_url=server.url, timeout=20) as client:
        for _ in range(1000):  # a line of the log each, more than a pipe holds
            assert client.get("/v1/models").status_code == 200
        answer = client.post("/v1/completions", json={"model": "demo", "prompt": "Hi", "max_tokens": 4})
        assert answer.status_code == 200
        assert client.get("/livez").status_code == client.get("/readyz").status_code == 200
    server.process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    assert server.process.wait(60) == 0
    assert time.monotonic() - began < 30
