"""A server whose answers last as long as a test needs, and helpers for tests of faults."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from tests.support.bytes_model import write_bytes_model
from tests.support.servers import Server

NAME = "lasting"
POSITIONS = 16_384
FLAGS = ["--served-model-name", NAME, "--kv-cache-memory-bytes", 128 << 20]
PATIENCE = 60
"""The limit in seconds, on a busy machine, of work that should take one or two."""


def checkpoint(path: Path) -> Path:
    """A random model that continues to `POSITIONS` tokens if told to ignore the end."""
    write_bytes_model(path, max_position_embeddings=POSITIONS)
    return path


def body(tokens: int, **options: Any) -> dict[str, Any]:
    return {"model": NAME, "prompt": "Hi", "max_tokens": tokens, "temperature": 0, "ignore_eos": True} | options


class Stream(threading.Thread):
    """A streamed completion of `tokens` tokens that is read in the background."""

    def __init__(self, server: Server, tokens: int, **options: Any) -> None:
        super().__init__(daemon=True)
        self.url, self.body = f"{server.url}/v1/completions", body(tokens, stream=True, **options)
        self.events: list[Any] = []
        self.done = False
        """Whether the stream said that it was complete."""
        self.start()
        wait_for(lambda: self.events or not self.is_alive())
        assert self.status == 200

    def run(self) -> None:
        with httpx.stream("POST", self.url, json=self.body, timeout=300) as response:
            self.status = response.status_code
            for line in response.iter_lines():
                if line == "data: [DONE]":
                    self.done = True
                elif line.startswith("data: "):
                    self.events.append(json.loads(line.removeprefix("data: ")))

    def finish_reason(self) -> str | None:
        """The finish reason of its one choice."""
        reasons = [choice["finish_reason"] for event in self.events for choice in event.get("choices", ())]
        return reasons[-1] if reasons else None

    def text(self) -> str:
        return "".join(choice["text"] for event in self.events for choice in event.get("choices", ()))

    def errors(self) -> list[Any]:
        return [event["error"] for event in self.events if "error" in event]


def wait_for(true: Callable[[], Any], seconds: float = PATIENCE) -> float:
    """The time until the condition holds; fails if it takes too long."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < seconds, "waited in vain"
        time.sleep(0.02)
    return time.monotonic() - began


def engine_processes(server: Server) -> dict[str, psutil.Process]:
    """`EngineCore` and, where there is one, `Worker`, by name."""
    found = {}
    for process in psutil.Process(server.process.pid).children(recursive=True):
        try:
            title = (process.cmdline() or [""])[0]
        except psutil.NoSuchProcess:  # a short one of a start, such as `lscpu`
            continue
        if title.startswith("VLLM::"):
            found[title.removeprefix("VLLM::").split("_")[0]] = process
    return found


def metrics(server: Server) -> dict[str, float]:
    """Every sample, by name and label values; those of one name are also summed up under it."""
    values: dict[str, float] = {}
    for family in text_string_to_metric_families(httpx.get(f"{server.url}/metrics", timeout=PATIENCE).text):
        for sample in family.samples:
            labels = ",".join(value for name, value in sorted(sample.labels.items()) if name in ("reason",))
            values[sample.name] = values.get(sample.name, 0) + sample.value
            if labels:
                values[f"{sample.name}/{labels}"] = sample.value
    return values


def status(server: Server, path: str) -> int | None:
    """The status; None if nobody answers."""
    try:
        return httpx.get(server.url + path, timeout=PATIENCE).status_code
    except httpx.TransportError:
        return None


def idle(server: Server) -> bool:
    """Whether no request has left anything in the engine, in its KV cache, or on its way there."""
    found = metrics(server)
    names = ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc")
    return not any(found[name] for name in (*names, "tokenformer_queued_requests"))


def lines(server: Server) -> Iterator[str]:
    """The lines that the server itself has written."""
    return (line for line in server.log.read_text().splitlines() if line.startswith("tokenformer:"))
