"""HTTP responses of the serving classes' results. Unlike in vLLM's routes, models become JSON directly."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel
from vllm.entrypoints.openai.chat_completion.api_router import ENDPOINT_LOAD_METRICS_FORMAT_HEADER_LABEL
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.entrypoints.serve.utils.orca_metrics import metrics_header
from vllm.entrypoints.serve.utils.sse_keep_alive import with_sse_keep_alive


class ModelResponse(JSONResponse):
    def render(self, content: BaseModel) -> bytes:
        """NaN and infinities, which JSON lacks, become null."""
        choices: Sequence[Any] = getattr(content, "choices", ())
        if not any(getattr(choice, "logprobs", None) for choice in choices):
            return content.model_dump_json().encode()
        # One choice at a time: other threads run in between.
        shown = ",".join(choice.model_dump_json() for choice in choices)
        return f'{content.model_dump_json(exclude={"choices"})[:-1]},"choices":[{shown}]}}'.encode()


async def answer(found: BaseModel | AsyncGenerator[str, None], raw_request: Request) -> Response:
    """The response for an error, a whole answer, or a stream of events."""
    if isinstance(found, ErrorResponse):
        return ModelResponse(found, status_code=found.error.code)
    if isinstance(found, BaseModel):
        load = raw_request.headers.get(ENDPOINT_LOAD_METRICS_FORMAT_HEADER_LABEL, "")
        return await asyncio.to_thread(ModelResponse, found, headers=metrics_header(load))
    seconds = float(raw_request.app.state.args.sse_keep_alive_interval)
    return StreamingResponse(with_sse_keep_alive(found, seconds), media_type="text/event-stream")
