"""Assertions about every server over several ranks: golden answers, sums in its metrics, the effect of a dead rank."""

from __future__ import annotations

import threading
import time

import httpx
import psutil
from openai import OpenAI
from prometheus_client.parser import text_string_to_metric_families

from tests.support.golden_cases import PROMPT_TOKENS, GoldenCase, load_case
from tests.support.golden_server import assert_greedy_answer_is_golden
from tests.support.servers import Server

CASE = "01_base_l2gelu"
FLAGS = ["--served-model-name", CASE, "--kv-cache-memory-bytes", 64 << 20, "--shutdown-timeout", 5]
STREAMS = 4
"""Enough for every engine to get one."""

ASKED = 6
"""Requests, each of two prompts and over a connection of its own, which the kernel gives to any of several API
processes."""


def case() -> GoldenCase:
    return load_case(CASE)


def assert_every_answer_is_golden_and_counted(server: Server) -> None:
    golden = case()
    prompts = len(golden.io["greedy_ids"])
    before = counts(server)
    for _ in range(ASKED):
        with OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, http_client=server.http()) as client:
            assert_greedy_answer_is_golden(golden, client)
    after = counts(server)
    growth = {name: after[name] - before[name] for name in after}
    assert growth.pop("vllm:request_success") >= ASKED * prompts  # it counts the probes of /readyz as well
    assert growth == {
        "tokenformer_request_seconds": ASKED,
        "tokenformer_tokens": ASKED * prompts * (golden.io["greedy_ids"].shape[1] - PROMPT_TOKENS),
    }


def counts(server: Server) -> dict[str, float]:
    """Counters of requests and answered tokens, summed over all their labels, engines among them."""
    sums = dict.fromkeys(("vllm:request_success", "tokenformer_request_seconds", "tokenformer_tokens"), 0.0)
    with server.http() as client:
        text = client.get("/metrics").text
    for family in text_string_to_metric_families(text):
        if family.name in sums:
            counted = (sample for sample in family.samples if sample.name.endswith(("_total", "_count")))
            sums[family.name] = sum(sample.value for sample in counted)
    return sums


def epistemic(server: Server) -> list[float] | None:
    """Every token's epistemic uncertainty in a greedy answer, in nats; None where the model reports none."""
    prompt = case().io["greedy_ids"][0, :PROMPT_TOKENS].tolist()
    body = {"model": CASE, "prompt": prompt, "max_tokens": 4, "temperature": 0, "logprobs": 0}
    with server.http() as client:
        answer = client.post("/v1/completions", json=body).raise_for_status().json()
    found: list[float] | None = answer["choices"][0]["logprobs"].get("epistemic")
    return found


def rank_process(server: Server, title: str) -> psutil.Process:
    """The process that vLLM calls `VLLM::`title."""
    for process in psutil.Process(server.process.pid).children(recursive=True):
        try:
            if (process.cmdline() or [""])[0] == f"VLLM::{title}":
                return process
        except psutil.NoSuchProcess:  # a short one of a start
            continue
    raise AssertionError(f"no process is called VLLM::{title}")


class Asked(threading.Thread):
    """A stream that is asked for in the background."""

    def __init__(self, server: Server) -> None:
        super().__init__(daemon=True)
        self.server, self.text = server, ""
        self.start()

    def run(self) -> None:
        body = {"model": CASE, "prompt": [1, 2, 3], "max_tokens": 32, "ignore_eos": True, "stream": True}
        try:
            with self.server.http() as client, client.stream("POST", "/v1/completions", json=body) as response:
                self.text = "".join(response.iter_text())
        except httpx.TransportError as error:
            self.text = repr(error)


def assert_dies_of(server: Server, rank: psutil.Process) -> None:
    """Streams of which one waits for a rank when that is killed end with a result or in an error event, and the server
    by itself."""
    rank.suspend()
    streams = [Asked(server) for _ in range(STREAMS)]
    time.sleep(2)  # until a request waits for the rank, which no metric shows before a step has ended
    rank.kill()
    for stream in streams:
        stream.join(60)
    texts = [stream.text.replace(" ", "") for stream in streams]
    cut_off = ['"code":"internal_server_error"' in text for text in texts]
    assert any(cut_off), texts
    assert all(cut or "data:[DONE]" in text for cut, text in zip(cut_off, texts, strict=True)), texts
    assert server.process.wait(60) == 1
    assert server.tail().splitlines()[-1].startswith("tokenformer: error: the engine process died")
