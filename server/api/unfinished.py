"""Completions that are not finished when vLLM's method that makes responses, which cannot wait, returns them."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import PrivateAttr
from vllm.entrypoints.openai.completion.protocol import CompletionResponse

from server.api.request_scores import RequestScores
from server.requests.schemas import ScoredCompletionChoice, ScoredCompletionResponse, recast


class UnscoredCompletionResponse(CompletionResponse):
    """A response that waits for its scores."""

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


class UnbuiltCompletionResponse(CompletionResponse):
    """A long response, that waits for a thread to make it."""

    _build: Callable[[], CompletionResponse] = PrivateAttr()
