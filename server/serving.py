"""vLLM's chat and completion serving classes, with token statistics and a summary for every choice.

vLLM builds these objects with some twenty settings each; `app` specialises the finished objects, so the classes
here only override and never construct.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from fastapi import Request
from pydantic import PrivateAttr
from vllm.entrypoints.generate.base.serving import GenerateBaseServing
from vllm.entrypoints.openai.chat_completion.protocol import (
    ChatCompletionLogProbs,
    ChatCompletionLogProbsContent,
    ChatCompletionRequest,
    ChatCompletionResponse,
)
from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat
from vllm.entrypoints.openai.completion.protocol import CompletionLogProbs, CompletionRequest, CompletionResponse
from vllm.entrypoints.openai.completion.serving import OpenAIServingCompletion
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.lora.request import LoRARequest
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import SamplingParams

from model_impl.uncertainty import STATISTICS
from server import metrics
from server.calibration import Calibration
from server.engine import TokenReader, scored
from server.ensemble import ScoredAnswer
from server.models import VariantModels
from server.schemas import (
    ScoredChatChoice,
    ScoredChatCompletionResponse,
    ScoredCompletionChoice,
    ScoredCompletionResponse,
    Uncertainty,
    UncertaintyOptions,
    recast,
)
from server.scoring import ChoiceScore, EnsembleScore, shares
from server.tasks import together


@dataclass
class RunningChoice:
    """A choice while the engine's outputs of it pass by."""

    reader: TokenReader
    prompt: Sequence[int]
    adapter: LoRARequest | None
    score: ChoiceScore = field(default_factory=ChoiceScore)
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    ensemble: EnsembleScore | None = None

    def spans_text(self) -> str | None:
        """The text in which the tokens lie where the reader says. Not so only under beam search, which decodes its
        answers in another way, with tokenizers that put blanks between tokens."""
        return self.text if self.reader.text.startswith(self.text) else None


