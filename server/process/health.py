"""Liveness and readiness: `/livez` and `/readyz`. `/health` is vLLM's own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from http import HTTPStatus
from itertools import count

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from vllm.engine.protocol import EngineClient
from vllm.inputs import tokens_input
from vllm.sampling_params import SamplingParams

from server import metrics
from server.gate.admission import AdmissionControl

FRESH_SECONDS = 1.0
"""A token that the only engine made this recently, for any request, proves as much as a probe. So probes cost a loaded
server nothing, and an idle one at most a token a second. Of several engines each is asked: a token of one says nothing
about another, and vLLM does not notice the death of an engine on another machine."""

PROBE = SamplingParams(temperature=0, max_tokens=1, detokenize=False)


class Health:
    """The state behind the probes. `last_output` returns the time of the engine's last token, in monotonic seconds."""

    def __init__(
        self,
        engine: EngineClient,
        admission: AdmissionControl,
        last_output: Callable[[], float],
        timeout: float,
        engines: int = 1,
    ) -> None:
        """`timeout`: seconds after which an engine that makes no token is not ready. `engines`: those of data
        parallelism that this process can ask."""
        self.engine, self.admission, self.last_output, self.timeout = engine, admission, last_output, timeout
        self.engines = engines
        self.probe: asyncio.Task[None] | None = None
        self.numbers = count()

    async def unready_reason(self) -> str | None:
        """None if the model answers and new requests are taken on."""
        reason = self._known() or await self._probed()
        metrics.READY.set(reason is None)
        if self.engine.errored:
            metrics.ENGINE_UP.set(0)  # a client that reads the reason may read the gauge at once
        return reason

    def _known(self) -> str | None:
        if self.engine.errored:
            return "the engine has died"
        return "the server is shutting down" if self.admission.draining else None

    async def _probed(self) -> str | None:
        """Have every engine make one token, unless the only one just made one. Concurrent probes share it."""
        if self.engines == 1 and time.monotonic() - self.last_output() < FRESH_SECONDS:
            return None
        if self.probe is None or self.probe.done():
            self.probe = asyncio.create_task(self._make_tokens())
        try:
            await asyncio.shield(self.probe)
        except TimeoutError:
            return f"{'the' if self.engines == 1 else 'an'} engine made no token within {self.timeout:g} s"
        except Exception:  # in any case there was no token
            return self._known() or "the engine failed to make a token"
        return self._known()

    async def _make_tokens(self) -> None:
        async with asyncio.timeout(self.timeout), asyncio.TaskGroup() as group:
            for rank in range(self.engines):
                group.create_task(self._make_token(rank))

    async def _make_token(self, rank: int) -> None:
        name = f"readyz-{next(self.numbers)}"
        async for _ in self.engine.generate(tokens_input([0]), PROBE, name, data_parallel_rank=rank):
            pass


router = APIRouter(tags=["health"])


@router.get("/livez", response_class=JSONResponse)
async def livez() -> Response:
    """Whether the process answers at all: always 200. Restart it when this fails."""
    return JSONResponse({"status": "alive"})


@router.get("/readyz", response_class=JSONResponse, responses={503: {"description": "Not ready, and why."}})
async def readyz(raw_request: Request) -> Response:
    """Whether the model answers and new requests are taken on: 200, or 503 with the reason. Send requests elsewhere
    until then."""
    health: Health = raw_request.app.state.health
    reason = await health.unready_reason()
    if reason is None:
        return JSONResponse({"status": "ready"})
    body = {"status": "not ready", "reason": reason}
    return JSONResponse(body, HTTPStatus.SERVICE_UNAVAILABLE, headers={"Retry-After": "1"})
