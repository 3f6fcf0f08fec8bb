"""vLLM's chat and completion serving classes, with token statistics and a summary for every choice.

vLLM builds these objects with some twenty settings each; `app` specialises the finished objects, so the classes
here only override and never construct.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from vllm.entrypoints.openai.chat_completion.protocol import (
    ChatCompletionLogProbs,
    ChatCompletionRequest,
    ChatCompletionResponse,
)
from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat
from vllm.entrypoints.openai.completion.protocol import CompletionLogProbs, CompletionRequest, CompletionResponse
from vllm.entrypoints.openai.completion.serving import OpenAIServingCompletion
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.outputs import CompletionOutput, RequestOutput

from model_impl.uncertainty import STATISTICS
from server import metrics
from server.calibration import Calibration
from server.engine import scored
from server.schemas import (
    ScoredChatChoice,
    ScoredChatCompletionResponse,
    ScoredCompletionChoice,
    ScoredCompletionResponse,
    Uncertainty,
    UncertaintyOptions,
    recast,
)
from server.scoring import ChoiceScore, shares


class RequestScores:
    """The scores of one request's choices, fed with the engine's outputs as they pass by."""

    def __init__(self, request: ChatCompletionRequest | CompletionRequest, model_name: str, models: Any) -> None:
        options = getattr(request, "uncertainty", False)
        self.wanted = options is not False
        # A mere echo: vLLM generates one token all the same and keeps it to itself.
        self.nothing_shown = request.max_tokens == 0
        self.options = options if isinstance(options, UncertaintyOptions) else UncertaintyOptions()
        self.model_name, self.models = model_name, models
        self.calibration: Calibration | None = None
        self.choices: dict[int, ChoiceScore] = {}
        self.finished: set[int] = set()

    def add(self, result: RequestOutput, first_index: int = 0) -> None:
        """New tokens of the choices from `first_index` on."""
        segments = self.models.segments(result.lora_request)
        self.calibration = self.models.calibration(result.lora_request)
        for output in result.outputs:
            self._add(first_index + output.index, output, segments)

    def _add(self, index: int, output: CompletionOutput, segments: Mapping[int, str]) -> None:
        """New tokens of choice `index`; the output's logprobs cover exactly the new tokens."""
        score = self.choices.setdefault(index, ChoiceScore())
        token_ids = () if self.nothing_shown else output.token_ids
        for token_id, position in zip(token_ids, output.logprobs or (), strict=False):
            entry = scored(position)
            if position and entry:
                found = entry.provenance
                provenance = {name: found[i] for i, name in segments.items()} if found and segments else None
                score.add(position[token_id].logprob, entry.entropy, entry.variance, entry.margin, provenance)
                entry.growth = shares(provenance) if provenance and self.options.internals else None
                metrics.observe_token(self.model_name, entry.entropy, entry.variance)
        if output.finish_reason is not None:
            self.finished.add(index)

    def summary(self, index: int) -> Uncertainty:
        """What the answer says of choice `index`, once it is complete; it is counted in the metrics."""
        abstain_above = self.options.abstain_above
        summary = self.choices[index].summary(self.calibration, abstain_above)
        if self.calibration is not None and summary.risk is not None:
            own = (self.calibration.abstain or {}).get("above")
            metrics.observe_answer(self.model_name, summary.risk, own if abstain_above is None else abstain_above)
        return summary

    def complete(self, chunk: str) -> str:
        """A server-sent event with the summary of the choices that it finishes; other events pass unchanged."""
        if not self.finished or not chunk.startswith("data: {"):
            return chunk
        event = json.loads(chunk.removeprefix("data: "))
        for choice in event.get("choices", ()):
            if choice.get("finish_reason") is not None and choice["index"] in self.finished:
                self.finished.discard(choice["index"])
                choice["uncertainty"] = self.summary(choice["index"]).model_dump()
        return f"data: {json.dumps(event, ensure_ascii=False, separators=(',', ':'))}\n\n"


async def observe(results: AsyncIterator[Any], note: Callable[[Any], None]) -> AsyncGenerator[Any, None]:
    async for result in results:
        note(result)
        yield result


