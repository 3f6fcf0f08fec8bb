"""The common base of chats and completions: checks of a request, and the scores of its answer.

vLLM builds its serving objects with some twenty settings each. `override_class` puts our classes on the finished
objects, so they override methods and have no constructors.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from functools import partial
from http import HTTPStatus
from typing import Any, cast

from vllm.entrypoints.generate.base.serving import GenerateBaseServing
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.outputs import RequestOutput

from server.api.aside import LONG_ANSWER
from server.api.beam_search import BeamSearch, check_beams
from server.api.policy import HeldStream, policy_of, policy_problem
from server.api.request_scores import RequestScores
from server.engine.client import TokenformerClient
from server.engine.models import ScoredModels
from server.gate.context import CONTEXT
from server.gate.errors import reshaped
from server.requests.schemas import UncertaintyOptions


def refusal(request: Any, serving: GenerateBaseServing) -> ErrorResponse | None:
    """Why the model cannot serve what the request asks for: alternatives, beams or an ensemble."""
    options, models = getattr(request, "uncertainty", False), cast(ScoredModels, serving.models)
    shown, most = getattr(request, "top_logprobs", None) or 0, serving.model_config.max_logprobs
    if most != -1 and not 0 <= shown <= most:  # the engine would blame `logprobs`, which a chat does not have
        return serving.create_error_response(f"`top_logprobs` must be 0 to {most}.", param="top_logprobs")
    if request.use_beam_search:
        check_beams(request, serving.model_config)
    if not isinstance(options, UncertaintyOptions):
        return None
    reason = models.ensemble.unavailable if options.ensemble is not None else None
    if reason is not None:
        return serving.create_error_response(reason, param="uncertainty")
    problem = policy_problem(request, models, models.lora_requests.get(request.model))
    return serving.create_error_response(problem, param="uncertainty.on_doubt") if problem else None


def constraint_of(request: ChatCompletionRequest | CompletionRequest) -> str | None:
    """The parameter by which the client constrains the form of the answer."""
    return next((name for name in ("structured_outputs", "response_format") if getattr(request, name)), None)


async def observe(results: AsyncIterator[Any], note: Callable[[Any], None]) -> AsyncGenerator[Any, None]:
    """Pass results on, each after `note` has seen it."""
    async for result in results:
        noting = partial(note, result)
        if isinstance(result, RequestOutput) and sum(len(output.token_ids) for output in result.outputs) > LONG_ANSWER:
            await asyncio.to_thread(noting)
        else:
            noting()
        yield result


async def summarised(chunks: AsyncGenerator[str, None], scores: RequestScores) -> AsyncGenerator[str, None]:
    """The chunks with the summaries in them."""
    async for chunk in chunks:
        told = (scores.finished or scores.may_call) and chunk.startswith("data: {")
        yield await scores.complete(chunk) if told else chunk


async def withheld(chunks: AsyncGenerator[str, None], scores: RequestScores) -> AsyncGenerator[str, None]:
    """The same, without what is doubted."""
    held = HeldStream(scores.policy, scores.is_doubted)
    async for chunk in chunks:
        if chunk.startswith("data: {"):
            for sent in held.take(await scores.complete(chunk)):
                yield sent
            continue
        if (refused := scores.refusal()) is not None:
            if (record := CONTEXT.get().record) is not None:
                record.failed = True
            yield refused.event()
        yield chunk


class ScoredServing(BeamSearch):
    """The base of both serving classes."""

    def scores(self, request: Any, model_name: str, *, generated: bool = True) -> RequestScores:
        models = cast(ScoredModels, self.models)
        told = generated and getattr(request, "uncertainty", False) is not False
        policy = policy_of(request, models, self._maybe_get_adapters(request)) if told else None
        tokenizer = self.renderer.tokenizer
        return RequestScores(request, model_name, models, tokenizer, generated=generated, policy=policy)

    async def check_grammar(self, request: ChatCompletionRequest | CompletionRequest, parameter: str | None) -> None:
        """Raises VLLMValidationError, naming `parameter`, for a grammar that is not possible."""
        await cast(TokenformerClient, self.engine_client).check_grammar(request, parameter)

    async def scored_stream(
        self, chunks: AsyncGenerator[str, None], scores: RequestScores
    ) -> AsyncGenerator[str, None]:
        """The chunks with the summaries in them. An ensemble that fails ends them with an error event, as in vLLM."""
        try:
            async for chunk in withheld(chunks, scores) if scores.policy.withholds else summarised(chunks, scores):
                yield chunk
        except Exception as error:
            yield f"data: {self.create_streaming_error_response(error)}\n\n"
            yield "data: [DONE]\n\n"
        finally:
            scores.close()

    def create_streaming_error_response(self, *args: Any, **kwargs: Any) -> str:
        """Also records that the stream has failed, which the engine does not see, and gives the event the shape that
        the gate gives to plain answers."""
        if (record := CONTEXT.get().record) is not None:
            record.failed = True
        event = json.loads(super().create_streaming_error_response(*args, **kwargs))
        shaped = reshaped(HTTPStatus(event["error"]["code"]), event, {})
        return json.dumps(event) if shaped is None else bytes(shaped.body).decode()
