"""A server that turns requests away for a while, by the real gate, and then answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import uvicorn
from fastapi import FastAPI

from server.gate.admission import Admission, Refusal
from server.gate.weight import Shape, Weight
from tests.support.ports import free_ports

RETRY_AFTER = 2
"""Seconds; longer than the clients wait by themselves before their first retry, 0.5 s at most."""

ANSWER: dict[str, Any] = {
    "id": "x",
    "object": "chat.completion",
    "created": 0,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "at last"}, "finish_reason": "stop"}],
}


@dataclass
class Overload:
    """Replaces `AdmissionControl`: refuses as often as it is told to, whatever the load."""

    status: HTTPStatus
    refusals: int
    url: str
    asked: list[float] = field(default_factory=list)
    """When, on a monotonic clock."""
    shape = Shape(longest=1)
    tickets = sequences = tokens = cells = rescored = 0

    def refusal(self, weight: Weight) -> Refusal | None:
        self.asked.append(time.monotonic())
        if len(self.asked) > self.refusals:
            return None
        return Refusal(self.status, "queue_full", "Come again later.", RETRY_AFTER)

    def waited(self) -> float:
        """Seconds between the first two requests."""
        return self.asked[1] - self.asked[0]


@contextmanager
def overloaded(status: HTTPStatus, refusals: int = 1) -> Iterator[Overload]:
    """A server in this process, for as long as the block."""
    (port,) = free_ports(1)
    overload = Overload(status, refusals, f"http://127.0.0.1:{port}/v1")
    app = FastAPI()
    app.state.admission = overload
    app.add_middleware(Admission)

    @app.post("/v1/chat/completions")
    async def answer() -> dict[str, Any]:
        return ANSWER

    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="critical"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)  # between two looks at a thread that starts
        yield overload
    finally:
        server.should_exit = True
        thread.join()