class RequestScores:
    """The scores of one request's choices, fed with the engine's outputs as they pass by."""

    def __init__(
        self,
        request: ChatCompletionRequest | CompletionRequest,
        model_name: str,
        models: Any,
        tokenizer: Any,
        *,
        generated: bool = True,
    ) -> None:
        """`generated`: whether the metrics count these tokens and answers, which are of what the model said."""
        self.generated = generated
        options = getattr(request, "uncertainty", False)
        self.wanted = options is not False
        # A mere echo: vLLM generates one token all the same and keeps it to itself.
        self.nothing_shown = request.max_tokens == 0
        self.options = options if isinstance(options, UncertaintyOptions) else UncertaintyOptions()
        self.model_name, self.models, self.tokenizer = model_name, models, tokenizer
        self.shown = SamplingParams(
            skip_special_tokens=request.skip_special_tokens,
            spaces_between_special_tokens=request.spaces_between_special_tokens,
            include_stop_str_in_output=request.include_stop_str_in_output,
        )
        self.cache_salt, self.priority = request.cache_salt, request.priority
        self.calibration: Calibration | None = None
        self.choices: dict[int, RunningChoice] = {}
        self.finished: set[int] = set()

    def add(self, result: RequestOutput, first_index: int = 0, echoed: str = "") -> None:
        """New tokens of the choices from `first_index` on, whose texts begin with `echoed`."""
        segments = self.models.segments(result.lora_request)
        self.calibration = self.models.calibration(result.lora_request)
        for output in result.outputs:
            index = first_index + output.index
            if index not in self.choices:
                reader = TokenReader(self.tokenizer, result.prompt_token_ids, self.shown, echoed)
                prompt = result.prompt_token_ids or ()
                self.choices[index] = RunningChoice(reader, prompt, result.lora_request, text=echoed)
            if not self.nothing_shown:
                self._add(self.choices[index], output, segments)
            if output.finish_reason is not None:
                self.finished.add(index)

    def _add(self, choice: RunningChoice, output: CompletionOutput, segments: Mapping[int, str]) -> None:
        """New tokens of a choice; the output's logprobs cover exactly the new tokens."""
        choice.text += output.text
        choice.token_ids += output.token_ids
        # A stop token ends the answer without being part of it; a stop string is cut out of the text.
        by_token = output.finish_reason == "stop" and not isinstance(output.stop_reason, str)
        last = len(output.token_ids) - 1 if by_token else None
        for i, (token_id, position) in enumerate(zip(output.token_ids, output.logprobs or (), strict=False)):
            entry = scored(position)
            found = entry.provenance if entry else None
            provenance = {name: found[number] for number, name in segments.items()} if found and segments else None
            token = choice.reader.read(token_id, position, provenance, stopped=i == last)
            if entry and token:
                choice.score.add(token)
                entry.growth = shares(provenance) if provenance and self.options.internals else None
                if self.generated:
                    metrics.observe_token(self.model_name, token.entropy, token.variance)

    async def rescore(self, index: int) -> None:
        """Ask the ensemble about choice `index`, once it is complete, if the request wants it."""
        choice, members = self.choices[index], self.options.ensemble
        if members is not None:
            answer = ScoredAnswer(choice.prompt, choice.token_ids, choice.adapter, self.cache_salt, self.priority)
            choice.ensemble = await self.models.ensemble.score(answer, members)

    async def rescore_all(self) -> None:
        await together(map(self.rescore, self.choices))

    def label(self, index: int, entries: Sequence[ChatCompletionLogProbsContent]) -> None:
        """Give each token of choice `index` what the ensemble says of it."""
        if (found := self.choices[index].ensemble) is not None:
            for entry, epistemic, aleatoric in zip(entries, found.epistemic, found.aleatoric, strict=True):
                setattr(entry, "epistemic", epistemic)  # noqa: B010 - extra fields, which the type lacks
                setattr(entry, "aleatoric", aleatoric)  # noqa: B010

    def summary(self, index: int) -> Uncertainty:
        """What the answer says of choice `index`, once it is complete; it is counted in the metrics."""
        abstain_above, choice = self.options.abstain_above, self.choices[index]
        text = choice.spans_text() if self.options.spans else None
        summary = choice.score.summary(self.calibration, abstain_above, text, choice.ensemble)
        if self.generated and self.calibration is not None and summary.risk is not None:
            own = (self.calibration.abstain or {}).get("above")
            metrics.observe_answer(self.model_name, summary.risk, own if abstain_above is None else abstain_above)
        return summary

    async def complete(self, chunk: str) -> str:
        """A server-sent event with the summary of the choices that it finishes; other events pass unchanged."""
        if not self.finished or not chunk.startswith("data: {"):
            return chunk
        event = json.loads(chunk.removeprefix("data: "))
        for choice in event.get("choices", ()):
            if choice.get("finish_reason") is not None and choice["index"] in self.finished:
                self.finished.discard(choice["index"])
                await self.rescore(choice["index"])
                choice["uncertainty"] = self.summary(choice["index"]).model_dump()
        return f"data: {json.dumps(event, ensure_ascii=False, separators=(',', ':'))}\n\n"


async def observe(results: AsyncIterator[Any], note: Callable[[Any], None]) -> AsyncGenerator[Any, None]:
    async for result in results:
        note(result)
        yield result


async def completed(
    chunks: AsyncGenerator[str, None], scores: RequestScores, serving: GenerateBaseServing
) -> AsyncGenerator[str, None]:
    """A stream with the summaries in it. It ends with an error event, as vLLM's do, if an ensemble fails."""
    try:
        async for chunk in chunks:
            yield await scores.complete(chunk)
    except Exception as error:
        yield f"data: {serving.create_streaming_error_response(error)}\n\n"
        yield "data: [DONE]\n\n"


def refusal(request: Any, serving: GenerateBaseServing) -> ErrorResponse | None:
    """Why a request cannot have the ensemble that it asks for."""
    options = getattr(request, "uncertainty", False)
    wanted = isinstance(options, UncertaintyOptions) and options.ensemble is not None
    reason = cast(VariantModels, serving.models).ensemble.unavailable if wanted else None
    return serving.create_error_response(reason, param="uncertainty") if reason else None


