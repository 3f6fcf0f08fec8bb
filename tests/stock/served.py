"""A tiny Llama behind the API, calibrated on its own likeliest answers, and what transformers computes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx
from openai import OpenAI
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from server.uncertainty.calibration import Calibration
from server.uncertainty.tokens import TokenScore
from tests.support.servers import Server
from tests.support.stock import Expected, expected


@dataclass(frozen=True)
class Stock:
    server: Server
    model: PreTrainedModel
    words: PreTrainedTokenizerFast
    calibration: Calibration
    said: str
    """By `tokenformer calibrate`."""

    @property
    def client(self) -> OpenAI:
        return OpenAI(base_url=f"{self.server.url}/v1", api_key="none", max_retries=0, timeout=60)

    def post(self, path: str, **body: Any) -> httpx.Response:
        return httpx.post(f"{self.server.url}{path}", json={"model": "stock"} | body, timeout=60)

    def expected(self, prompt: Sequence[int], answer: Sequence[int]) -> Expected:
        """The numbers of the answer's tokens."""
        return expected(self.model, [*prompt, *answer])[-len(answer) :]

    def scores(self, prompt: Sequence[int], answer: Sequence[int]) -> list[TokenScore]:
        found = self.expected(prompt, answer)
        rows = zip(answer, found.logprobs.tolist(), found.statistics.tolist(), found.epistemic.tolist(), strict=True)
        return [
            TokenScore(logprob, *statistics, text=self.words.decode([i]), epistemic=epistemic)
            for i, logprob, statistics, epistemic in rows
        ]
