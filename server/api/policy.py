"""Doubted answers: how their choices are replaced, refused, and held back in streams until their risk is known."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionResponseChoice, ChatMessage
from vllm.entrypoints.openai.completion.protocol import CompletionResponseChoice
from vllm.lora.request import LoRARequest

from server.engine.models import ScoredModels
from server.gate.errors import openai_error
from server.requests.answer_kind import kind_of
from server.requests.schemas import UncertaintyOptions
from server.uncertainty.policy import DoubtPolicy
from server.uncertainty.reason import MEANINGS, NoRisk, unlike

REFUSED = HTTPStatus.UNPROCESSABLE_ENTITY
"""The status of a refused answer. OpenAI's clients repeat no request with it."""

DOUBTED = "doubted_answer"

FILTERED = "content_filter"
"""OpenAI's finish reason of an answer that a policy withholds."""


def never_judged(request: Any, models: ScoredModels, adapter: LoRARequest | None) -> NoRisk | None:
    """Why no answer to the request can have a risk; None if some can."""
    calibration = models.calibration(adapter)
    if calibration is None:
        return uncalibrated(models)
    if calibration.members and models.ensemble.unavailable:
        return "feature_missing"
    return unlike(calibration.population, kind_of(request))


def uncalibrated(models: ScoredModels) -> NoRisk:
    return "other_stage" if models.calibrations else "no_calibration"


def policy_of(request: Any, models: ScoredModels, adapter: LoRARequest | None) -> DoubtPolicy:
    """The policy for the answers to a request, which flags them where no risk or no limit is to be had."""
    options = request.uncertainty
    wishes = (options.on_doubt, options.abstain_above) if isinstance(options, UncertaintyOptions) else (None, None)
    policy = models.doubt.applied(*wishes, models.calibration(adapter))
    judged = policy.above is not None and never_judged(request, models, adapter) is None
    return policy if judged else DoubtPolicy()


def policy_problem(request: Any, models: ScoredModels, adapter: LoRARequest | None) -> str | None:
    """Why the server cannot do what the request's own `on_doubt` asks for; None if it can."""
    options = request.uncertainty
    if not isinstance(options, UncertaintyOptions) or options.on_doubt in (None, "flag"):
        return None
    if (reason := never_judged(request, models, adapter)) is not None:
        return f"`uncertainty.on_doubt` needs a risk, which these answers lack: {MEANINGS[reason]}."
    if models.doubt.applied(options.on_doubt, options.abstain_above, models.calibration(adapter)).above is None:
        return "`uncertainty.on_doubt` needs a limit, which the calibration lacks: give `uncertainty.abstain_above`."
    return None


def replaced_message(choice: ChatCompletionResponseChoice, text: str) -> ChatCompletionResponseChoice:
    """The choice with `text` instead of its message, tool calls, tokens and logprobs."""
    message = ChatMessage(role=choice.message.role, content=text)
    return ChatCompletionResponseChoice(index=choice.index, message=message, finish_reason=FILTERED)


def replaced_text(choice: CompletionResponseChoice, text: str) -> CompletionResponseChoice:
    """The same for a completion, which keeps what is known of its prompt."""
    known = {name: getattr(choice, name) for name in ("prompt_logprobs", "prompt_token_ids")}
    return CompletionResponseChoice(index=choice.index, text=text, finish_reason=FILTERED, **known)


class DoubtedAnswer(Exception):
    """Refused choices; the least of their risks is above the limit."""

    def __init__(self, least_risk: float, limit: float) -> None:
        super().__init__(f"The answer is withheld: the risk that it is wrong is {least_risk:.3f}, above {limit:g}.")

    def response(self) -> JSONResponse:
        return openai_error(REFUSED, str(self), code=DOUBTED, type=DOUBTED)

    def event(self) -> str:
        """The same as an event of a stream."""
        return f"data: {bytes(self.response().body).decode()}\n\n"


def answer_doubted(app: FastAPI) -> None:
    """Answer `DoubtedAnswer` by its error."""

    @app.exception_handler(DoubtedAnswer)
    async def refuse(request: Request, error: DoubtedAnswer) -> JSONResponse:
        return error.response()


class HeldStream:
    """The chunks of a stream, held back until the risk of their choice is known: each choice whole, so at most as many
    tokens as the request allows."""

    def __init__(self, policy: DoubtPolicy, is_doubted: Callable[[int], bool]) -> None:
        """`is_doubted`: whether the complete choice of an index is."""
        self.policy, self.is_doubted = policy, is_doubted
        self.held: dict[int, list[str]] = {}
        """Choice index -> its chunks so far."""
        self.doubted: list[str] = []
        """Replaced choices that wait, under `refuse`, for one that can be trusted."""
        self.trusted = policy.on_doubt != "refuse"

    def take(self, chunk: str) -> list[str]:
        """The chunks to send after this one, which has the summary of a choice that it ends."""
        event = json.loads(chunk.removeprefix("data: "))
        if not event.get("choices"):  # the usage of all, or an error
            return [chunk]
        (choice,) = event["choices"]
        if choice.get("finish_reason") is None:
            if _says_nothing(choice):
                return [chunk]
            self.held.setdefault(choice["index"], []).append(chunk)
            return []
        held = [*self.held.pop(choice["index"], []), chunk]
        if self.is_doubted(choice["index"]):
            held = []
            self.doubted.append(as_event({**event, "choices": [self._replaced(choice)]}))
        else:
            self.trusted = True
        if not self.trusted:
            return []
        sent, self.doubted = [*self.doubted, *held], []
        return sent

    def _replaced(self, choice: Mapping[str, Any]) -> dict[str, Any]:
        said = {"delta": {"content": self.policy.text}} if "delta" in choice else {"text": self.policy.text}
        kept = {"index": choice["index"], "logprobs": None, "finish_reason": FILTERED}
        return kept | said | {"uncertainty": choice["uncertainty"]}


def _says_nothing(choice: Mapping[str, Any]) -> bool:
    """Whether a chunk only opens a message, by its role."""
    delta = choice.get("delta") or {}
    return "role" in delta and not any(value for name, value in delta.items() if name != "role")


def as_event(content: Mapping[str, Any]) -> str:
    """A server-sent event."""
    return f"data: {json.dumps(content, ensure_ascii=False, separators=(',', ':'))}\n\n"
