"""A server that is told to end: nothing that was begun is lost, unless it is told again."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.faults.lasting import FLAGS, NAME, Stream, body, checkpoint, lines, status, wait_for
from tests.servers import Server, serving

pytestmark = pytest.mark.server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    flags = [*FLAGS, "--shutdown-timeout", "600"]
    with serving(checkpoint(tmp_path / "checkpoint"), tmp_path / "log", flags, NAME) as started:
        yield started


def say_while_starting(server: Server) -> None:
    """It is alive from when it has its socket on, but not ready."""
    wait_for(lambda: status(server, "/livez") == 200, seconds=240)
    waiting = httpx.get(f"{server.url}/readyz")
    assert waiting.status_code == 503
    assert "starting" in waiting.json()["reason"]
    refused = httpx.post(f"{server.url}/v1/completions", json=body(1))
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "starting")
    assert refused.headers["retry-after"]


def test_running_requests_are_finished(server: Server) -> None:
    say_while_starting(server)
    server.wait_until_ready()
    assert status(server, "/readyz") == 200
    streams = [Stream(server, 6000), Stream(server, 5000, n=2, temperature=1, seed=1)]
    server.process.send_signal(signal.SIGTERM)
    wait_for(lambda: status(server, "/readyz") == 503)
    assert status(server, "/livez") == 200
    refused = httpx.post(f"{server.url}/v1/completions", json=body(1))
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
    assert refused.headers["retry-after"]
    assert all(stream.is_alive() for stream in streams), "too short to show anything"
    for stream, choices in zip(streams, (1, 2), strict=True):
        stream.join(120)
        assert stream.done
        assert not stream.errors()
        summaries = [choice.get("uncertainty") for event in stream.events for choice in event["choices"]]
        assert [summary["tokens"] for summary in summaries if summary] == [stream.body["max_tokens"]] * choices
    assert server.process.wait(60) == 0
    assert not any("error" in line for line in lines(server))
    assert "Traceback" not in server.log.read_text()


def test_a_second_signal_cuts_them_off(server: Server) -> None:
    server.wait_until_ready()
    streams = [Stream(server, 16_000, seed=seed) for seed in range(3)]
    server.process.send_signal(signal.SIGTERM)
    wait_for(lambda: status(server, "/readyz") == 503)
    assert server.process.poll() is None
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(60) == 1
    for stream in streams:
        stream.join(10)
        assert stream.finish_reason() is None
        assert [error["code"] for error in stream.errors()] == ["service_unavailable"]
        assert "shutting down" in stream.errors()[0]["message"]
    assert "tokenformer: error: 3 requests were cut off by the shutdown" in lines(server)
