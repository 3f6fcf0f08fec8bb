"""vLLM's chat completions, with token statistics and a summary for every choice."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from functools import partial
from typing import Any

from vllm.entrypoints.openai.chat_completion.protocol import (
    ChatCompletionLogProbs,
    ChatCompletionRequest,
    ChatCompletionResponse,
)
from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.outputs import RequestOutput

from model_impl.wire import STATISTICS
from server.api.aside import built
from server.api.policy import replaced_message
from server.api.request_scores import RequestScores
from server.api.serving import ScoredServing, constraint_of, observe, refusal
from server.engine.statistics import scored
from server.requests.limits import blame_parameter
from server.requests.schemas import ScoredChatCompletionResponse, recast
from server.requests.tool_calls import CutOffChoices


class ScoredChat(ScoredServing, OpenAIServingChat):
    stop_strings: list[str]
    """For chats that give no `stop`."""

    async def render_chat_request(self, request: ChatCompletionRequest) -> Any:
        if request.stop is None or "stop" not in request.model_fields_set:
            request.stop = list(self.stop_strings)
        constraint = constraint_of(request) or "tools"  # rendering makes a grammar of tools that must be called
        with blame_parameter("messages"):
            rendered = refusal(request, self) or await super().render_chat_request(request)
        if not isinstance(rendered, ErrorResponse):
            await self.check_grammar(request, constraint)
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
        scores = self.scores(request, model_name)
        results = self._observed(request, result_generator, conversation, scores)
        chunks = super().chat_completion_stream_generator(
            request, results, request_id, model_name, conversation, *args, **kwargs
        )
        return self.scored_stream(chunks, scores)

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
        scores, cut_off = self.scores(request, model_name), CutOffChoices()
        noted = observe(self._observed(request, result_generator, conversation, scores), cut_off.note)
        build = super().chat_completion_full_generator
        response = await built(
            [noted],
            lambda results: build(request, results[0], request_id, model_name, conversation, *args, **kwargs),
        )
        cut_off.tell(response)
        if not scores.wanted or isinstance(response, ErrorResponse):
            return response
        await scores.rescore_all()
        for i, choice in enumerate(response.choices):
            if choice.logprobs is not None:
                scores.label(choice.index, choice.logprobs.content or ())
            scores.note_message(choice.index, dict(choice.message))
            summary = scores.summary(choice.index)
            if scores.is_doubted(choice.index):
                response.choices[i] = choice = replaced_message(choice, scores.policy.text)
            setattr(choice, "uncertainty", summary)  # noqa: B010 - as in `_create_chat_logprobs`
        if (refused := scores.refusal()) is not None:
            raise refused
        # A plain response would serialise these by their declared type, which lacks the statistics.
        return recast(ScoredChatCompletionResponse, response) if response.prompt_logprobs else response

    def _observed(
        self,
        request: ChatCompletionRequest,
        results: AsyncIterator[RequestOutput],
        conversation: list[Any],
        scores: RequestScores,
    ) -> AsyncIterator[RequestOutput]:
        """The results, which `scores` sees if the client wants any."""
        if not scores.wanted:
            return results
        return observe(results, partial(scores.add, echoed=self._begun(request, conversation)))

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
                for name in ("epistemic", "growth"):
                    if getattr(found, name) is not None:
                        setattr(entry, name, getattr(found, name))
                setattr(entry, "rank", position[token_id].rank)  # noqa: B010 - an extra field, which the type lacks
        return logprobs
