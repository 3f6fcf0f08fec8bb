"""The stand-ins for vLLM's compiled operators compute what plain PyTorch computes, and vLLM finds them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib

import pytest
import torch
from vllm.config import VllmConfig, set_current_vllm_config
from vllm.model_executor.layers.rotary_embedding.base import RotaryEmbedding

from scripts.gpu.plugin import gpu_stand_ins
from server.engine.settings import prepare_environment
from tests.support.paths import ROOT

NAMESPACE = "tokenformer_stand_ins"
"""Beside the real operators of this environment, which the kit's namespace would clash with."""


@pytest.fixture(scope="module")
def operators() -> torch._ops._OpNamespace:
    gpu_stand_ins.define_operators(NAMESPACE)
    return getattr(torch.ops, NAMESPACE)


def rotary_layer(head_size: int, neox: bool, dtype: torch.dtype) -> RotaryEmbedding:
    """vLLM's, which rotates the first eight dimensions of every head."""
    with set_current_vllm_config(VllmConfig()):
        return RotaryEmbedding(head_size, 8, 64, 10000.0, neox, dtype)


@pytest.mark.parametrize("neox", [True, False])
@pytest.mark.parametrize("heads_apart", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rotary_embedding_rotates_as_vllm_does_without_operators(
    operators: torch._ops._OpNamespace, dtype: torch.dtype, heads_apart: bool, neox: bool
) -> None:
    rotary = rotary_layer(32, neox, dtype)
    positions = torch.randint(64, (7,), generator=torch.Generator().manual_seed(0))
    rows = [torch.randn(7, 4, 32, generator=torch.Generator().manual_seed(seed)).to(dtype) for seed in (1, 2)]
    if not heads_apart:
        rows = [row.flatten(1) for row in rows]
    expected = rotary.forward_native(positions, *(row.clone() for row in rows))
    operators.rotary_embedding(positions, *rows, 32, rotary.cos_sin_cache, neox)
    # In bfloat16 vLLM's plain form rounds every product.
    tolerance = 1e-6 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(rows, list(expected), atol=tolerance, rtol=tolerance)


def test_rotary_embedding_goes_back_where_it_is_inverse(operators: torch._ops._OpNamespace) -> None:
    table = rotary_layer(16, True, torch.float32).cos_sin_cache
    positions, rows = torch.arange(5), torch.randn(5, 32)
    turned = rows.clone()
    operators.rotary_embedding(positions, turned, None, 16, table, True, 4, False)
    assert not turned.equal(rows)
    assert turned.view(5, 2, 16)[..., :4].equal(rows.view(5, 2, 16)[..., :4])
    operators.rotary_embedding(positions, turned, None, 16, table, True, 4, True)
    torch.testing.assert_close(turned, rows)


def test_repetition_penalties_are_those_of_vllm(operators: torch._ops._OpNamespace) -> None:
    from vllm._custom_ops import apply_repetition_penalties_torch

    generator = torch.Generator().manual_seed(0)
    logits, prompt = torch.randn(3, 50, generator=generator), torch.rand(3, 50, generator=generator) < 0.3
    output, penalties = torch.rand(3, 50, generator=generator) < 0.3, torch.tensor([1.0, 1.5, 0.5])
    expected = logits.clone()
    apply_repetition_penalties_torch(expected, prompt, output, penalties)
    operators.apply_repetition_penalties_(logits, prompt, output, penalties)
    torch.testing.assert_close(logits, expected)


def test_weak_references_share_their_memory(operators: torch._ops._OpNamespace) -> None:
    tensor = torch.randn(3, 4)
    found = operators.weak_ref_tensor(tensor)
    assert found.data_ptr() == tensor.data_ptr() and found.equal(tensor)


def test_no_8_bit_product_is_supported(operators: torch._ops._OpNamespace) -> None:
    assert operators.cutlass_scaled_mm_supports_block_fp8(90) is False


def test_operators_that_are_only_named_exist_and_cannot_be_called(operators: torch._ops._OpNamespace) -> None:
    for name in gpu_stand_ins.NAMED_ONLY:
        with pytest.raises(NotImplementedError):
            getattr(operators, name).default()


PROBE = """
import importlib, json, sys
from scripts.gpu.plugin import gpu_stand_ins
found = {"platform": gpu_stand_ins.platform(), "again": gpu_stand_ins.platform()}
from vllm.vllm_flash_attn import flash_attn_varlen_func
try:
    flash_attn_varlen_func()
except RuntimeError as error:
    found["flash"] = str(error)
try:
    importlib.import_module("vllm.v1.attention.backends.flash_attn")
except ImportError:
    found["backend"] = "absent"
found["module"] = sys.modules["vllm._C_stable_libtorch"].__spec__ is None
import os
found["sampler"] = os.environ["VLLM_USE_FLASHINFER_SAMPLER"]
print(json.dumps(found))
"""


def test_the_platform_is_cuda_and_flash_attention_is_passed_over() -> None:
    """In a process of its own: what stands in for modules would stay for other tests."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE], cwd=ROOT, env=os.environ, capture_output=True, text=True, check=True
    )
    cuda = "vllm.platforms.cuda.CudaPlatform"
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "platform": cuda,
        "again": cuda,
        "flash": "FlashAttention is not compiled here",
        "backend": "absent",
        "module": True,
        "sampler": "0",
    }


def test_the_server_lets_vllm_load_the_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"VLLM_PLUGINS": ""})
    prepare_environment()
    project = tomllib.loads((ROOT / "scripts/gpu/plugin/pyproject.toml").read_text())["project"]
    (name,) = project["entry-points"]["vllm.platform_plugins"]
    assert name in os.environ["VLLM_PLUGINS"].split(",")


def test_compiled_operators_that_load_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    stood_in: list[bool] = []
    monkeypatch.setattr(gpu_stand_ins, "stand_in", lambda: stood_in.append(True))
    monkeypatch.setattr(gpu_stand_ins, "OPERATORS", "json")
    monkeypatch.setenv("VLLM_USE_FLASHINFER_SAMPLER", "0")
    assert gpu_stand_ins.platform().endswith("CudaPlatform") and not stood_in
    monkeypatch.setenv(gpu_stand_ins.FORCED, "1")
    gpu_stand_ins.platform()
    assert stood_in
