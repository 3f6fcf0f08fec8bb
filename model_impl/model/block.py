"""One block of the Tokenformer on vLLM: Pattention projections around attention over the paged KV cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from vllm.config import CacheConfig
from vllm.distributed import (
    get_tensor_model_parallel_rank,
    get_tensor_model_parallel_world_size,
    tensor_model_parallel_all_gather,
)
from vllm.model_executor.layers.attention import Attention
from vllm.model_executor.layers.layernorm import LayerNorm
from vllm.model_executor.layers.quantization import QuantizationConfig
from vllm.model_executor.layers.rotary_embedding import get_rope
from vllm.platforms import current_platform

from model_impl.config import TokenformerConfig
from model_impl.kernels.cpu.block import PackedBlock
from model_impl.model.pattention import ParallelPattention
from model_impl.model.report import StepReport
from model_impl.reference.row_operation import sum_over_ranks
from model_impl.variants import Selection


class TokenformerAttention(nn.Module):
    """Causal attention over the paged KV cache; keys are cached after rotary."""

    def __init__(
        self,
        config: TokenformerConfig,
        cache_config: CacheConfig | None,
        quant_config: QuantizationConfig | None,
        prefix: str,
    ) -> None:
        super().__init__()
        self.tp_rank, self.tp_size = get_tensor_model_parallel_rank(), get_tensor_model_parallel_world_size()
        if config.num_attention_heads % self.tp_size:
            raise ValueError(f"{config.num_attention_heads} heads do not divide over {self.tp_size} ranks")
        self.num_heads = config.num_attention_heads // self.tp_size
        self.head_dim = config.head_dim
        self.cached_head_dim = cached_head_dim(config.head_dim)
        self.qkv = ParallelPattention(config, ("query", "key", "value"), quant_config, f"{prefix}.qkv")
        self.output = ParallelPattention(config, ("output",), quant_config, f"{prefix}.output")
        self.rotary = get_rope(
            config.head_dim,
            max_position=config.max_position_embeddings,
            rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta, "rope_dim": config.rotary_dim},
        )
        self.rotate: Callable[..., Any] = self.rotary.forward_native if cpu_kernel_crashes(config) else self.rotary
        self.attn = Attention(
            self.num_heads,
            self.cached_head_dim,
            config.head_dim**-0.5,
            cache_config=cache_config,
            quant_config=quant_config,
            prefix=f"{prefix}.attn",
        )

    def forward(
        self, positions: torch.Tensor, x: torch.Tensor, selection: Selection, report: StepReport | None
    ) -> torch.Tensor:
        query, key, value = self.own_heads(self.qkv(x, selection, report))
        query, key = self.rotate(positions, query, key)
        mixed = self.mix(query, key, value)
        # Heads are split over ranks, but every parameter token scores whole rows.
        if self.tp_size > 1:
            mixed = tensor_model_parallel_all_gather(mixed)
        return sum_over_ranks(self.output(mixed, selection, report)[0])

    def mix(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Attention of this rank's heads, all [T, its share of d]; keys and values are cached."""
        padding = self.cached_head_dim - self.head_dim
        if padding:
            query, key, value = (self.pad_heads(rows, padding) for rows in (query, key, value))
        mixed: torch.Tensor = self.attn(query, key, value)
        if padding:
            mixed = mixed.view(-1, self.num_heads, self.cached_head_dim)[..., : self.head_dim].flatten(1).contiguous()
        return mixed

    def own_heads(self, shares: list[torch.Tensor]) -> list[torch.Tensor]:
        """Sum the ranks' shares of query, key and value [T, d] in one all-reduce; keep this rank's heads."""
        if self.tp_size == 1:
            return shares
        width = shares[0].shape[-1] // self.tp_size
        whole = sum_over_ranks(torch.stack(shares))
        return list(whole[..., self.tp_rank * width : (self.tp_rank + 1) * width].contiguous())

    def pad_heads(self, rows: torch.Tensor, padding: int) -> torch.Tensor:
        return F.pad(rows.view(-1, self.num_heads, self.head_dim), (0, padding)).flatten(1)


class TokenformerBlock(nn.Module):
    """Pre-norm, sequential: x += attention(LN x), then x += ffn(LN x)."""

    def __init__(
        self,
        config: TokenformerConfig,
        cache_config: CacheConfig | None,
        quant_config: QuantizationConfig | None,
        prefix: str,
    ) -> None:
        super().__init__()
        affine, eps = config.affine_block_norms, config.layer_norm_eps
        self.input_layernorm = LayerNorm(config.hidden_size, eps, elementwise_affine=affine)
        self.attention = TokenformerAttention(config, cache_config, quant_config, f"{prefix}.attention")
        self.post_attention_layernorm = LayerNorm(config.hidden_size, eps, elementwise_affine=affine)
        self.ffn = ParallelPattention(config, ("ffn",), quant_config, f"{prefix}.ffn")

    def forward(
        self, positions: torch.Tensor, x: torch.Tensor, selection: Selection, report: StepReport | None
    ) -> torch.Tensor:
        x = x + self.attention(positions, self.input_layernorm(x), selection, report)
        return x + sum_over_ranks(self.ffn(self.post_attention_layernorm(x), selection, report)[0])

    def modules_in_order(self) -> tuple[ParallelPattention, ParallelPattention, ParallelPattention]:
        return self.attention.qkv, self.attention.output, self.ffn

    def prepare_masks(self, members: torch.Tensor) -> None:
        """`ParallelPattention.prepare_masks` of its modules."""
        for module in self.modules_in_order():
            module.prepare_masks(members)

    def pack(self) -> None:
        """Pack the weights for CPUs when they are loaded; `packed` tells afterwards whether they are."""
        for module in self.modules_in_order():
            module.pack()

    def packed(self) -> None:
        """Called when all weights are final."""
        for module in self.modules_in_order():
            module.packed()

    def small_batch(self, layer: int) -> PackedBlock | None:
        """The packed block, number `layer` of this rank; None unless all parts are packed and there are no deltas."""
        query_key_value, output, ffn = (module.small_batch for module in self.modules_in_order())
        if query_key_value is None or output is None or ffn is None:
            return None
        norms = self.input_layernorm, self.post_attention_layernorm
        rotation, head_dim = self.attention.rotary.cos_sin_cache, self.attention.head_dim
        return PackedBlock(layer, norms, (query_key_value, output, ffn), rotation, head_dim)


def cached_head_dim(head_dim: int) -> int:
    """The head size in the KV cache: the next one that the attention kernels take; zeros fill it up.

    Zero dimensions change neither the query-key products nor, once sliced off, the output. On a GPU, Triton's attention
    takes 32 and more, and FlashAttention multiples of 8; for all else vLLM falls back to FlexAttention.
    """
    if not current_platform.is_cpu():
        return max(32, -(-head_dim // 8) * 8)
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

    fitting = [size for size in CPUAttentionBackend.get_supported_head_sizes() if size >= head_dim]
    if not fitting:
        raise ValueError(f"the CPU attention kernel has no head size of {head_dim} or more")
    return min(fitting)


def cpu_kernel_crashes(config: TokenformerConfig) -> bool:
    """Whether vLLM's CPU rotary kernel would store bfloat16 at unaligned addresses, which kills the process.

    The 900M model is an example.

    It stores eight numbers at once, to addresses that must be multiples of their 16 bytes. Heads, and the halves that
    are rotated against each other, have to start there. It stores halves shorter than eight one by one.
    """
    half = config.rotary_dim // 2
    return current_platform.is_cpu() and half >= 8 and (half % 8 > 0 or config.head_dim % 8 > 0)
