"""Admission control from a request's JSON, before anything is rendered or tokenised.

A refusal costs next to nothing, so accepted requests keep their latency under any load.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http import HTTPStatus

from starlette.datastructures import MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from vllm.config import VllmConfig
from vllm.engine.protocol import EngineClient
from vllm.exceptions import GracefulHTTPError

from server import metrics
from server.gate.context import CONTEXT, entered
from server.gate.errors import openai_error
from server.gate.weight import Shape, Weight, weigh

QUEUE_PER_SLOT = 2
"""Default of --max-num-queued-reqs, per sequence that the engine can run at once: one runs and one waits."""

QUEUED_TOKENS = 1 << 17
"""Default of --max-num-queued-tokens: prompt tokens that may wait for their prefill."""

MAX_CELLS, CELLS_AT_ONCE = 1 << 17, 1 << 20
"""Numbers about tokens that one answer may hold, and all running answers together. Each takes about 90 bytes of the
answer, and 700 bytes of memory while it is made."""

MAX_RESCORED = 1 << 18
"""Tokens that ensemble members may run through the model, for one request and for all running ones together."""

OVERLOAD_RETRY_SECONDS = 1
UNAVAILABLE_RETRY_SECONDS = 5


class Ticket:
    """An admitted request, with its share that has not reached the engine yet."""

    def __init__(self, control: AdmissionControl, weight: Weight) -> None:
        self.control, self.weight, self.sequences, self.tokens = control, weight, weight.sequences, weight.tokens
        control.tickets += 1
        self._count(1)

    def _count(self, sign: int) -> None:
        self.control.sequences += sign * self.sequences
        self.control.tokens += sign * self.tokens
        self.control.cells += sign * self.weight.cells
        self.control.rescored += sign * self.weight.rescored

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Gives the place to others until the request is known to be valid. Raises TurnedAway if none is free then."""
        self._count(-1)
        weight, self.weight = self.weight, Weight()
        sequences, self.sequences = self.sequences, 0
        tokens, self.tokens = self.tokens, 0
        yield
        if (refusal := self.control.refusal(weight)) is not None:
            raise TurnedAway(refusal)
        self.weight, self.sequences, self.tokens = weight, sequences, tokens
        self._count(1)

    def reached_engine(self, tokens: int) -> None:
        """One sequence is now counted by the engine, with its `tokens` prompt tokens."""
        self._take(min(1, self.sequences), min(tokens, self.tokens) if self.sequences > 1 else self.tokens)

    def close(self) -> None:
        """The request has been answered."""
        self._count(-1)
        self.control.tickets -= 1

    def _take(self, sequences: int, tokens: int) -> None:
        self.sequences -= sequences
        self.tokens -= tokens
        self.control.sequences -= sequences
        self.control.tokens -= tokens


@dataclass(frozen=True)
class Refusal:
    """A refused request; `code` is for programs, and the metric's reason."""

    status: HTTPStatus
    code: str
    message: str
    retry_after: int | None = None
    """Seconds; None where a retry cannot succeed."""
    param: str | None = None


