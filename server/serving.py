"""vLLM's chat and completion serving classes, with token statistics and a summary for every choice.

vLLM builds these objects with some twenty settings each; `app` specialises the finished objects, so the classes
here only override and never construct.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
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
from vllm.sampling_params import SamplingParams

from model_impl.uncertainty import STATISTICS
from server import metrics
from server.calibration import Calibration
from server.engine import TokenReader, scored
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


@dataclass
class RunningChoice:
    """A choice while the engine's outputs of it pass by."""

    reader: TokenReader
    score: ChoiceScore = field(default_factory=ChoiceScore)
    text: str = ""

    def spans_text(self) -> str | None:
        """The text in which the tokens lie where the reader says. Not so only under beam search, which decodes its
        answers in another way, with tokenizers that put blanks between tokens."""
        return self.text if self.reader.text.startswith(self.text) else None


class RequestScores:
    """The scores of one request's choices, fed with the engine's outputs as they pass by."""

    def __init__(
        self, request: ChatCompletionRequest | CompletionRequest, model_name: str, models: Any, tokenizer: Any
    ) -> None:
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
                self.choices[index] = RunningChoice(reader, text=echoed)
            if not self.nothing_shown:
                self._add(self.choices[index], output, segments)
            if output.finish_reason is not None:
                self.finished.add(index)

    def _add(self, choice: RunningChoice, output: CompletionOutput, segments: Mapping[int, str]) -> None:
        """New tokens of a choice; the output's logprobs cover exactly the new tokens."""
        choice.text += output.text
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
                metrics.observe_token(self.model_name, token.entropy, token.variance)

    def summary(self, index: int) -> Uncertainty:
        """What the answer says of choice `index`, once it is complete; it is counted in the metrics."""
        abstain_above, choice = self.options.abstain_above, self.choices[index]
        text = choice.spans_text() if self.options.spans else None
        summary = choice.score.summary(self.calibration, abstain_above, text)
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
        scores = RequestScores(request, model_name, self.models, self.renderer.tokenizer)
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
        scores = RequestScores(request, model_name, self.models, self.renderer.tokenizer)
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


def echoed(request: CompletionRequest, prompt: str | None) -> str:
    """What vLLM puts in front of a choice's text: no prompt where its token ids are returned."""
    return prompt or "" if request.echo and not request.return_token_ids else ""


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
        scores = RequestScores(request, model_name, self.models, self.renderer.tokenizer)
        if scores.wanted:
            for i, result in enumerate(final_res_batch):
                scores.add(result, i * (request.n or 1), echoed(request, result.prompt))
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
