"""vLLM's compiled operators on the GPU, against their stand-ins: the first step of `make gpu-check`.

If they are missing or wrong, the step fails, and the following steps run on the stand-ins.
"""

from __future__ import annotations

import sys

import torch
import torch.nn.functional as F
from vllm.platforms import current_platform

from scripts.gpu.plugin import gpu_stand_ins


def main() -> None:
    assert current_platform.is_cuda(), current_platform
    print(torch.cuda.get_device_name(), torch.__version__, torch.version.cuda, flush=True)
    if sys.modules[gpu_stand_ins.OPERATORS].__spec__ is None:
        raise SystemExit("the compiled operators do not load")
    generator = torch.Generator("cuda").manual_seed(0)
    rotation(generator)
    penalties(generator)
    kept = torch.randn(8, device="cuda", generator=generator)
    torch.testing.assert_close(torch.ops._C.weak_ref_tensor(kept), kept)
    attention(generator)
    print("compiled operators agree with their stand-ins")


def rotation(generator: torch.Generator) -> None:
    positions = torch.arange(5, device="cuda")
    table = torch.randn(16, 16, device="cuda", generator=generator)
    for neox in (True, False):
        query, key = (torch.randn(5, 4 * 64, device="cuda", generator=generator) for _ in range(2))
        found = query.clone(), key.clone()
        torch.ops._C.rotary_embedding(positions, *found, 64, table, neox)
        gpu_stand_ins.rotary_embedding(positions, query, key, 64, table, neox)
        torch.testing.assert_close(found, (query, key))


def penalties(generator: torch.Generator) -> None:
    logits = torch.randn(3, 1000, device="cuda", generator=generator)
    prompt, output = (torch.rand(3, 1000, device="cuda", generator=generator) < 0.3 for _ in range(2))
    factors, expected = torch.tensor([1.0, 1.3, 0.7], device="cuda"), logits.clone()
    torch.ops._C.apply_repetition_penalties_(logits, prompt, output, factors)
    gpu_stand_ins.apply_repetition_penalties_(expected, prompt, output, factors)
    torch.testing.assert_close(logits, expected)


def attention(generator: torch.Generator) -> None:
    """FlashAttention 3 of one prompt, in the sizes of the 150M and the 1.5B models."""
    from vllm.vllm_flash_attn import flash_attn_varlen_func

    for size in (64, 96):
        q, k, v = (torch.randn(200, 4, size, device="cuda", generator=generator).bfloat16() for _ in range(3))
        ends = torch.tensor([0, 200], device="cuda", dtype=torch.int32)
        found = flash_attn_varlen_func(
            q, k, v, cu_seqlens_q=ends, cu_seqlens_k=ends, max_seqlen_q=200, max_seqlen_k=200, causal=True, fa_version=3
        )
        q, k, v = (rows.transpose(0, 1)[None].float() for rows in (q, k, v))
        expected = F.scaled_dot_product_attention(q, k, v, is_causal=True)[0].transpose(0, 1)
        torch.testing.assert_close(found.float(), expected, atol=2e-2, rtol=2e-2)


if __name__ == "__main__":
    main()