class ScoredChat(OpenAIServingChat):
    async def render_chat_request(self, request: ChatCompletionRequest) -> Any:
        return refusal(request, self) or await super().render_chat_request(request)

    async def chat_completion_stream_generator(
        self,
        request: ChatCompletionRequest,
        result_generator: AsyncIterator[RequestOutput],
        request_id: str,
        model_name: str,
        *args: Any,
        **kwargs: Any,
    ) -> AsyncGenerator[str, None]:
        scores = RequestScores(request, model_name, self.models, self.renderer.tokenizer)
        if scores.wanted:
            result_generator = observe(result_generator, scores.add)
        chunks = super().chat_completion_stream_generator(
            request, result_generator, request_id, model_name, *args, **kwargs
        )
        async for chunk in completed(chunks, scores, self):
            yield chunk

    async def chat_completion_full_generator(
        self,
        request: ChatCompletionRequest,
        result_generator: AsyncIterator[RequestOutput],
        request_id: str,
        model_name: str,
        *args: Any,
        **kwargs: Any,
    ) -> ErrorResponse | ChatCompletionResponse:
        scores = RequestScores(request, model_name, self.models, self.renderer.tokenizer)
        if scores.wanted:
            result_generator = observe(result_generator, scores.add)
        response = await super().chat_completion_full_generator(
            request, result_generator, request_id, model_name, *args, **kwargs
        )
        if not scores.wanted or isinstance(response, ErrorResponse):
            return response
        await scores.rescore_all()
        for choice in response.choices:
            if choice.logprobs is not None:
                scores.label(choice.index, choice.logprobs.content or ())
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


def echoed(request: CompletionRequest, prompt: str | None) -> str:
    """What vLLM puts in front of a choice's text: no prompt where its token ids are returned."""
    return prompt or "" if request.echo and not request.return_token_ids else ""


class UnscoredCompletionResponse(CompletionResponse):
    """A response that waits for its scores, as vLLM's method that makes responses cannot wait."""

    _scores: RequestScores = PrivateAttr()

    async def scored(self) -> ScoredCompletionResponse:
        await self._scores.rescore_all()
        choices = []
        for choice in self.choices:
            found = self._scores.choices[choice.index].ensemble
            if found is not None and choice.logprobs is not None:
                echoed = len(choice.logprobs.tokens) - len(found.epistemic)
                for name in ("epistemic", "aleatoric"):
                    setattr(choice.logprobs, name, [None] * echoed + getattr(found, name))
            choices.append(recast(ScoredCompletionChoice, choice, uncertainty=self._scores.summary(choice.index)))
        return recast(ScoredCompletionResponse, self, choices=choices)


class ScoredCompletion(OpenAIServingCompletion):
    async def render_completion_request(self, request: CompletionRequest) -> Any:
        return refusal(request, self) or await super().render_completion_request(request)

    async def create_completion(
        self, request: CompletionRequest, raw_request: Request | None = None
    ) -> AsyncGenerator[str, None] | CompletionResponse | ErrorResponse:
        response = await super().create_completion(request, raw_request)
        if isinstance(response, UnscoredCompletionResponse):
            return await response.scored()
        return response

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
        scores = RequestScores(request, model_name, self.models, self.renderer.tokenizer)
        if scores.wanted:

            def add(pair: tuple[int, RequestOutput]) -> None:
                i, result = pair
                prompt = self._extract_prompt_text(engine_inputs[i]) if result.prompt is None else result.prompt
                scores.add(result, i * (request.n or 1), echoed(request, prompt))

            result_generator = observe(result_generator, add)
        chunks = super().completion_stream_generator(
            request, engine_inputs, result_generator, request_id, created_time, model_name, *args, **kwargs
        )
        async for chunk in completed(chunks, scores, self):
            yield chunk

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
        scores = RequestScores(request, model_name, self.models, self.renderer.tokenizer)
        if scores.wanted:
            for i, result in enumerate(final_res_batch):
                scores.add(result, i * (request.n or 1), echoed(request, result.prompt))
        response = super().request_output_to_completion_response(
            final_res_batch, request, request_id, created_time, model_name, *args, **kwargs
        )
        if not scores.wanted:
            return response
        unscored = recast(UnscoredCompletionResponse, response)
        unscored._scores = scores
        return unscored

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
