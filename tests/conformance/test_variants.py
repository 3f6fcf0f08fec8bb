"""The vLLM model equals the reference in cases that the golden cases lack."""

from pathlib import Path

import pytest
import torch

from model_impl.model import report
from model_impl.wire import report_args
from tests.conformance.models import VARIANTS, random_prompts, random_weights, variant_config
from tests.support.engines import (
    assert_exact_statistics,
    assert_recomputed,
    assert_reported,
    engine,
    generate,
    saved_model,
    statistics_rows,
    token_params,
    whole_rows,
)
from tests.support.rounding import logit_tolerance
from tests.support.tolerances import assert_within

pytestmark = pytest.mark.engine


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_equals_the_reference(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "AT_ONCE", 16)  # less than a prompt
    config = variant_config(name)
    model = saved_model(tmp_path / "checkpoint", config, random_weights(config))
    prompts = random_prompts(config)
    with engine(tmp_path / "checkpoint", logprobs_mode="raw_logits") as llm:
        scored = generate(
            llm, prompts, token_params(max_tokens=1, logprobs=-1, prompt_logprobs=-1, extra_args=report_args())
        )
        answered = generate(llm, prompts, token_params(max_tokens=20, extra_args=report_args()))
    with torch.no_grad():
        expected = model(torch.tensor(prompts))
    allowed = logit_tolerance(model, torch.tensor(prompts))
    # A model that repeats one word would show little.
    assert len({word for answer in answered for word in answer.outputs[0].token_ids}) > 1
    for row, (score, answer) in enumerate(zip(scored, answered, strict=True)):
        positions = [*score.prompt_logprobs[1:], *score.outputs[0].logprobs]
        logits = whole_rows(positions, config.vocab_size)
        assert_within(logits, expected[row], allowed[row, :, None])
        assert_exact_statistics(statistics_rows(positions), logits)
        ids = list(answer.outputs[0].token_ids)
        with torch.no_grad():
            greedy = model(torch.tensor([[*prompts[row], *ids]]))[0, len(prompts[row]) - 1 : -1].argmax(-1)
        assert ids == greedy.tolist()
        found = statistics_rows(answer.outputs[0].logprobs)
        assert_recomputed(found, model, prompts[row], ids)
        assert_reported(model, [*prompts[row], *score.outputs[0].token_ids], positions)
        assert_reported(model, [*prompts[row], *ids], answer.outputs[0].logprobs)
