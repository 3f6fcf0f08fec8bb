"""The sampler reports the same of the chosen token alone as beside other tokens, and of the raw distribution."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from model_impl.engine import sampler
from tests.conformance.models import random_prompts, random_weights, variant_config
from tests.support.engines import engine, generate, saved_model, statistics_rows, token_params, whole_rows

pytestmark = pytest.mark.engine

PARAMS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "bans": {"logit_bias": {3: -100.0, 4: 5.0}},
    "penalties": {"presence_penalty": 1.5, "repetition_penalty": 1.3},
    "temperature": {"temperature": 1.7, "seed": 5, "top_p": 0.9, "top_k": 40},
}


ROUNDING = 1e-5
"""The tolerance of a logprob in float32, some units in its last place."""


def answers(llm: Any, prompts: list[list[int]], **options: Any) -> list[Any]:
    """An engine without prefix cache: cached blocks would make other batches, whose logits are rounded differently."""
    llm.reset_prefix_cache()
    return generate(llm, prompts, token_params(max_tokens=8, **options))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_alone_or_beside_others(dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = variant_config("grown jointly, tau kept")
    saved_model(tmp_path / "checkpoint", config, random_weights(config))
    prompts = random_prompts(config)
    calls: list[int] = []
    at_once = sampler.cpu_kernels.chosen_and_statistics

    def counted(logits: torch.Tensor, *rest: Any) -> tuple[torch.Tensor, torch.Tensor]:
        calls.append(len(logits))
        return at_once(logits, *rest)

    monkeypatch.setattr(sampler.cpu_kernels, "chosen_and_statistics", counted)
    with engine(tmp_path / "checkpoint", dtype=dtype) as llm:
        for name, options in PARAMS.items():
            calls.clear()
            alone, beside, whole = (answers(llm, prompts, logprobs=count, **options) for count in (0, 3, -1))
            assert len(calls) == 8, name
            for one, other, every in zip(alone, beside, whole, strict=True):
                one, other, every = one.outputs[0], other.outputs[0], every.outputs[0]
                assert one.token_ids == other.token_ids, name
                for token, own, others, words in zip(
                    one.token_ids, one.logprobs, other.logprobs, every.logprobs, strict=True
                ):
                    assert own[token].logprob == pytest.approx(others[token].logprob, abs=ROUNDING), name
                    # Equal logits are equally likely; vLLM counts logprobs, which rounding may separate.
                    rows = whole_rows([words], config.vocab_size)[0] - own[token].logprob
                    assert own[token].rank == (rows > -ROUNDING).sum(), name
                    assert (rows > ROUNDING).sum() < others[token].rank <= own[token].rank, name
                found, expected = statistics_rows(one.logprobs), statistics_rows(other.logprobs)
                torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
