"""Steps of few rows take the kernels for packed weights, and give what the reference gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from model_impl.kernels.cpu import layers, library
from model_impl.kernels.cpu import weights as packed_weight
from model_impl.kernels.cpu.stack import PackedStack
from model_impl.kernels.cpu.weights import MAX_SMALL_BATCH, PackedWeight
from model_impl.wire import report_args
from tests.conformance.models import random_weights, variant_config
from tests.support.engines import assert_reported, engine, generate, saved_model, token_params, whole_rows
from tests.support.packing import skip_unless_packed
from tests.support.rounding import logit_tolerance
from tests.support.tolerances import assert_within

pytestmark = pytest.mark.engine


def test_few_and_many_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    skip_unless_packed()
    monkeypatch.setattr(packed_weight, "_small_batch", lambda *shape: MAX_SMALL_BATCH)
    rows: dict[type, set[int]] = {PackedStack: set(), PackedWeight: set()}
    for kernel, plain in ((PackedStack, PackedStack.__call__), (PackedWeight, PackedWeight.__call__)):

        def counted(self: object, x: torch.Tensor, *rest: Any, plain: Any = plain, kernel: type = kernel) -> object:
            rows[kernel].add(len(x))
            return plain(self, x, *rest)

        monkeypatch.setattr(kernel, "__call__", counted)
    config = variant_config("grown jointly, tau kept")
    model = saved_model(tmp_path / "checkpoint", config, random_weights(config))
    params = token_params(max_tokens=5, logprobs=-1)
    with engine(tmp_path / "checkpoint", logprobs_mode="raw_logits") as llm:
        for count in (1, 3, MAX_SMALL_BATCH + 1):
            prompts = [[(3 * i + j) % config.vocab_size for j in range(4)] for i in range(count)]
            for prompt, output in zip(prompts, generate(llm, prompts, params), strict=True):
                ids = list(output.outputs[0].token_ids)
                with torch.no_grad():
                    expected = model(torch.tensor([[*prompt, *ids[:-1]]]))[0, len(prompt) - 1 :]
                found = whole_rows(output.outputs[0].logprobs, config.vocab_size)
                e = logit_tolerance(model, torch.tensor([[*prompt, *ids[:-1]]]))[0, len(prompt) - 1 :]
                assert_within(found, expected, e[:, None])
    assert {1, 3} <= rows[PackedStack] <= set(range(MAX_SMALL_BATCH + 1))
    assert {1, 3, MAX_SMALL_BATCH + 1} <= rows[PackedWeight]


@pytest.mark.parametrize("tied", [False, True])
def test_what_was_packed_is_not_held_twice(tied: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    skip_unless_packed()
    monkeypatch.setattr(packed_weight, "_small_batch", lambda *shape: MAX_SMALL_BATCH)
    config = variant_config("grown jointly, tau kept" if tied else "untied head, affine norms, full rotary")
    saved_model(tmp_path / "checkpoint", config, random_weights(config))
    with engine(tmp_path / "checkpoint") as llm:
        (found,) = llm.apply_model(
            lambda model: (
                model.model.embed_tokens.weight.numel(),
                hasattr(model.model.embed_tokens, "cpu_linear"),
                model.lm_head.weight.numel(),
                isinstance(model.lm_head.cpu_linear, PackedWeight),
            )
        )
    assert found[0] >= config.vocab_size * config.hidden_size
    assert found[1:] == (False, 0, True)


def test_a_head_in_another_dtype(tmp_path: Path) -> None:
    config = variant_config("grown jointly, tau kept")
    model = saved_model(tmp_path / "checkpoint", config, random_weights(config))
    prompt = [1, 2, 3]
    overrides = {"head_dtype": "float32"}
    with engine(tmp_path / "checkpoint", dtype="bfloat16", hf_overrides=overrides, logprobs_mode="raw_logits") as llm:
        (output,) = generate(llm, [prompt], token_params(max_tokens=1, logprobs=-1))
    found = whole_rows(output.outputs[0].logprobs, config.vocab_size)
    with torch.no_grad():
        expected = model(torch.tensor([prompt]))[0, -1:]
    torch.testing.assert_close(found, expected, atol=0.05, rtol=0.05)


@pytest.mark.parametrize(("place", "name"), [(library, "library"), (layers, "pack")], ids=["no kernels", "slower"])
def test_weights_that_only_vllm_packs_are_reported(
    place: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a compiler there are no kernels; and where oneDNN is faster already at one row, its products stay."""
    monkeypatch.setattr(place, name, lambda *arguments: None)
    config = variant_config("grown jointly, tau kept")
    model = saved_model(tmp_path / "checkpoint", config, random_weights(config))
    prompt = [1, 2, 3]
    with engine(tmp_path / "checkpoint") as llm:
        (output,) = generate(llm, [prompt], token_params(max_tokens=4, logprobs=0, extra_args=report_args()))
    (answer,) = output.outputs
    assert_reported(model, [*prompt, *answer.token_ids], answer.logprobs)


def test_value_tokens_that_are_readable_are_not_held_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    skip_unless_packed()
    monkeypatch.setattr(packed_weight, "_small_batch", lambda *shape: MAX_SMALL_BATCH)
    config = variant_config("grown jointly, tau kept")
    saved_model(tmp_path / "checkpoint", config, random_weights(config))
    with engine(tmp_path / "checkpoint") as llm:
        assert llm.apply_model(lambda model: model.blocks()[-1].ffn.kept_values) == [None]
