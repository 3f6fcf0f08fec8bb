"""A server that is told to end finishes its running answers, unless it is told again."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.faults.lasting import FLAGS, NAME, Stream, body, checkpoint, engine_processes, lines, status, wait_for
from tests.support.servers import START_SECONDS, Server, serving

pytestmark = pytest.mark.server

STREAMS = 64


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    flags = [*FLAGS, "--shutdown-timeout", "600"]
    with serving(checkpoint(tmp_path / "checkpoint"), tmp_path / "log", flags, NAME) as started:
        yield started
    assert "resource_tracker" not in started.log.read_text()  # which would tell of leaks


def assert_refused_until_ready(server: Server) -> None:
    """A client that connects early is refused at once, and never waits for the engine."""
    refusals, deadline = 0, time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            assert httpx.get(f"{server.url}/readyz", timeout=5).status_code == 200
        except httpx.ConnectError:
            refusals += 1
            time.sleep(0.05)  # between two looks at a process that starts
        else:
            assert refusals
            return
    raise AssertionError(server.tail())


def signal_all(server: Server, number: signal.Signals) -> None:
    """systemd signals every process of a service, and a terminal those of a command."""
    os.killpg(server.process.pid, number)


def assert_finished(streams: list[Stream]) -> None:
    for stream in streams:
        stream.join(300)
        assert stream.done
        assert not stream.errors()
        summaries = [choice.get("uncertainty") for event in stream.events for choice in event["choices"]]
        tokens, choices = stream.body["max_tokens"], stream.body.get("n", 1)
        assert [summary["tokens"] for summary in summaries if summary] == [tokens] * choices


def test_running_requests_are_finished(server: Server) -> None:
    assert_refused_until_ready(server)
    streams = [Stream(server, 1500) for _ in range(STREAMS - 1)]
    streams.append(Stream(server, 1500, n=2, temperature=1, seed=1))
    signal_all(server, signal.SIGTERM)
    wait_for(lambda: status(server, "/readyz") == 503)
    assert status(server, "/livez") == 200
    refused = httpx.post(f"{server.url}/v1/completions", json=body(1))
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
    assert refused.headers["retry-after"]
    assert any(stream.is_alive() for stream in streams), "too short to show anything"
    assert_finished(streams)
    assert server.process.wait(60) == 0
    assert not any("error" in line for line in lines(server))
    assert "Traceback" not in server.log.read_text()


def test_a_second_signal_cuts_them_off(server: Server) -> None:
    server.wait_until_ready()
    streams = [Stream(server, 16_000, seed=seed) for seed in range(3)]
    signal_all(server, signal.SIGTERM)
    wait_for(lambda: status(server, "/readyz") == 503)
    assert server.process.poll() is None
    signal_all(server, signal.SIGTERM)
    assert server.process.wait(60) == 1
    for stream in streams:
        stream.join(10)
        assert stream.finish_reason() is None
        assert [error["code"] for error in stream.errors()] == ["service_unavailable"]
        assert "shutting down" in stream.errors()[0]["message"]
    assert "tokenformer: error: 3 requests were cut off by the shutdown" in lines(server)


def test_an_engine_that_dies_while_they_are_finished(server: Server) -> None:
    server.wait_until_ready()
    stream = Stream(server, 16_000)
    signal_all(server, signal.SIGTERM)
    wait_for(lambda: status(server, "/readyz") == 503)
    engine_processes(server)["EngineCore"].kill()
    assert server.process.wait(60) == 1
    stream.join(10)
    assert [error["code"] for error in stream.errors()] == ["internal_server_error"]
    assert [line for line in lines(server) if "error" in line] == ["tokenformer: error: the engine process died"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # of the streams that break
def test_all_other_processes_live_and_end_with_the_first(tmp_path: Path) -> None:
    """Engine, fork server, resource trackers, and the process that tries grammars."""
    flags = FLAGS
    with serving(checkpoint(tmp_path / "checkpoint"), tmp_path / "log", flags, NAME) as server:
        server.wait_until_ready()
        grammar = body(1, structured_outputs={"regex": "[ab]"})
        assert httpx.post(f"{server.url}/v1/completions", json=grammar, timeout=60).status_code == 200
        streams = [Stream(server, 500) for _ in range(STREAMS)]
        others = psutil.Process(server.process.pid).children(recursive=True)
        assert len(others) >= 4
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
            for other in others:
                other.send_signal(number)
        assert any(stream.is_alive() for stream in streams), "too short to show anything"
        assert_finished(streams)
        assert all(other.is_running() for other in others)
        streams = [Stream(server, 16_000) for _ in range(4)]  # more would wait for room in the KV cache
        server.process.kill()
        assert wait_for(lambda: not any(map(runs, others)), seconds=10) < 10


def runs(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
