"""The vLLM model equals the reference where the golden cases say nothing."""

from pathlib import Path

import pytest
import torch

from tests.conformance.models import VARIANTS, random_prompts, random_weights, variant_config
from tests.engines import engine, generate, recomputed, saved_model, statistics_rows, token_params, whole_rows
from tests.exact import exact_statistics

pytestmark = pytest.mark.engine


@pytest.mark.parametrize("name", VARIANTS)
def test_variant(name: str, tmp_path: Path) -> None:
    config = variant_config(name)
    model = saved_model(tmp_path / "checkpoint", config, random_weights(config))
    prompts = random_prompts(config)
    with engine(tmp_path / "checkpoint", logprobs_mode="raw_logits") as llm:
        scored = generate(llm, prompts, token_params(max_tokens=1, logprobs=-1, prompt_logprobs=-1))
        answered = generate(llm, prompts, token_params(max_tokens=20))
    with torch.no_grad():
        expected = model(torch.tensor(prompts))
    for row, (score, answer) in enumerate(zip(scored, answered, strict=True)):
        positions = [*score.prompt_logprobs[1:], *score.outputs[0].logprobs]
        logits = whole_rows(positions, config.vocab_size)
        torch.testing.assert_close(logits, expected[row], atol=1e-4, rtol=0)
        # On the very logits that the engine saw, the statistics are as exact as float32 allows.
        errors = (statistics_rows(positions) - exact_statistics(logits)).abs().amax(0)
        assert (errors <= torch.tensor([1e-5, 1e-4, 1e-6])).all(), errors
        ids = list(answer.outputs[0].token_ids)
        with torch.no_grad():
            greedy = model(torch.tensor([[*prompts[row], *ids]]))[0, len(prompts[row]) - 1 : -1].argmax(-1)
        assert ids == greedy.tolist()
        assert len(set(ids)) > 1  # a model that repeats one word would show little
        found = statistics_rows(answer.outputs[0].logprobs)
        torch.testing.assert_close(found, recomputed(model, prompts[row], ids), atol=1e-4, rtol=0)
