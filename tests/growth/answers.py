"""Answers of the grown server, and what the reference model says of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from model_impl.reference.attribution import attribution
from model_impl.reference.closed_form import epistemic
from model_impl.wire import STATISTICS
from tests.growth.served import Grown
from tests.support.engines import assert_recomputed


def ask(grown: Grown, model: str, prompt: list[int], **options: Any) -> Any:
    return grown.client.completions.create(
        model=model,
        prompt=prompt,
        temperature=0,
        max_tokens=6,
        extra_body={"uncertainty": {"tokens": True}, "return_token_ids": True} | options,
    )


def reported(choice: Any) -> torch.Tensor:
    """float64 [tokens, 3]."""
    return torch.tensor([getattr(choice.logprobs, name) for name in STATISTICS], dtype=torch.float64).T


def check(grown: Grown, model: str, prompt: list[int], answer: Any) -> None:
    """Tokens, statistics, epistemic uncertainty and growth are those of the reference model at that stage."""
    reference, stage = grown.references[model]
    choice = answer.choices[0]
    ids = torch.tensor([[*prompt, *choice.token_ids]])
    with torch.no_grad():
        logits = reference(ids, stage)[0, len(prompt) - 1 : -1]
    assert choice.token_ids == logits.argmax(-1).tolist()
    assert_recomputed(reported(choice), reference, prompt, choice.token_ids, stage)
    unsure = epistemic(reference, ids, stage)[0, len(prompt) - 1 : -1]
    torch.testing.assert_close(torch.tensor(choice.logprobs.epistemic), unsure, atol=1e-6, rtol=1e-4)
    parts = attribution(reference, ids[:, :-1], ids[:, 1:], stage)[0, len(prompt) - 1 :]
    names = [entry.name for entry in reference.config.stages[: stage + 1]]
    assert all(list(growth) == names for growth in choice.logprobs.growth)
    by_token = torch.tensor([list(growth.values()) for growth in choice.logprobs.growth])
    torch.testing.assert_close(by_token, parts, atol=1e-4, rtol=1e-4)
    summary = choice.uncertainty
    assert summary["estimator"] == "closed-form"
    assert summary["max_epistemic"] == max(choice.logprobs.epistemic)
    assert list(summary["growth"]) == names
    assert list(summary["growth"].values()) == pytest.approx(parts.mean(0).tolist(), abs=1e-4, rel=1e-4)


def iter_stream(grown: Grown, model: str, prompt: list[int], tokens: int, options: dict[str, Any]) -> Iterator[str]:
    chunks = grown.client.completions.create(
        model=model, prompt=prompt, temperature=0, max_tokens=tokens, stream=True, extra_body=options
    )
    for chunk in chunks:
        if chunk.choices:
            yield chunk.choices[0].text


def stream_text(grown: Grown, model: str, prompt: list[int], tokens: int, options: dict[str, Any]) -> str:
    return "".join(iter_stream(grown, model, prompt, tokens, options))
