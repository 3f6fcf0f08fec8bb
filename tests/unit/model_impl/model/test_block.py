"""Sizes of heads in the KV cache."""

from __future__ import annotations

import pytest
from vllm.v1.attention.backends.flash_attn import FlashAttentionBackend
from vllm.v1.attention.backends.triton_attn import TritonAttentionBackend

from model_impl.model import block


class GPU:
    def is_cpu(self) -> bool:
        return False


@pytest.mark.parametrize("head_dim", [12, 13, 16, 27, 33, 64, 80, 96])
def test_heads_on_a_gpu_fill_up_to_what_its_attention_takes(head_dim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block, "current_platform", GPU())
    cached = block.cached_head_dim(head_dim)
    assert head_dim <= cached < head_dim + 32
    for backend in (TritonAttentionBackend, FlashAttentionBackend):
        assert backend.supports_head_size(cached)


@pytest.mark.parametrize("head_dim", [64, 80, 96])
def test_released_heads_are_cached_as_they_are(head_dim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block, "current_platform", GPU())
    assert block.cached_head_dim(head_dim) == head_dim
