"""The end of the server: what a signal or a dead engine does to running requests."""

from __future__ import annotations

import asyncio
import errno
import os
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

from starlette.datastructures import State
from vllm.entrypoints.serve.engine.protocol import ModelCard
from vllm.exceptions import GracefulHTTPError
from vllm.v1.engine.async_llm import AsyncLLM

from server import metrics
from server.engine.models import ScoredModels
from server.engine.statistics import end_all
from server.gate.admission import AdmissionControl
from server.system.child_process import END, IGNORED, failures, is_protected, told_cause
from server.system.stderr import say

WATCH_SECONDS = 0.1
READY_SECONDS = 15.0
"""Greatest age of `tokenformer_ready` where nobody asks /readyz: Prometheus scrapes as often by default."""

LINGER_SECONDS = 5.0
"""Time for which a server reports to probes and scrapes that its engine has died."""

DELIVERY_SECONDS = 3.0
"""Time for clients to read the error events of streams that are cut off."""


@dataclass
class Outcome:
    """How a server ended: `failure` is one line for its supervisor, None after a clean shutdown."""

    failure: str | None = None


class Lifecycle:
    """Runs in the server's event loop from its first answer until uvicorn may close."""

    def __init__(self, engine: AsyncLLM, state: State, args: Namespace, admission: AdmissionControl) -> None:
        self.engine, self.state, self.args, self.admission = engine, state, args, admission
        self.outcome: Outcome = args.outcome
        self.told, self.told_again = asyncio.Event(), asyncio.Event()

    async def run(self) -> None:
        while not (hasattr(self.state, "server") and self.state.server.started):
            await asyncio.sleep(0.02)
        try:
            if self._listens():
                await self._attend()
            else:
                reason = os.strerror(errno.EADDRINUSE)
                self.outcome.failure = f"cannot listen on {self.args.host}:{self.args.port}: {reason}"
        except Exception as error:
            self.outcome.failure = f"the watch over signals and the engine failed: {error!r}"
            raise
        finally:
            if is_protected() and self.outcome.failure:
                failures.append(self.outcome.failure)
            self.state.server.config.timeout_graceful_shutdown = DELIVERY_SECONDS
            self.state.server.should_exit = True

    def _listens(self) -> bool:
        """Whether every socket of the server listens. Two servers may bind one address before either listens. uvloop
        then raises nothing in the second, but drops its socket."""
        return all(socket for server in self.state.server.servers for socket in server.sockets)

    async def _attend(self) -> None:
        self._handle_signals()
        await self.state.health.unready_reason()  # sets `tokenformer_ready`
        if self.engine.engine_core.client_index == 0:  # the first of several API processes speaks for all
            await announce(self.state.openai_serving_models, self.args)
        while not (self.told.is_set() or self.engine.errored):
            await self._wait(lambda: self.told.is_set() or self.engine.errored, READY_SECONDS)
            await self.state.health.unready_reason()
        if self.told.is_set():
            await self._drain()
        if self.engine.errored:
            await self._linger()

    def _handle_signals(self) -> None:
        """Replace vLLM's handlers, which shut the engine down first."""
        loop = asyncio.get_running_loop()
        if is_protected():  # one of several API processes
            loop.add_signal_handler(END, self._signal)
        for number in IGNORED:
            loop.add_signal_handler(number, (lambda: None) if is_protected() else self._signal)
        if self.args.early_signals is not None:
            self.args.early_signals.stop()

    def _signal(self) -> None:
        (self.told_again if self.told.is_set() else self.told).set()

    async def _wait(self, over: Callable[[], bool], seconds: float) -> None:
        """Wait until `over`, at most `seconds`, and keep the gauges of the queue current."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while not over() and loop.time() < deadline:
            metrics.QUEUED_REQUESTS.set(self.admission.queued_sequences())
            metrics.QUEUED_TOKENS.set(self.admission.queued_tokens())
            await asyncio.sleep(WATCH_SECONDS)

    async def _drain(self) -> None:
        """Let running requests finish. The end of the grace period, or a second signal, cuts them off."""
        grace = self.engine.vllm_config.shutdown_timeout
        self.admission.draining = True
        metrics.DRAINING.set(1)
        metrics.READY.set(0)
        say(f"shutting down; {self.admission.tickets} running requests have {grace} s, and none after a second signal")
        await self._wait(
            lambda: not self.admission.tickets or self.told_again.is_set() or self.engine.errored,
            grace,
        )
        if (left := self.admission.tickets) and not self.engine.errored:
            await end_all(
                self.engine, GracefulHTTPError("The server is shutting down.", HTTPStatus.SERVICE_UNAVAILABLE)
            )
            await self._wait(lambda: not self.admission.tickets, DELIVERY_SECONDS)
            self.outcome.failure = f"{left} requests were cut off by the shutdown"

    async def _linger(self) -> None:
        """Stay for a moment to report the dead engine. vLLM has sent the streams their error events."""
        metrics.ENGINE_UP.set(0)
        metrics.READY.set(0)
        cause = told_cause()
        self.outcome.failure = f"the engine process died: {cause}" if cause else "the engine process died"
        await self._wait(self.told.is_set, LINGER_SECONDS)


async def announce(models: ScoredModels, args: Namespace) -> None:
    """Tell what is served, where, and how it ends."""
    name = models.base_model_paths[0].name
    host = "127.0.0.1" if args.host in (None, "", "0.0.0.0", "::") else args.host
    url = f"http{'s' if args.ssl_certfile else ''}://{f'[{host}]' if ':' in host else host}:{args.port}"
    say(f"{name} is ready at {args.uds or f'{url}, with a playground at {url}/playground'}")
    say("it serves " + ", ".join(map(described, (await models.show_available_models()).data)))
    say(f"Ctrl-C or SIGTERM ends it; running requests then have {args.shutdown_timeout} s")


def described(card: ModelCard) -> str:
    """A card of `/v1/models`, with its growth stage and calibration."""
    stage = card.growth_stage and f"stage {card.growth_stage}"  # type: ignore[attr-defined]
    made = card.calibration  # type: ignore[attr-defined]
    calibration = f"calibrated by {made['name']}" if made else "not calibrated"
    return f"{card.id} ({', '.join(filter(None, (stage, calibration)))})"
