"""vLLM's CUDA platform where its compiled operators may be missing: plain PyTorch stands in for them.

vLLM calls `platform` in every process, before anything of it imports an operator. Compiled libraries that are there
and load are left alone. Attention then falls back to Triton by vLLM's own choice, as FlashAttention is compiled too.
"""

from __future__ import annotations

import importlib
import os
import sys
from importlib.util import find_spec
from types import ModuleType

import torch

FORCED = "GPU_STAND_INS"
"""Environment variable: 1 takes the stand-ins although the compiled operators are there."""

OPERATORS = "vllm._C_stable_libtorch"
FLASH_ATTENTION = "vllm.vllm_flash_attn"
FLASH_BACKEND = "vllm.v1.attention.backends.flash_attn"

LIBRARIES: list[torch.library.Library] = []
"""Operators live as long as the object that defined them."""

NAMED_ONLY = (
    "dynamic_per_token_scaled_fp8_quant",
    "dynamic_scaled_fp8_quant",
    "fused_add_rms_norm",
    "fused_add_rms_norm_static_fp8_quant",
    "fused_qk_norm_rope",
    "rms_norm",
    "rms_norm_dynamic_per_token_quant",
    "rms_norm_static_fp8_quant",
    "silu_and_mul",
    "silu_and_mul_per_block_quant",
    "silu_and_mul_quant",
    "static_scaled_fp8_quant",
)
"""Operators that vLLM's compiler passes name when they are imported. No model of ours calls them."""


def platform() -> str:
    """The platform's class; vLLM resolves this entry point to find its device."""
    if find_spec("flashinfer") is None:  # vLLM's sampler takes it to be installed
        os.environ.setdefault("VLLM_USE_FLASHINFER_SAMPLER", "0")
    if os.environ.get(FORCED) == "1" or not loads(OPERATORS):
        stand_in()
    return "vllm.platforms.cuda.CudaPlatform"


def loads(module: str) -> bool:
    try:
        importlib.import_module(module)
    except ImportError:
        return False
    return True


def stand_in() -> None:
    """Register the operators and put modules in place of the compiled ones; may be repeated."""
    if OPERATORS in sys.modules:
        return
    sys.modules[OPERATORS] = ModuleType(OPERATORS)
    sys.modules[FLASH_ATTENTION] = missing_flash_attention()
    sys.modules[FLASH_BACKEND] = None  # type: ignore[assignment]  # an ImportError, by which vLLM passes it over
    define_operators("_C")


def define_operators(namespace: str) -> None:
    library = torch.library.Library(namespace, "FRAGMENT")
    LIBRARIES.append(library)
    for schema, function in (
        (
            "rotary_embedding(Tensor positions, Tensor! query, Tensor!? key, int head_size, Tensor cos_sin_cache, "
            "bool is_neox, int rope_dim_offset=0, bool inverse=False) -> ()",
            rotary_embedding,
        ),
        (
            "apply_repetition_penalties_(Tensor! logits, Tensor prompt_mask, Tensor output_mask, "
            "Tensor repetition_penalties) -> ()",
            apply_repetition_penalties_,
        ),
        ("weak_ref_tensor(Tensor(a) tensor) -> Tensor(a)", weak_ref_tensor),
        ("cutlass_scaled_mm_supports_block_fp8(int capability) -> bool", supports_no_block_fp8),
    ):
        library.define(schema)
        library.impl(schema.partition("(")[0], function, "CompositeExplicitAutograd")
    for name in NAMED_ONLY:
        library.define(f"{name}() -> ()")


def missing_flash_attention() -> ModuleType:
    """The names that modules of vLLM import whether or not they use FlashAttention."""
    module = ModuleType(FLASH_ATTENTION)
    for name in ("compile_flash_attn_varlen_func_from_specs", "flash_attn_varlen_func", "get_scheduler_metadata"):
        setattr(module, name, not_compiled)
    return module


def not_compiled(*arguments: object, **options: object) -> None:
    raise RuntimeError("FlashAttention is not compiled here")


def supports_no_block_fp8(capability: int) -> bool:
    """vLLM asks for it when it imports its quantised layers."""
    return False


def rotary_embedding(
    positions: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor | None,
    head_size: int,
    cos_sin_cache: torch.Tensor,
    is_neox: bool,
    rope_dim_offset: int = 0,
    inverse: bool = False,
) -> None:
    """Rotates query and key [T, heads * head_size], or [T, heads, head_size], in place. `cos_sin_cache` [positions,
    rotary] holds the cosines and then the sines; `is_neox` pairs the halves, and else neighbours are pairs."""
    cos, sin = cos_sin_cache[positions.flatten()].float().chunk(2, dim=-1)
    cos, sin = cos[:, None], -sin[:, None] if inverse else sin[:, None]
    rotary = cos_sin_cache.shape[-1]
    for rows in (query, key):
        if rows is None:
            continue
        part = rows.view(cos.shape[0], -1, head_size)[..., rope_dim_offset : rope_dim_offset + rotary]
        first, second = part.float().chunk(2, dim=-1) if is_neox else (part[..., ::2].float(), part[..., 1::2].float())
        turned = (first * cos - second * sin, second * cos + first * sin)
        part.copy_(torch.cat(turned, dim=-1) if is_neox else torch.stack(turned, dim=-1).flatten(-2))


def apply_repetition_penalties_(
    logits: torch.Tensor, prompt_mask: torch.Tensor, output_mask: torch.Tensor, repetition_penalties: torch.Tensor
) -> None:
    """Divides positive logits [N, V] of the words that occurred by the row's penalty, and multiplies negative ones."""
    penalties = torch.where(prompt_mask | output_mask, repetition_penalties[:, None], 1.0)
    logits.copy_(torch.where(logits > 0, logits / penalties, logits * penalties))


def weak_ref_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor itself. vLLM's does not keep the memory, which only makes CUDA graphs cheaper."""
    return tensor
