"""How much work a server takes on: decided from a request's JSON, before anything is rendered or tokenised.

What is turned away costs next to nothing, so what was accepted keeps its latency however many ask.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from vllm.config import VllmConfig
from vllm.engine.protocol import EngineClient

from server import metrics
from server.errors import openai_error
from server.limits import MAX_CHOICES, MAX_SEQUENCES

CHARACTERS_PER_TOKEN = 4
"""OpenAI's rule of thumb for English; token ids are counted exactly, and no prompt as longer than the model allows."""

QUEUE_PER_SLOT = 2
"""Sequences taken on per sequence that the engine can run at once, where --max-num-queued-reqs says nothing: every
running one may have one that waits for it."""

QUEUED_TOKENS = 1 << 17
"""Prompt tokens that may wait for their prefill, where --max-num-queued-tokens says nothing."""

OVERLOAD_RETRY_SECONDS = 1
UNAVAILABLE_RETRY_SECONDS = 5


@dataclass(frozen=True)
class Weight:
    """What a request asks of the engine."""

    sequences: int = 1
    tokens: int = 0
    """Of the prompts, over all sequences; an estimate."""


def weigh(body: object, longest: int) -> Weight:
    """The work in a request's JSON, of whatever route; `longest` is the model's limit on one prompt, in tokens.

    Fields of a wrong type weigh nothing, nor does what no route takes: the route will refuse them.
    """
    if not isinstance(body, Mapping):
        return Weight()
    prompts = list(_prompts(body))
    copies = max([1, *(body[name] for name in ("n", "best_of") if isinstance(body.get(name), int))])
    listed = len(prompts) if isinstance(body.get("prompt"), list) else 1
    if copies > MAX_CHOICES or copies * listed > MAX_SEQUENCES:
        return Weight()
    tokens = sum(min(_tokens(prompt), longest) for prompt in prompts)
    return Weight(copies * max(len(prompts), 1), copies * tokens)


def _prompts(body: Mapping[str, Any]) -> Iterator[object]:
    """What is prefilled: each prompt of a list, and each given text together with the prompt that it goes on from."""
    asked = next((body[name] for name in ("prompt", "messages", "input") if body.get(name) is not None), None)
    if isinstance(body.get("completion"), list):
        yield from ([asked, text] for text in body["completion"])
    elif isinstance(asked, list) and asked and all(isinstance(part, str | list) for part in asked):
        yield from asked
    elif asked is not None:
        yield [asked, body.get("completion")]


def _tokens(prompt: object) -> int:
    if isinstance(prompt, str):
        return len(prompt) // CHARACTERS_PER_TOKEN + 1
    if isinstance(prompt, int):
        return 1
    if isinstance(prompt, Mapping):
        return sum(map(_tokens, prompt.values()))
    return sum(map(_tokens, prompt)) if isinstance(prompt, list) else 0


class Ticket:
    """An admitted request: what of it has not reached the engine yet."""

    def __init__(self, control: AdmissionControl, weight: Weight) -> None:
        self.control, self.sequences, self.tokens = control, weight.sequences, weight.tokens
        control.tickets += 1
        control.sequences += self.sequences
        control.tokens += self.tokens

    def reached_engine(self, tokens: int) -> None:
        """One sequence is now counted by the engine, with its `tokens` prompt tokens."""
        self._take(min(1, self.sequences), min(tokens, self.tokens) if self.sequences > 1 else self.tokens)

    def close(self) -> None:
        """The request has ended, and been answered."""
        self._take(self.sequences, self.tokens)
        self.control.tickets -= 1

    def _take(self, sequences: int, tokens: int) -> None:
        self.sequences -= sequences
        self.tokens -= tokens
        self.control.sequences -= sequences
        self.control.tokens -= tokens


TICKET: ContextVar[Ticket | None] = ContextVar("ticket", default=None)
"""Of the request that the running code belongs to."""


@dataclass(frozen=True)
class Refusal:
    """Why a request is turned away: `code` for programs, which is also the metric's reason."""

    status: HTTPStatus
    code: str
    message: str
    retry_after: int | None = None
    """Seconds; None where it is no use to come again."""


