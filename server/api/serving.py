"""vLLM's chat and completion serving classes, with token statistics and a summary for every choice.

vLLM builds these objects with some twenty settings each; `app` specialises the finished objects, so the classes
here only override and never construct.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from functools import partial
from http import HTTPStatus
from typing import Any, cast

from fastapi import Request
from vllm.entrypoints.generate.base.serving import GenerateBaseServing
from vllm.entrypoints.openai.chat_completion.protocol import (
    ChatCompletionLogProbs,
    ChatCompletionRequest,
    ChatCompletionResponse,
)
from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat
from vllm.entrypoints.openai.completion.protocol import CompletionLogProbs, CompletionRequest, CompletionResponse
from vllm.entrypoints.openai.completion.serving import OpenAIServingCompletion
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.outputs import RequestOutput

from model_impl.kernels.statistics import STATISTICS
from server.api.aside import LONG_ANSWER, built, is_long
from server.api.beam_search import BeamSearch, check_beams, unsupported
from server.api.request_scores import RequestScores
from server.api.unfinished import UnbuiltCompletionResponse, UnscoredCompletionResponse
from server.engine.client import TokenformerClient
from server.engine.statistics import scored
from server.engine.variants import VariantModels
from server.gate.context import RECORD
from server.gate.errors import reshaped
from server.requests.limits import blame_parameter
from server.requests.schemas import (
    ScoredChatCompletionResponse,
    UncertaintyOptions,
    recast,
)
from server.requests.tool_calls import CutOffChoices


async def observe(results: AsyncIterator[Any], note: Callable[[Any], None]) -> AsyncGenerator[Any, None]:
    async for result in results:
        noting = partial(note, result)
        if isinstance(result, RequestOutput) and sum(len(output.token_ids) for output in result.outputs) > LONG_ANSWER:
            await asyncio.to_thread(noting)
        else:
            noting()
        yield result


async def completed(
    chunks: AsyncGenerator[str, None], scores: RequestScores, serving: GenerateBaseServing
) -> AsyncGenerator[str, None]:
    """A stream with the summaries in it. It ends with an error event, as vLLM's do, if an ensemble fails."""
    try:
        async for chunk in chunks:
            yield await scores.complete(chunk) if scores.finished and chunk.startswith("data: {") else chunk
    except Exception as error:
        yield f"data: {serving.create_streaming_error_response(error)}\n\n"
        yield "data: [DONE]\n\n"
    finally:
        scores.close()


def refusal(request: Any, serving: GenerateBaseServing) -> ErrorResponse | None:
    """Why a request cannot have the ensemble, the internals, the alternatives or the beams that it asks for; and a note
    on a request that its model's calibration reads internals."""
    options, models = getattr(request, "uncertainty", False), cast(VariantModels, serving.models)
    calibration = models.calibration(models.lora_requests.get(request.model))
    if options is not False and calibration is not None:
        request._judged_by_internals = calibration.reads_internals and not models.internals_unavailable
    shown, most = getattr(request, "top_logprobs", None) or 0, serving.model_config.max_logprobs
    if most != -1 and not 0 <= shown <= most:  # of chats; to the engine the parameter has another name
        return serving.create_error_response(f"`top_logprobs` must be 0 to {most}.", param="top_logprobs")
    if request.use_beam_search:
        check_beams(request, serving.model_config)
    if not isinstance(options, UncertaintyOptions):
        return None
    no_ensemble = models.ensemble.unavailable if options.ensemble is not None else None
    reason = no_ensemble or (models.internals_unavailable if options.internals else None)
    return serving.create_error_response(reason, param="uncertainty") if reason else None


def constraint_of(request: ChatCompletionRequest | CompletionRequest) -> str | None:
    """The parameter by which a client says what form the answer is to have."""
    return next((name for name in ("structured_outputs", "response_format") if getattr(request, name)), None)


class Recorded(GenerateBaseServing):
    """Writes down that a stream ends with an error event, which the engine does not see."""

    def create_streaming_error_response(self, *args: Any, **kwargs: Any) -> str:
        if (record := RECORD.get()) is not None:
            record.failed = True
        event = json.loads(super().create_streaming_error_response(*args, **kwargs))
        # Which the gate does for answers that are no stream.
        shaped = reshaped(HTTPStatus(event["error"]["code"]), event, {})
        return json.dumps(event) if shaped is None else bytes(shaped.body).decode()


