"""vLLM's text completions, with token statistics and a summary for every choice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastapi import Request
from vllm.entrypoints.openai.completion.protocol import CompletionLogProbs, CompletionRequest, CompletionResponse
from vllm.entrypoints.openai.completion.serving import OpenAIServingCompletion
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.outputs import RequestOutput

from model_impl.wire import STATISTICS
from server.api.aside import is_long
from server.api.beam_search import unsupported
from server.api.policy import replaced_text
from server.api.request_scores import RequestScores
from server.api.serving import ScoredServing, constraint_of, observe, refusal
from server.engine.statistics import scored
from server.gate.context import CONTEXT
from server.requests.limits import blame_parameter
from server.requests.schemas import ScoredCompletionChoice, ScoredCompletionResponse, recast


@dataclass(frozen=True)
class Collected:
    """The results of all prompts. vLLM's `create_completion` returns them, as its method that makes responses cannot
    wait for a thread or an ensemble; ours makes the response."""

    results: list[RequestOutput]
    model_name: str
    build: Callable[[], CompletionResponse]


class ScoredCompletion(ScoredServing, OpenAIServingCompletion):
    async def render_completion_request(self, request: CompletionRequest) -> Any:
        if (record := CONTEXT.get().record) is not None:
            record.nothing_shown = request.max_tokens == 0
        with blame_parameter("prompt"):
            rendered = refusal(request, self) or await super().render_completion_request(request)
        if not isinstance(rendered, ErrorResponse):
            await self.check_grammar(request, constraint_of(request))
        return rendered

    async def create_completion(
        self, request: CompletionRequest, raw_request: Request | None = None
    ) -> AsyncGenerator[str, None] | CompletionResponse | ErrorResponse:
        if request.stream and request.use_beam_search:  # vLLM's own refusal names no parameter
            raise unsupported("stream")
        found = await super().create_completion(request, raw_request)
        return await self.respond(request, found) if isinstance(found, Collected) else found

    def request_output_to_completion_response(
        self,
        final_res_batch: list[RequestOutput],
        request: CompletionRequest,
        request_id: str,
        created_time: int,
        model_name: str,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        build = super().request_output_to_completion_response
        arguments = final_res_batch, request, request_id, created_time, model_name, *args
        return Collected(final_res_batch, model_name, partial(build, *arguments, **kwargs))

    async def respond(self, request: CompletionRequest, collected: Collected) -> CompletionResponse:
        """The response, which a thread makes if it is long."""
        scores = self.scores(request, collected.model_name)

        def make() -> CompletionResponse:
            for i, result in enumerate(collected.results):
                self._note(request, scores, i, result, result.prompt)
            return collected.build()

        response = await asyncio.to_thread(make) if is_long(collected.results) else make()
        if not scores.wanted:
            return response
        await scores.rescore_all()
        scored = with_scores(response, scores)
        if (refused := scores.refusal()) is not None:
            raise refused
        return scored

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
        scores = self.scores(request, model_name)
        prompt_logprobs: dict[int, Any] = {}

        def note(pair: tuple[int, RequestOutput]) -> None:
            i, result = pair
            prompt = result.prompt
            if prompt is None and request.echo:
                prompt = self._extract_prompt_text(engine_inputs[i])
            self._note(request, scores, i, result, prompt)
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
        return self.scored_stream(chunks, scores)

    def _note(
        self, request: CompletionRequest, scores: RequestScores, i: int, result: RequestOutput, prompt: str | None
    ) -> None:
        """Score a result of prompt `i`."""
        if request.max_tokens == 0:  # a mere echo, for which vLLM generates one token
            for output in result.outputs:
                output.text, output.token_ids, output.logprobs = "", [], None
        if scores.wanted:
            # vLLM puts no prompt in front of a text whose token ids it returns.
            echoed = prompt or "" if request.echo and not request.return_token_ids else ""
            scores.add(result, i * (request.n or 1), echoed)

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
            for name in ("epistemic", "growth"):
                shown = [getattr(entry, name, None) for entry in entries]
                if any(value is not None for value in shown):
                    setattr(logprobs, name, shown)
        return logprobs


def with_scores(response: CompletionResponse, scores: RequestScores) -> ScoredCompletionResponse:
    """The response with a summary for every choice, and with the ensemble's part of every token."""
    choices = []
    for choice in response.choices:
        found = scores.choices[choice.index].ensemble
        if found is not None and choice.logprobs is not None:
            echoed = len(choice.logprobs.tokens) - len(found.epistemic)
            for name in ("epistemic", "aleatoric"):
                setattr(choice.logprobs, name, [None] * echoed + getattr(found, name))
        summary = scores.summary(choice.index)
        shown = replaced_text(choice, scores.policy.text) if scores.is_doubted(choice.index) else choice
        choices.append(recast(ScoredCompletionChoice, shown, uncertainty=summary))
    return recast(ScoredCompletionResponse, response, choices=choices)
