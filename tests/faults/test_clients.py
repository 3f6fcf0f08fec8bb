"""Clients that disconnect, that stall, and that are too many."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import psutil
import pytest

from server.gate.connection.protocol import STALL_SECONDS
from tests.faults.lasting import FLAGS, NAME, Stream, body, checkpoint, idle, metrics, status, wait_for
from tests.support.servers import Server, serving

pytestmark = pytest.mark.server

SEQUENCES, TAKEN = 4, 8


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("lasting")
    flags = [*FLAGS, "--max-num-seqs", SEQUENCES, "--max-num-queued-reqs", TAKEN]
    with serving(checkpoint(root / "checkpoint"), root / "log", flags, NAME) as started:
        started.wait_until_ready()
        yield started
        assert started.process.poll() is None, started.tail()


def request(tokens: int, path: str = "/v1/completions", **options: Any) -> bytes:
    content = json.dumps(body(tokens, **options)).encode()
    lines = [f"POST {path} HTTP/1.1", "host: 127.0.0.1", "content-type: application/json"]
    lines += [f"content-length: {len(content)}", "", ""]
    return "\r\n".join(lines).encode() + content


def connect(server: Server, receive_buffer: int | None = None) -> socket.socket:
    url = httpx.URL(server.url)
    client = socket.socket()
    if receive_buffer:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    client.connect((url.host, url.port))
    return client


@pytest.mark.parametrize(
    "options",
    [{}, {"stream": True}, {"n": 3, "temperature": 1}, {"stream": True, "n": 2, "temperature": 1, "seed": 1}],
    ids=str,
)
@pytest.mark.parametrize("wait", [0.0, 0.02, 1.0], ids=["before prefill", "about then", "in the middle"])
def test_a_client_that_goes(server: Server, options: dict[str, Any], wait: float) -> None:
    with connect(server) as client:
        client.sendall(request(16_000, **options))
        if wait == 1.0:
            wait_for(lambda: not idle(server))
        time.sleep(wait)
    wait_for(lambda: idle(server))


def test_a_client_that_goes_from_a_given_text(server: Server) -> None:
    with connect(server) as client:
        content = {"prompt": "Hi", "completion": ["x" * 7000] * 4, "uncertainty": {"ensemble": 32}, "model": NAME}
        client.sendall(request(1, "/v1/uncertainty", **content))
        wait_for(lambda: not idle(server))
    wait_for(lambda: idle(server))


def test_a_reader_that_stalls(server: Server) -> None:
    """Its request is given up although it keeps the connection, and it delays nobody meanwhile."""
    with connect(server, receive_buffer=4096) as client:
        client.sendall(request(16_000, stream=True, logprobs=20, n=3, temperature=1))
        wait_for(lambda: not idle(server))
        answer = httpx.post(f"{server.url}/v1/completions", json=body(5), timeout=300).json()
        assert answer["usage"]["completion_tokens"] == 5
        wait_for(lambda: idle(server), STALL_SECONDS + 120)


def resident(server: Server) -> int:
    return int(psutil.Process(server.process.pid).memory_info().rss)


async def crowd(server: Server, count: int) -> list[httpx.Response]:
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=server.url, timeout=300, limits=limits) as client:
        asked = (client.post("/v1/completions", json=body(200, seed=seed)) for seed in range(count))
        return await asyncio.gather(*asked)


def test_ten_times_too_many(server: Server) -> None:
    """Each is answered in full or told to retry, probes still work, and nothing is left behind."""
    before = metrics(server)
    answers = asyncio.run(crowd(server, 10 * TAKEN))
    statuses = Counter(answer.status_code for answer in answers)
    assert statuses.keys() == {200, 429}
    assert statuses[200] >= TAKEN
    for answer in answers:
        if answer.status_code == 429:
            assert answer.json()["error"]["code"] == "queue_full"
            assert float(answer.headers["retry-after"]) > 0
        else:
            assert answer.json()["usage"]["completion_tokens"] == 200
    rejected = "tokenformer_rejected_requests_total/queue_full"
    assert metrics(server)[rejected] - before.get(rejected, 0) == statuses[429]
    wait_for(lambda: idle(server))
    first = resident(server)
    for _ in range(3):
        asyncio.run(crowd(server, 10 * TAKEN))
    wait_for(lambda: idle(server))
    assert resident(server) - first < 32 << 20


def test_probes_of_a_server_that_is_full(server: Server) -> None:
    """Its four running answers wait for nobody, so it stays ready, although it accepts no more."""
    streams = [Stream(server, 3000) for _ in range(SEQUENCES)]
    waiting = [connect(server) for _ in range(TAKEN - SEQUENCES)]
    for client in waiting:
        client.sendall(request(10))
    refused: list[httpx.Response] = []

    def full() -> bool:
        refused.append(httpx.post(f"{server.url}/v1/completions", json=body(1), timeout=60))
        return refused[-1].status_code == 429

    wait_for(full)
    assert [status(server, path) for path in ("/livez", "/readyz", "/health", "/metrics")] == [200] * 4
    assert all(stream.is_alive() for stream in streams), "too short to show anything"
    for client in waiting:
        client.close()
    for stream in streams:
        stream.join(120)
        assert stream.done
    assert len({stream.text() for stream in streams}) == 1  # greedy, and the same whatever came meanwhile


def test_a_prompt_list_counts_as_its_prompts(server: Server) -> None:
    stream = Stream(server, 3000)
    several = body(1, prompt=["Hi"] * 4, n=2, temperature=1)
    refused = httpx.post(f"{server.url}/v1/completions", json=several)
    assert stream.is_alive(), "too short to show anything"
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "queue_full")
    stream.join(60)
    assert len(httpx.post(f"{server.url}/v1/completions", json=several).json()["choices"]) == TAKEN
    refused = httpx.post(f"{server.url}/v1/completions", json=several | {"n": 3})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "too_many_sequences")


TOOL = {"name": "look", "parameters": {"type": "object", "properties": {}}}
WITH_TOOLS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {
        "messages": [{"role": "user", "content": "Hi"}],
        "tools": [{"type": "function", "function": TOOL}],
    },
    "/v1/responses": {"input": "Hi", "tools": [{"type": "function", **TOOL}]},
}
NAMED = {
    "/v1/chat/completions": {"type": "function", "function": {"name": "look"}},
    "/v1/responses": {"type": "function", "name": "look"},
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("choice", [None, "auto", "required", "named"])
@pytest.mark.parametrize("path", WITH_TOOLS)
def test_a_call_that_no_parser_would_read_is_refused(
    server: Server, path: str, choice: str | None, stream: bool
) -> None:
    chosen = {"tool_choice": NAMED[path] if choice == "named" else choice} if choice else {}
    asked = {"model": NAME, "stream": stream} | WITH_TOOLS[path] | chosen
    answer = httpx.post(server.url + path, json=asked)
    assert answer.status_code == 400, answer.text[:300]
    assert "--tool-call-parser" in answer.json()["error"]["message"]


@pytest.mark.parametrize("path", WITH_TOOLS)
def test_tools_that_are_not_to_be_called_need_no_parser(server: Server, path: str) -> None:
    limit = {"max_output_tokens": 4} if path == "/v1/responses" else {"max_tokens": 4}
    asked = {"model": NAME, "tool_choice": "none"} | WITH_TOOLS[path] | limit
    assert httpx.post(server.url + path, json=asked).status_code == 200
