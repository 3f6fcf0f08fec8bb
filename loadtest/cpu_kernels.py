"""The CPU kernels on the processor at hand, each beside the code that it replaces: a part of `loadtest.kernels`.

Products with the weights of a 150M model: ours, oneDNN's with the same packed weights, PyTorch's with plain ones. The
row operation and the statistics: compiled, and in PyTorch. All take turns; microseconds are medians.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import median
from time import perf_counter
from typing import Any

import torch
import torch.nn.functional as F

from loadtest.shapes import WORDS
from model_impl.config import PROJECTIONS
from model_impl.kernels.cpu import library as cpu_kernels
from model_impl.kernels.cpu.rows import RowKernel
from model_impl.kernels.cpu.weights import PackedWeight, pack
from model_impl.kernels.statistics import eager_token_statistics
from model_impl.reference.pattention import activate
from model_impl.variants import Selection

WEIGHTS = ((2304, 768), (768, 768), (3072, 768), (768, 3072), (WORDS, 768))
"""[N, K]: keys of query, key and value, of the output and of the feed-forward; its values; the head."""
ROWS = (1, 2, 4, 8, 16, 32, 64)
SECONDS = 0.2
"""For each case."""


def microseconds(runs: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Medians of the rounds that fit into `SECONDS`, five at least."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    end = perf_counter() + SECONDS
    while perf_counter() < end or len(times[next(iter(runs))]) < 5:
        for name, run in runs.items():
            start = perf_counter()
            run()
            times[name].append(perf_counter() - start)
    return {name: round(1e6 * median(taken), 1) for name, taken in times.items()}


def product_case(weight: torch.Tensor, packed: PackedWeight, rows: int) -> dict[str, Any]:
    x = torch.randn(rows, weight.shape[1]).to(weight.dtype)
    times = microseconds(
        {
            "ours": lambda: packed.ours(x),
            "onednn": lambda: torch.ops.mkldnn._linear_pointwise(x, packed.packed, None, "none", [], ""),
            "pytorch": lambda: F.linear(x, weight),
        }
    )
    return {"rows": rows, **times, "ours_of_best": round(times["ours"] / min(times["onednn"], times["pytorch"]), 2)}


def product_cases(dtype: torch.dtype) -> list[dict[str, Any]]:
    """The figures of the products; empty where oneDNN packs this dtype in a way that ours does not read."""
    found = []
    for shape in WEIGHTS:
        weight = torch.randn(shape).to(dtype)
        packed = pack(weight)
        if packed is not None:
            named = {
                "weight": list(shape),
                "dtype": str(dtype).removeprefix("torch."),
                "ours_up_to": packed.small_batch,
            }
            found += [named | product_case(weight, packed, rows) for rows in ROWS]
    return found


def row_case(rows: int, tokens: int, dtype: torch.dtype) -> dict[str, Any]:
    scores = torch.randn(rows, tokens).to(dtype)
    kernel = RowKernel(["ffn"], [[tokens]], [[]], "l2_norm_gelu", dtype)
    tau = tokens**0.5
    selection = Selection(torch.ones(1, 1, 1), torch.full((1, len(PROJECTIONS), 1), tau))
    times = microseconds(
        {
            "ours": lambda: kernel(scores, [], selection),
            "pytorch": lambda: activate(scores, tau, "l2_norm_gelu"),
        }
    )
    return {"rows": rows, "tokens": tokens, "dtype": str(dtype).removeprefix("torch."), **times}


def statistics_case(rows: int, dtype: torch.dtype) -> dict[str, Any]:
    logits = (3 * torch.randn(rows, WORDS)).to(dtype)
    times = microseconds(
        {
            "ours": lambda: cpu_kernels.token_statistics(logits),
            "pytorch": lambda: eager_token_statistics(logits),
            "log_softmax": lambda: logits.log_softmax(-1, dtype=torch.float32),
        }
    )
    return {"rows": rows, "words": WORDS, "dtype": str(dtype).removeprefix("torch."), **times}


def figures() -> dict[str, Any]:
    return {
        "threads": torch.get_num_threads(),
        "products": [case for dtype in cpu_kernels.DTYPES for case in product_cases(dtype)],
        "row_operation": [row_case(rows, 3072, dtype) for dtype in cpu_kernels.DTYPES for rows in ROWS],
        "token_statistics": [statistics_case(rows, dtype) for dtype in cpu_kernels.DTYPES for rows in (1, 4, 16, 64)],
    }