class ScoredChat(Recorded, BeamSearch, OpenAIServingChat):
    async def render_chat_request(self, request: ChatCompletionRequest) -> Any:
        constraint = constraint_of(request) or "tools"  # of which the parser makes one, if it is to be called
        with blame_parameter("messages"):
            rendered = refusal(request, self) or await super().render_chat_request(request)
        if not isinstance(rendered, ErrorResponse):
            await cast(TokenformerClient, self.engine_client).check_grammar(request, constraint)
        elif rendered.error.param is None:  # vLLM's refusal of tools where the server has no parser for them
            rendered.error.param = "tool_choice"
        return rendered

    def chat_completion_stream_generator(
        self,
        request: ChatCompletionRequest,
        result_generator: AsyncIterator[RequestOutput],
        request_id: str,
        model_name: str,
        conversation: list[Any],
        *args: Any,
        **kwargs: Any,
    ) -> AsyncGenerator[str, None]:
        scores = RequestScores(request, model_name, self.models, self.renderer.tokenizer)
        if scores.wanted:
            begun = self._begun(request, conversation)
            result_generator = observe(result_generator, partial(scores.add, echoed=begun))
        chunks = super().chat_completion_stream_generator(
            request, result_generator, request_id, model_name, conversation, *args, **kwargs
        )
        return completed(chunks, scores, self)

    async def chat_completion_full_generator(
        self,
        request: ChatCompletionRequest,
        result_generator: AsyncIterator[RequestOutput],
        request_id: str,
        model_name: str,
        conversation: list[Any],
        *args: Any,
        **kwargs: Any,
    ) -> ErrorResponse | ChatCompletionResponse:
        scores = RequestScores(request, model_name, self.models, self.renderer.tokenizer)
        if scores.wanted:
            begun = self._begun(request, conversation)
            result_generator = observe(result_generator, partial(scores.add, echoed=begun))
        cut_off = CutOffChoices()
        result_generator = observe(result_generator, cut_off.note)
        build = super().chat_completion_full_generator
        response = await built(
            [result_generator],
            lambda results: build(request, results[0], request_id, model_name, conversation, *args, **kwargs),
        )
        cut_off.tell(response)
        if not scores.wanted or isinstance(response, ErrorResponse):
            return response
        await scores.rescore_all()
        for choice in response.choices:
            if choice.logprobs is not None:
                scores.label(choice.index, choice.logprobs.content or ())
            setattr(choice, "uncertainty", scores.summary(choice.index))  # noqa: B010 - as in `_create_chat_logprobs`
        # Their statistics are fields of a subclass, which the type's own response would not show.
        return recast(ScoredChatCompletionResponse, response) if response.prompt_logprobs else response

    def _begun(self, request: ChatCompletionRequest, conversation: list[Any]) -> str:
        """The message that the answer continues, which vLLM puts in front of it under `echo`."""
        last = conversation[-1] if request.echo and conversation else {}
        content = last.get("content") if last.get("role") == self.get_chat_request_role(request) else None
        return "\n".join(part["text"] for part in content) if isinstance(content, list) else content or ""

    def _create_chat_logprobs(
        self, token_ids: Sequence[int], top_logprobs: Sequence[Any], *args: Any, **kwargs: Any
    ) -> ChatCompletionLogProbs:
        logprobs = super()._create_chat_logprobs(token_ids, top_logprobs, *args, **kwargs)
        setattr(logprobs, "refusal", None)  # noqa: B010 - a field that OpenAI's schema requires and the type lacks
        for token_id, entry, position in zip(token_ids, logprobs.content or (), top_logprobs, strict=False):
            if found := scored(position):
                for name in STATISTICS:
                    setattr(entry, name, getattr(found, name))
                for name in ("growth", "internals"):
                    if getattr(found, name) is not None:
                        setattr(entry, name, getattr(found, name))
                setattr(entry, "rank", position[token_id].rank)  # noqa: B010 - an extra field, which the type lacks
        return logprobs


def echoed(request: CompletionRequest, prompt: str | None) -> str:
    """What vLLM puts in front of a choice's text: no prompt where its token ids are returned."""
    return prompt or "" if request.echo and not request.return_token_ids else ""


def discard_generated(result: RequestOutput) -> None:
    """Drop the one token that vLLM generates for a mere echo, which is nobody's answer."""
    for output in result.outputs:
        output.text, output.token_ids, output.logprobs = "", [], None


class ScoredCompletion(Recorded, BeamSearch, OpenAIServingCompletion):
    async def render_completion_request(self, request: CompletionRequest) -> Any:
        if (record := RECORD.get()) is not None:
            record.nothing_shown = request.max_tokens == 0
        with blame_parameter("prompt"):
            rendered = refusal(request, self) or await super().render_completion_request(request)
        if not isinstance(rendered, ErrorResponse):
            await cast(TokenformerClient, self.engine_client).check_grammar(request, constraint_of(request))
        return rendered

    async def create_completion(
        self, request: CompletionRequest, raw_request: Request | None = None
    ) -> AsyncGenerator[str, None] | CompletionResponse | ErrorResponse:
        if request.stream and request.use_beam_search:  # vLLM's own refusal names no parameter
            raise unsupported("stream")
        response = await super().create_completion(request, raw_request)
        if isinstance(response, UnbuiltCompletionResponse):
            response = await asyncio.to_thread(response._build)
        if isinstance(response, UnscoredCompletionResponse):
            return await response.scored()
        return response

    def completion_stream_generator(
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
        prompt_logprobs: dict[int, Any] = {}

        def note(pair: tuple[int, RequestOutput]) -> None:
            i, result = pair
            if request.max_tokens == 0:
                discard_generated(result)
            if scores.wanted:
                prompt = self._extract_prompt_text(engine_inputs[i]) if result.prompt is None else result.prompt
                scores.add(result, i * (request.n or 1), echoed(request, prompt))
            # Only the first result of a prompt is sure to have them, and every choice echoes them.
            result.prompt_logprobs = prompt_logprobs.setdefault(i, result.prompt_logprobs)

        chunks = super().completion_stream_generator(
            request,
            engine_inputs,
            observe(result_generator, note),
            request_id,
            created_time,
            model_name,
            *args,
            **kwargs,
        )
        return completed(chunks, scores, self)

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
        build = partial(self._build, final_res_batch, request, request_id, created_time, model_name, *args, **kwargs)
        if not is_long(final_res_batch):
            return build()
        unbuilt = UnbuiltCompletionResponse.model_construct()
        unbuilt._build = build
        return unbuilt

    def _build(
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
        for i, result in enumerate(final_res_batch):
            if request.max_tokens == 0:
                discard_generated(result)
            if scores.wanted:
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
            for name in ("growth", "internals"):
                shown = [getattr(entry, name, None) for entry in entries]
                if any(shown):
                    setattr(logprobs, name, shown)
        return logprobs