class AdmissionControl:
    """What one API process has taken on, and whether it takes more."""

    def __init__(self, engine: EngineClient, config: VllmConfig, args: Namespace) -> None:
        self.engine = engine
        self.longest = config.model_config.max_model_len
        slots = config.scheduler_config.max_num_seqs * config.parallel_config.data_parallel_size
        processes = args.api_server_count or 1
        queued, tokens = getattr(args, "queue_limits", (None, None))
        self.max_sequences = -(-(QUEUE_PER_SLOT * slots if queued is None else queued) // processes)
        self.max_tokens = -(-(QUEUED_TOKENS if tokens is None else tokens) // processes)
        self.tickets = self.sequences = self.tokens = 0
        """Requests that are not answered yet; and of their sequences those that the engine does not count yet."""
        self.draining = False

    def unfinished(self) -> int:
        """Sequences that have been taken on and not been finished."""
        return self.sequences + int(self.engine.get_num_unfinished_requests())  # type: ignore[attr-defined]

    def queued_sequences(self) -> int:
        """Sequences that have no token yet: on their way to the engine, waiting there, or in prefill."""
        running = self.engine.output_processor.request_states.values()  # type: ignore[attr-defined]
        return self.sequences + sum(bool(state.is_prefilling) for state in running)

    def queued_tokens(self) -> int:
        """Prompt tokens of sequences that have no token yet."""
        return self.tokens + int(self.engine.get_num_queued_tokens())  # type: ignore[attr-defined]

    def refusal(self, weight: Weight) -> Refusal | None:
        """Why a request of this weight is not taken on now; None if it is."""
        if self.engine.errored:
            message = "The engine has died; the server is about to end."
            return Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "engine_dead", message, UNAVAILABLE_RETRY_SECONDS)
        if self.draining:
            message = "The server is shutting down and takes no new requests."
            return Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "draining", message, UNAVAILABLE_RETRY_SECONDS)
        if weight.sequences > self.max_sequences:
            message = f"`n` times the prompts is {weight.sequences}; this server takes on {self.max_sequences} at once."
            return Refusal(HTTPStatus.BAD_REQUEST, "too_many_sequences", message)
        if self.unfinished() + weight.sequences > self.max_sequences:
            message = f"The server already has as many sequences as it takes on ({self.max_sequences})."
            return Refusal(HTTPStatus.TOO_MANY_REQUESTS, "queue_full", message, OVERLOAD_RETRY_SECONDS)
        queued = self.queued_tokens()
        if queued and queued + weight.tokens > self.max_tokens:  # one that is too large for the queue may go alone
            message = f"Too many prompt tokens wait already: about {queued} of {self.max_tokens}."
            return Refusal(HTTPStatus.TOO_MANY_REQUESTS, "tokens_full", message, OVERLOAD_RETRY_SECONDS)
        return None


def answer(refusal: Refusal) -> JSONResponse:
    """What the client is told. A server that takes nothing more does not keep the connection either."""
    kinds = {
        HTTPStatus.BAD_REQUEST: "invalid_request_error",
        HTTPStatus.TOO_MANY_REQUESTS: "rate_limit_error",
        HTTPStatus.SERVICE_UNAVAILABLE: "service_unavailable_error",
    }
    headers = {} if refusal.retry_after is None else {"Retry-After": str(refusal.retry_after)}
    if refusal.status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Connection"] = "close"
    param = "n" if refusal.status == HTTPStatus.BAD_REQUEST else None
    kind = kinds[refusal.status]
    return openai_error(refusal.status, refusal.message, code=refusal.code, type=kind, param=param, headers=headers)


class Admission:
    """Lets a request in, or answers 429 or 503 with `Retry-After`. Every POST is work until it has ended."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        control: AdmissionControl = scope["app"].state.admission
        weight = weigh(scope.get("state", {}).get("json"), control.longest)
        refusal = control.refusal(weight)
        if refusal is not None:
            metrics.REJECTED_REQUESTS.labels(refusal.code).inc()
            await answer(refusal)(scope, receive, send)
            return
        ticket = Ticket(control, weight)
        token = TICKET.set(ticket)
        try:
            await self.app(scope, receive, send)
        finally:
            TICKET.reset(token)
            ticket.close()
