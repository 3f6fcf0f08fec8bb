"""vLLM's attention on CPU for a step of few rows, which calls the layer's two kernels directly.

The layer calls two operators, each of which looks its layer up by name and splits its cache: more than half of the time
of a short attention (docs/performance.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from vllm import _custom_ops as ops
from vllm.distributed.kv_transfer import has_kv_transfer_group
from vllm.forward_context import get_forward_context
from vllm.model_executor.layers.attention import Attention
from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackendImpl


@dataclass(frozen=True)
class Heads:
    """The input and the output of attention in a step of T rows."""

    query_key_value: torch.Tensor
    """[3, T, d]"""
    query: torch.Tensor
    """[T, heads, head_dim], as the fields that follow."""
    key: torch.Tensor
    value: torch.Tensor
    mixed: torch.Tensor


def usual_context() -> Any:
    """The attention metadata and slot mapping of a step, by layer name; None in an unusual step: before there is a
    cache, with speculative decoding, or with a KV cache that is sent elsewhere."""
    context = get_forward_context()
    metadata, slots = context.attn_metadata, context.slot_mapping
    usual = isinstance(metadata, dict) and isinstance(slots, dict) and not has_kv_transfer_group()
    return (metadata, slots) if usual else None


class DirectAttention:
    """Attention of one layer: causal attention of a decoder without further features."""

    def __init__(self, attention: Attention, head_dim: int, layer: Callable[..., torch.Tensor]) -> None:
        """`layer` serves where the kernels cannot: query, key and value -> output, each [T, heads * head_dim]."""
        self.attention: Any = attention
        self.possible = isinstance(attention.impl, CPUAttentionBackendImpl) and attention.head_size == head_dim
        self.layer = layer
        self.cache: torch.Tensor | None = None

    def __call__(self, heads: Heads, context: Any) -> None:
        """Fill `heads.mixed`; keys and values are cached. `context` is the step's `usual_context`."""
        if context is None or not self.possible:
            heads.mixed.copy_(self.layer(*heads.query_key_value).view_as(heads.mixed))
            return
        layer, (metadata, slots) = self.attention, context
        own, impl = metadata[layer.layer_name], layer.impl
        if self.cache is not layer.kv_cache:
            self._split(layer.kv_cache)
        scales = layer._k_scale_float, layer._v_scale_float, impl.kv_cache_dtype
        key, value, keys, values = heads.key, heads.value, self.keys, self.values
        ops.cpu_attn_reshape_and_cache(key, value, keys, values, slots[layer.layer_name], layer.isa, *scales)
        count = own.num_actual_tokens  # the other rows are padding
        whole = count == len(heads.query)
        ops.cpu_attention_with_kv_cache(
            heads.query if whole else heads.query[:count],
            keys,
            values,
            heads.mixed if whole else heads.mixed[:count],
            own.query_start_loc,
            own.seq_lens,
            impl.scale,
            own.causal,
            impl.alibi_slopes,
            impl.sliding_window,
            own.block_table,
            impl.logits_soft_cap,
            own.scheduler_metadata,
            impl.sinks,
            own.dynamic_causal,
            *scales,
        )

    def _split(self, cache: torch.Tensor) -> None:
        """Cache [blocks, heads, block size, 2 * head_dim] -> keys and values [blocks, heads, block size, head_dim]."""
        blocks, heads, size, _ = cache.size()
        self.cache = cache
        self.keys, self.values = cache.view(blocks, heads, size * 2, -1).chunk(2, dim=2)
