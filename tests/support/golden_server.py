"""A golden case as a user serves it, and its greedy answer by OpenAI's client."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from openai import OpenAI
from tokenizers import Tokenizer, models, pre_tokenizers

from model_impl.checkpoint.convert import convert
from model_impl.wire import STATISTICS
from tests.support.exact import exact_statistics
from tests.support.golden_cases import GOLDEN, PROMPT_TOKENS, TOLERANCE, GoldenCase


def converted(name: str, directory: Path) -> Path:
    """A golden case through `tokenformer convert`; its tokenizer has the words t0 to t370, and no chat template."""
    words = Tokenizer(models.WordLevel({f"t{i}": i for i in range(371)}, unk_token="t0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = directory / f"{name}.json"
    words.save(str(tokenizer))
    convert(GOLDEN / name, directory / name, tokenizer=tokenizer)
    return directory / name


def statistics_of(logprobs: Any, start: int = 0) -> torch.Tensor:
    return torch.tensor([getattr(logprobs, name)[start:] for name in STATISTICS], dtype=torch.float64).t()


def assert_close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found.double(), expected.double(), atol=TOLERANCE, rtol=0)


def assert_greedy_answer_is_golden(case: GoldenCase, client: OpenAI) -> None:
    """All prompts of the case in one request: the tokens, each token's statistics, and the summaries."""
    greedy = case.io["greedy_ids"]
    steps = case.io["greedy_step_logits"][..., : case.config.vocab_size]
    response = client.completions.create(
        model=case.name, prompt=greedy[:, :PROMPT_TOKENS].tolist(), max_tokens=16, temperature=0, logprobs=0
    )
    for row, choice in enumerate(response.choices):
        expected, statistics = greedy[row, PROMPT_TOKENS:].tolist(), exact_statistics(steps[row])
        assert choice.logprobs.tokens == [f"t{word}" for word in expected]
        assert_close(statistics_of(choice.logprobs), statistics)
        assert choice.uncertainty["mean_entropy"] == pytest.approx(statistics[:, 0].mean().item(), abs=TOLERANCE)
        assert choice.uncertainty["max_entropy"] == pytest.approx(statistics[:, 0].max().item(), abs=TOLERANCE)
        assert choice.uncertainty["mean_variance"] == pytest.approx(statistics[:, 1].mean().item(), abs=TOLERANCE)
