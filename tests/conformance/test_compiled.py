"""A model that vLLM compiles, as it does without --enforce-eager, also equals the reference."""

from pathlib import Path

import pytest
import torch

from model_impl.model.pattention import ParallelPattention
from model_impl.model.tokenformer import TokenformerForCausalLM
from model_impl.wire import report_args
from tests.conformance.models import random_prompts, random_weights, variant_config
from tests.support.engines import assert_reported, engine, generate, saved_model, token_params, whole_rows
from tests.support.rounding import logit_tolerance
from tests.support.tolerances import assert_within

pytestmark = pytest.mark.engine


def test_a_compiled_model_equals_the_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = variant_config("grown jointly, tau kept")
    model = saved_model(tmp_path / "checkpoint", config, random_weights(config))
    prompts = random_prompts(config)
    built: list[TokenformerForCausalLM] = []
    process = TokenformerForCausalLM.process_weights_after_loading
    monkeypatch.setattr(
        TokenformerForCausalLM, "process_weights_after_loading", lambda self: (built.append(self), process(self))
    )
    params = token_params(max_tokens=4, logprobs=-1, extra_args=report_args())
    with engine(tmp_path / "checkpoint", enforce_eager=False, logprobs_mode="raw_logits") as llm:
        answers = generate(llm, prompts, params)
    assert built[0].model.traced
    modules = [module for module in built[0].modules() if isinstance(module, ParallelPattention)]
    assert modules
    assert all(module.small_batch is None for module in modules)  # a compiler cannot look into it
    for prompt, answer in zip(prompts, answers, strict=True):
        ids = list(answer.outputs[0].token_ids)
        with torch.no_grad():
            expected = model(torch.tensor([[*prompt, *ids[:-1]]]))[0, len(prompt) - 1 :]
        found = whole_rows(answer.outputs[0].logprobs, config.vocab_size)
        e = logit_tolerance(model, torch.tensor([[*prompt, *ids[:-1]]]))[0, len(prompt) - 1 :]
        assert_within(found, expected, e[:, None])
        assert_reported(model, [*prompt, *ids], answer.outputs[0].logprobs)
