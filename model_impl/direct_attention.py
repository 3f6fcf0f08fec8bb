"""vLLM's attention on CPU for a step of few rows, without what lies between a layer and its two kernels.

The layer calls two operators that look up their own layer by name and take its cache apart, every time: more than half
of the time of a short attention (docs/performance.md).
"""

from __future__ import annotations

from typing import Any

import torch
from vllm import _custom_ops as ops
from vllm.distributed.kv_transfer import has_kv_transfer_group
from vllm.forward_context import get_forward_context
from vllm.model_executor.layers.attention import Attention
from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackendImpl


class DirectAttention:
    """Of one layer, for causal attention of a decoder without further features."""

    def __init__(self, attention: Attention) -> None:
        self.attention: Any = attention
        self.heads, self.head_dim = attention.num_heads, attention.head_size
        self.possible = isinstance(attention.impl, CPUAttentionBackendImpl)
        self.cache: torch.Tensor | None = None

    def __call__(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """All [T, heads * head_dim]; keys and values are cached. As vLLM's layer, which is asked where something is
        unusual: without a cache yet, with speculative decoding, with caches that are sent elsewhere."""
        layer, context = self.attention, get_forward_context()
        metadata, slots = context.attn_metadata, context.slot_mapping
        if not (self.possible and isinstance(metadata, dict) and isinstance(slots, dict)) or has_kv_transfer_group():
            found: torch.Tensor = layer(query, key, value)
            return found
        own: Any = metadata[layer.layer_name]
        impl = layer.impl
        if self.cache is not layer.kv_cache:
            self._split(layer.kv_cache)
        output = torch.empty_like(query)
        query, key, value = (rows.view(-1, self.heads, self.head_dim) for rows in (query, key, value))
        scales = layer._k_scale_float, layer._v_scale_float, impl.kv_cache_dtype
        ops.cpu_attn_reshape_and_cache(key, value, self.keys, self.values, slots[layer.layer_name], layer.isa, *scales)
        count = own.num_actual_tokens  # the other rows are padding
        ops.cpu_attention_with_kv_cache(
            query[:count],
            self.keys,
            self.values,
            output.view(-1, self.heads, self.head_dim)[:count],
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
        return output

    def _split(self, cache: torch.Tensor) -> None:
        """Cache [blocks, heads, block size, 2 * head_dim] -> keys and values [blocks, heads, block size, head_dim]."""
        blocks, heads, size, _ = cache.size()
        self.cache = cache
        self.keys, self.values = cache.view(blocks, heads, size * 2, -1).chunk(2, dim=2)
