"""A server with the real playground that answers from a script, for cases that no real model can be made to produce."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from argparse import Namespace
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum, auto
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from vllm.entrypoints.serve.middleware.authenticate import AuthenticationMiddleware

from server.clients.playground.routes import router
from server.gate.auth import Authentication
from server.gate.keys import ApiKeys
from tests.support.demo_server import DEMO
from tests.support.ports import free_ports

CALIBRATION = {"name": "iso-1", "abstain": {"error_rate": 0.1, "above": 0.6}}
CARDS: list[dict[str, Any]] = [
    {
        "id": "m",
        "growth_stage": "news",
        "parameter_tokens": {"query": 10, "ffn": 30},
        "calibration": CALIBRATION,
        "max_model_len": 100,
    },
    {
        "id": "m:base",
        "parent": "m",
        "growth_stage": "base",
        "parameter_tokens": {"query": 8, "ffn": 24},
        "calibration": None,
        "max_model_len": None,
    },
]

Chunk = Mapping[str, Any]


class Break(Enum):
    """The ways in which a stream fails to end."""

    LOST = auto()  # in the middle of the body
    ENDED = auto()  # in good order, but without saying that it is all
    FULL = auto()  # refused, unless the question is the whole conversation


def token(text: str, entropy: float = 0.0, raw: bytes | None = None, **more: Any) -> dict[str, Any]:
    """As a chunk's logprobs hold it; `raw` where the token is not the whole of its characters."""
    data = text.encode() if raw is None else raw
    return {"token": text, "bytes": list(data), "logprob": -0.5, "top_logprobs": [], "entropy": entropy} | {
        "variance": 2 * entropy,
        "rank": 1,
        "margin": 0.5,
        **more,
    }


def chunk(content: str, tokens: Sequence[Chunk] = (), **choice: Any) -> Chunk:
    logprobs = {"content": list(tokens)} if tokens else None
    return {"choices": [{"index": 0, "delta": {"content": content}, "logprobs": logprobs, **choice}]}


def words(*tokens: Chunk) -> list[Chunk]:
    """One chunk for each token."""
    return [chunk(token["token"], [token]) for token in tokens]


def summary(**changes: Any) -> dict[str, Any]:
    numbers = ("mean_entropy", "max_entropy", "first_token_entropy", "worst_window_entropy", "mean_variance")
    defaults = dict.fromkeys(numbers, 0.5) | {"min_logprob": -0.5, "standardised_surprisal": 0.0, "tokens": 3}
    none = dict.fromkeys(("risk", "calibration", "abstain", "growth", "spans"))
    reason = None if "risk" in changes else "no_calibration"
    return {**defaults, **none, "reason": reason, "calibrated": False, "unit": "nat", **changes}


def usage(total: int) -> Chunk:
    return {"choices": [], "usage": {"prompt_tokens": total - 3, "completion_tokens": 3, "total_tokens": total}}


def last(**changes: Any) -> Chunk:
    return chunk("", finish_reason="stop", uncertainty=summary(**changes))


Step = Chunk | float | Break
"""A chunk, seconds of silence, or the end of the connection."""

Script = Mapping[str, Sequence[Step]]
"""Question -> the parts of its answer."""


def app(script: Script, api_key: str | None = None, gate: bool = False) -> FastAPI:
    made = FastAPI()
    made.include_router(router)
    made.state.args = Namespace(api_keys=ApiKeys.of([api_key or ""]), isolate_keys=False, model=str(DEMO))
    if api_key and gate:
        made.add_middleware(Authentication)
    elif api_key:
        made.add_middleware(AuthenticationMiddleware, tokens=[api_key])

    @made.get("/v1/models")
    async def models() -> Any:
        return {"object": "list", "data": [card | {"object": "model", "created": 0, "owned_by": ""} for card in CARDS]}

    @made.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        messages = (await request.json())["messages"]
        question = messages[-1]["content"]
        if question not in script:
            return refused(f"I cannot answer {question}", "invalid_value")
        steps = script[question]
        if steps[:1] == [Break.FULL]:
            if len(messages) > 1:
                return refused("The conversation is too long", "context_length_exceeded")
            steps = steps[1:]
        return StreamingResponse(events(steps), media_type="text/event-stream")

    return made


def refused(message: str, code: str) -> JSONResponse:
    error = {"message": message, "type": "invalid_request_error", "param": "messages", "code": code}
    return JSONResponse({"error": error}, status_code=400)


async def events(script: Sequence[Step]) -> AsyncIterator[str]:
    for step in script:
        if step is Break.LOST:
            raise ConnectionError("as the script says")
        if step is Break.ENDED:
            return
        if isinstance(step, float):
            await asyncio.sleep(step)
        else:
            frame = {"id": "x", "object": "chat.completion.chunk", "created": 0, "model": "m"}
            yield f"data: {json.dumps(frame | dict(step))}\n\n"
    yield "data: [DONE]\n\n"


@contextmanager
def scripted(script: Script, api_key: str | None = None, gate: bool = False) -> Iterator[str]:
    """The address of a server that runs in this process for as long as the block.

    With `gate` the page needs the key, too, as under `tokenformer serve`; without, as under vLLM's own, the API only.
    """
    (port,) = free_ports(1)
    config = uvicorn.Config(app(script, api_key, gate), port=port, log_level="critical")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)  # between two looks at a thread that starts
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        server.force_exit = True
        thread.join()