class ScoredChat(OpenAIServingChat):
    async def chat_completion_stream_generator(
        self,
        request: ChatCompletionRequest,
        result_generator: AsyncIterator[RequestOutput],
        request_id: str,
        model_name: str,
        *args: Any,
        **kwargs: Any,
    ) -> AsyncGenerator[str, None]:
        scores = RequestScores(request, model_name, self.models)
        if scores.wanted:
            result_generator = observe(result_generator, scores.add)
        chunks = super().chat_completion_stream_generator(
            request, result_generator, request_id, model_name, *args, **kwargs
        )
        async for chunk in chunks:
            yield scores.complete(chunk)

    async def chat_completion_full_generator(
        self,
        request: ChatCompletionRequest,
        result_generator: AsyncIterator[RequestOutput],
        request_id: str,
        model_name: str,
        *args: Any,
        **kwargs: Any,
    ) -> ErrorResponse | ChatCompletionResponse:
        scores = RequestScores(request, model_name, self.models)
        if scores.wanted:
            result_generator = observe(result_generator, scores.add)
        response = await super().chat_completion_full_generator(
            request, result_generator, request_id, model_name, *args, **kwargs
        )
        if not scores.wanted or isinstance(response, ErrorResponse):
            return response
        choices = [
            recast(ScoredChatChoice, choice, uncertainty=scores.summary(choice.index)) for choice in response.choices
        ]
        return recast(ScoredChatCompletionResponse, response, choices=choices)

    def _create_chat_logprobs(
        self, token_ids: Sequence[int], top_logprobs: Sequence[Any], *args: Any, **kwargs: Any
    ) -> ChatCompletionLogProbs:
        logprobs = super()._create_chat_logprobs(token_ids, top_logprobs, *args, **kwargs)
        for token_id, entry, position in zip(token_ids, logprobs.content or (), top_logprobs, strict=False):
            if found := scored(position):
                for name in STATISTICS:
                    setattr(entry, name, getattr(found, name))
                if found.growth is not None:
                    setattr(entry, "growth", found.growth)  # noqa: B010 - as below
                setattr(entry, "rank", position[token_id].rank)  # noqa: B010 - an extra field, which the type lacks
        return logprobs


class ScoredCompletion(OpenAIServingCompletion):
    async def completion_stream_generator(
        self,
        request: CompletionRequest,
        engine_inputs: Any,
        result_generator: AsyncIterator[tuple[int, RequestOutput]],
        request_id: str,
        created_time: int,
        model_name: str,
        *args: Any,
        **kwargs: Any,
    ) -> AsyncGenerator[str, None]:
        scores = RequestScores(request, model_name, self.models)
        if scores.wanted:
            choices = request.n or 1
            result_generator = observe(result_generator, lambda pair: scores.add(pair[1], pair[0] * choices))
        chunks = super().completion_stream_generator(
            request, engine_inputs, result_generator, request_id, created_time, model_name, *args, **kwargs
        )
        async for chunk in chunks:
            yield scores.complete(chunk)

    def request_output_to_completion_response(
        self,
        final_res_batch: list[RequestOutput],
        request: CompletionRequest,
        request_id: str,
        created_time: int,
        model_name: str,
        *args: Any,
        **kwargs: Any,
    ) -> CompletionResponse:
        scores = RequestScores(request, model_name, self.models)
        if scores.wanted:
            for i, result in enumerate(final_res_batch):
                scores.add(result, i * (request.n or 1))
        response = super().request_output_to_completion_response(
            final_res_batch, request, request_id, created_time, model_name, *args, **kwargs
        )
        if not scores.wanted:
            return response
        choices = [
            recast(ScoredCompletionChoice, choice, uncertainty=scores.summary(choice.index))
            for choice in response.choices
        ]
        return recast(ScoredCompletionResponse, response, choices=choices)

    def _create_completion_logprobs(
        self, token_ids: Sequence[int], top_logprobs: Sequence[Any], *args: Any, **kwargs: Any
    ) -> CompletionLogProbs:
        logprobs = super()._create_completion_logprobs(token_ids, top_logprobs, *args, **kwargs)
        entries = [scored(position) for position in top_logprobs[: len(token_ids)]]
        if any(entries):
            for name in STATISTICS:
                setattr(logprobs, name, [getattr(entry, name, None) for entry in entries])
            positions = zip(token_ids, top_logprobs, strict=False)
            ranks = [position[token_id].rank if position else None for token_id, position in positions]
            setattr(logprobs, "rank", ranks)  # noqa: B010 - an extra field, which the type lacks
            if any(entry and entry.growth for entry in entries):
                setattr(logprobs, "growth", [entry and entry.growth for entry in entries])  # noqa: B010
        return logprobs
