"""The Triton kernels on the GPU at hand, beside cuBLAS and eager PyTorch: the part of `loadtest.kernels` for GPUs.

Pattentions of the released sizes by each way through the kernels, with the one that `choose` takes; the row operation
alone; the statistics of logits. In bfloat16, then float16 and float32. Microseconds are medians. `limit` is the time to
read all inputs and write all outputs once, at the rate of a large copy on the same GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, get_args

import torch

from model_impl.config import NormGroup
from model_impl.kernels.gpu import operators as kernels
from model_impl.kernels.gpu.choice import Way, choose
from model_impl.kernels.gpu.layout import Layout
from model_impl.kernels.gpu.pattention import WholePattention
from model_impl.kernels.statistics import eager_token_statistics
from model_impl.reference.pattention import activate, pattention

SIZES = {"150M": (768, 3072), "450M": (1024, 4096), "900M": (1280, 5120), "1.5B": (1536, 6144)}
"""Width, and parameter tokens of the feed-forward; output projections have as many as the width."""

DTYPES = {torch.bfloat16: (1, 4, 16, 64, 256, 1024, 4096), torch.float16: (1, 16, 256), torch.float32: (1, 16, 256)}
"""With the numbers of rows that are measured in each."""
WORDS, LOGIT_ROWS = 50277, (1, 16, 64, 256)


def microseconds(run: Callable[[], object]) -> float:
    from triton.testing import do_bench

    return round(1000 * do_bench(run, warmup=25, rep=100, return_mode="median"), 2)


def bytes_per_microsecond() -> float:
    source = torch.empty(2**30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.numel() / microseconds(lambda: target.copy_(source))


def pattention_case(dtype: torch.dtype, rows: int, tokens: int, width: int, rate: float) -> dict[str, Any]:
    keys, values, x = (torch.randn(size, width, device="cuda", dtype=dtype) * 0.05 for size in (tokens, tokens, rows))
    outputs = values.t().contiguous()
    coupling, tau = torch.ones(1, 1, 1, device="cuda"), torch.full((1, 1, 1), tokens**0.5, device="cuda")
    groups = [NormGroup(0, tokens, tokens**0.5)]
    whole = WholePattention.of(keys, [outputs], [[tokens]], "l2_norm_gelu").with_grams()
    ways = {way: microseconds(lambda way=way: whole(x, coupling, tau, way)) for way in get_args(Way)}
    return {
        "dtype": str(dtype),
        "rows": rows,
        "tokens": tokens,
        "width": width,
        "eager": microseconds(lambda: pattention(x, keys, values, groups, "l2_norm_gelu")),
        **ways,
        "fastest": min(ways, key=ways.__getitem__),
        "chosen": choose(rows, tokens, width, has_grams=True),
        "limit": round(dtype.itemsize * (2 * tokens + 2 * rows) * width / rate, 2),
    }


def row_case(dtype: torch.dtype, rows: int, tokens: int, rate: float) -> dict[str, Any]:
    scores, layout = torch.randn(rows, tokens, device="cuda", dtype=dtype), Layout.of([[tokens]], "cuda")
    coupling, tau = torch.ones(1, 1, 1, device="cuda"), torch.full((1, 1, 1), tokens**0.5, device="cuda")
    return {
        "dtype": str(dtype),
        "rows": rows,
        "tokens": tokens,
        "eager": microseconds(lambda: activate(scores, tokens**0.5, "l2_norm_gelu")),
        "kernel": microseconds(lambda: kernels.row_operation(scores, layout, coupling, tau, "l2_norm_gelu")),
        "limit": round(dtype.itemsize * 2 * rows * tokens / rate, 2),
    }


def statistics_case(dtype: torch.dtype, rows: int, rate: float) -> dict[str, Any]:
    logits = torch.randn(rows, 50304, device="cuda", dtype=dtype)[:, :WORDS]
    return {
        "dtype": str(dtype),
        "rows": rows,
        "words": WORDS,
        "eager": microseconds(lambda: eager_token_statistics(logits)),
        "kernel": microseconds(lambda: kernels.token_statistics(logits)),
        "limit": round(dtype.itemsize * rows * WORDS / rate, 2),
    }


def figures() -> Iterator[dict[str, Any]]:
    """The figures so far, after each measurement, as the time may not suffice for all."""
    rate = bytes_per_microsecond()
    shapes = [(tokens, width) for width, ffn in SIZES.values() for tokens in (width, ffn)]
    found: dict[str, Any] = {"gpu": torch.cuda.get_device_name(), "copy_gb_per_s": round(rate / 1000)}
    found |= {"pattention": [], "row_operation": [], "token_statistics": []}
    for dtype, numbers in DTYPES.items():
        found["token_statistics"] += [statistics_case(dtype, rows, rate) for rows in LOGIT_ROWS]
        for tokens, width in shapes:
            found["row_operation"] += [row_case(dtype, rows, tokens, rate) for rows in numbers]
            found["pattention"] += [pattention_case(dtype, rows, tokens, width, rate) for rows in numbers]
            yield found