class TurnedAway(GracefulHTTPError):
    """The refusal of a request that had been admitted."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message, refusal.status)
        metrics.REJECTED_REQUESTS.labels(refusal.code).inc()


class AdmissionControl:
    """The admitted work of one API process, and whether there is room for more."""

    def __init__(self, engine: EngineClient, config: VllmConfig, args: Namespace) -> None:
        self.engine = engine
        self.shape = Shape.of(config.model_config, config.cache_config.block_size)
        slots = config.scheduler_config.max_num_seqs * config.parallel_config.data_parallel_size
        processes = args.api_server_count or 1
        queued, tokens = args.queue_limits
        self.max_sequences = -(-(QUEUE_PER_SLOT * slots if queued is None else queued) // processes)
        self.max_tokens = -(-(QUEUED_TOKENS if tokens is None else tokens) // processes)
        self.tickets = self.sequences = self.tokens = 0
        """Unanswered requests, and their sequences and tokens that the engine does not count yet."""
        self.cells = self.rescored = 0
        """Sums over unanswered requests."""
        self.draining = False

    def unfinished(self) -> int:
        """Admitted sequences that are not finished."""
        return self.sequences + int(self.engine.get_num_unfinished_requests())  # type: ignore[attr-defined]

    def queued_sequences(self) -> int:
        """Sequences without a token: before the engine, waiting in it, or in prefill."""
        running = self.engine.output_processor.request_states.values()  # type: ignore[attr-defined]
        return self.sequences + sum(bool(state.is_prefilling) for state in running)

    def queued_tokens(self) -> int:
        """Prompt tokens of the queued sequences."""
        return self.tokens + int(self.engine.get_num_queued_tokens())  # type: ignore[attr-defined]

    def refusal(self, weight: Weight) -> Refusal | None:
        """Why a request of this weight is refused now; None if it is admitted."""
        if self.engine.errored:
            message = "The engine has died; the server is about to end."
            return Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "engine_dead", message, UNAVAILABLE_RETRY_SECONDS)
        if self.draining:
            message = "The server is shutting down and takes no new requests."
            return Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "draining", message, UNAVAILABLE_RETRY_SECONDS)
        if (too_much := self._excess(weight)) is not None:
            return too_much
        if self.unfinished() + weight.sequences > self.max_sequences:
            message = f"The server already has as many sequences as it takes on ({self.max_sequences})."
            return Refusal(HTTPStatus.TOO_MANY_REQUESTS, "queue_full", message, OVERLOAD_RETRY_SECONDS)
        queued = self.queued_tokens()
        if queued and queued + weight.tokens > self.max_tokens:  # one that is too large for the queue may go alone
            message = f"Too many prompt tokens wait already: about {queued} of {self.max_tokens}."
            return Refusal(HTTPStatus.TOO_MANY_REQUESTS, "tokens_full", message, OVERLOAD_RETRY_SECONDS)
        if self.cells and weight.cells and self.cells + weight.cells > CELLS_AT_ONCE:
            message = "The answers under way already show as many logprobs as this server takes on."
            return Refusal(HTTPStatus.TOO_MANY_REQUESTS, "logprobs_full", message, OVERLOAD_RETRY_SECONDS)
        if self.rescored and weight.rescored and self.rescored + weight.rescored > MAX_RESCORED:
            message = "Other ensembles are under way; come again when they have ended."
            return Refusal(HTTPStatus.TOO_MANY_REQUESTS, "ensembles_full", message, OVERLOAD_RETRY_SECONDS)
        return None

    def _excess(self, weight: Weight) -> Refusal | None:
        """Why a request of this weight is never admitted."""
        if weight.sequences > self.max_sequences:
            message = (
                f"`{weight.multiplied_by}` makes {weight.sequences} sequences of the request; this server takes on "
                f"{self.max_sequences} at once."
            )
            return Refusal(HTTPStatus.BAD_REQUEST, "too_many_sequences", message, param=weight.multiplied_by)
        if weight.sequences == 1:  # a single sequence is never too large
            return None
        if weight.cells > MAX_CELLS:
            message = (
                f"The answer would show about {weight.cells:,} numbers: sequences, times tokens, times what "
                f"`{weight.shown_by}` shows of each. This server shows {MAX_CELLS:,}."
            )
            return Refusal(HTTPStatus.BAD_REQUEST, "answer_too_large", message, param=weight.shown_by)
        if weight.rescored > MAX_RESCORED:
            message = (
                f"`uncertainty.ensemble` would run about {weight.rescored:,} tokens through the model: its members, "
                f"times the tokens of all answers. This server runs {MAX_RESCORED:,}."
            )
            return Refusal(HTTPStatus.BAD_REQUEST, "ensemble_too_large", message, param="uncertainty")
        return None


def answer(refusal: Refusal) -> JSONResponse:
    """The client's answer. A server that admits nothing more closes the connection, too."""
    kinds = {
        HTTPStatus.BAD_REQUEST: "invalid_request_error",
        HTTPStatus.TOO_MANY_REQUESTS: "rate_limit_error",
        HTTPStatus.SERVICE_UNAVAILABLE: "service_unavailable_error",
    }
    headers = {} if refusal.retry_after is None else {"Retry-After": str(refusal.retry_after)}
    if refusal.status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Connection"] = "close"
    kind = kinds[refusal.status]
    return openai_error(
        refusal.status, refusal.message, code=refusal.code, type=kind, param=refusal.param, headers=headers
    )


class Admission:
    """Admits a request, or answers 429 or 503 with `Retry-After`. Every POST counts as work until it has ended."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        control: AdmissionControl = scope["app"].state.admission
        weight = weigh(scope.get("state", {}).get("json"), control.shape)
        refusal = control.refusal(weight)
        if refusal is not None:
            metrics.REJECTED_REQUESTS.labels(refusal.code).inc()
            await answer(refusal)(scope, receive, send)
            return
        ticket = Ticket(control, weight)

        async def send_with_time(message: Message) -> None:
            """Later refusals have a `Retry-After` as well."""
            if message["type"] == "http.response.start" and message["status"] == HTTPStatus.TOO_MANY_REQUESTS:
                MutableHeaders(scope=message).setdefault("Retry-After", str(OVERLOAD_RETRY_SECONDS))
            await send(message)

        try:
            with entered(replace(CONTEXT.get(), ticket=ticket)):
                await self.app(scope, receive, send_with_time)
        finally:
            ticket.close()
