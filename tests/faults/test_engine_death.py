"""An engine that hangs, and one that is killed, while it answers."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.faults.lasting import (
    FLAGS,
    NAME,
    Stream,
    body,
    checkpoint,
    engine_processes,
    lines,
    metrics,
    status,
    wait_for,
)
from tests.support.servers import Server, serving

pytestmark = pytest.mark.server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(checkpoint(tmp_path / "checkpoint"), tmp_path / "log", FLAGS, NAME) as started:
        started.wait_until_ready()
        yield started


def assert_dies_of(server: Server, name: str) -> None:
    """Kill a process of the engine in the middle of a stream and of a plain request."""
    victim = engine_processes(server)[name]  # found first, as the stream ends while a busy machine looks for it
    stream = Stream(server, 16_000)
    victim.send_signal(signal.SIGKILL)
    assert wait_for(lambda: status(server, "/readyz") == 503) < 5
    assert status(server, "/livez") == 200
    found = metrics(server)
    assert (found["tokenformer_engine_up"], found["tokenformer_ready"]) == (0, 0)
    refused = httpx.post(f"{server.url}/v1/completions", json=body(1))
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "engine_dead")
    stream.join(10)
    assert stream.finish_reason() is None
    assert [(error["type"], error["code"]) for error in stream.errors()] == [("server_error", "internal_server_error")]
    assert server.process.wait(60) == 1
    assert [line for line in lines(server) if "error" in line] == ["tokenformer: error: the engine process died"]


def test_an_engine_that_stops_and_goes_on_and_is_killed(server: Server) -> None:
    stream = Stream(server, 6000)
    stopped = engine_processes(server)
    for process in stopped.values():
        process.suspend()
    wait_for(lambda: status(server, "/readyz") == 503)
    assert status(server, "/livez") == status(server, "/health") == 200
    assert metrics(server)["tokenformer_ready"] == 0
    for process in stopped.values():
        process.resume()
    wait_for(lambda: status(server, "/readyz") == 200)
    stream.join(120)
    assert (stream.done, stream.finish_reason()) == (True, "length")
    assert_dies_of(server, "EngineCore")


def test_a_worker_that_is_killed(tmp_path: Path) -> None:
    """Where the model has a process of its own, as where it is divided among several."""
    flags = [*FLAGS, "--distributed-executor-backend", "mp"]
    with serving(checkpoint(tmp_path / "checkpoint"), tmp_path / "log", flags, NAME) as server:
        server.wait_until_ready()
        assert_dies_of(server, "Worker")
