"""The kernels compiled for CPUs (all of *_kernel.c), built with the package where a C compiler is.

Without one, PyTorch does their work.
"""

from __future__ import annotations

import ctypes
from functools import cache
from importlib.util import find_spec

import torch

DTYPES = (torch.float32, torch.bfloat16)
"""What they read and write. float16 is left to PyTorch: processors that run it well in vectors are few."""


@cache
def library() -> ctypes.CDLL | None:
    """None where it was not built. Its OpenMP is the one that PyTorch has loaded, and so are its threads."""
    spec = find_spec("model_impl._cpu_kernels")
    if spec is None or spec.origin is None:
        return None
    found = ctypes.CDLL(spec.origin)
    found.token_statistics.argtypes = [*[ctypes.c_void_p] * 2, *[ctypes.c_int64] * 5, *[ctypes.c_void_p] * 2]
    found.token_statistics.restype = None
    found.packed_product.argtypes = [*[ctypes.c_void_p] * 3, ctypes.c_int64]
    found.packed_product.restype = None
    found.internals_columns.argtypes = [
        ctypes.c_void_p,
        ctypes.c_int64,
        *[ctypes.c_void_p] * 3,
        ctypes.c_int64,
        ctypes.c_void_p,
    ]
    found.internals_columns.restype = None
    return found


def take(tensor: torch.Tensor) -> bool:
    """Whether they take this one. A compiler cannot look into them and is better left to PyTorch's operators."""
    return (
        tensor.device.type == "cpu"
        and tensor.dtype in DTYPES
        and not torch.compiler.is_compiling()
        and library() is not None
    )


def token_statistics(logits: torch.Tensor) -> torch.Tensor:
    """As `model_impl.uncertainty.token_statistics`."""
    rows = logits.reshape(-1, logits.shape[-1])
    statistics = torch.empty(*logits.shape[:-1], 3, dtype=torch.float32)
    _fill(rows, statistics.data_ptr(), 3, None, None)
    return statistics


def chosen_and_statistics(
    logits: torch.Tensor, chosen: torch.Tensor, columns: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """In one reading of logits [N, V] with `chosen` tokens int64 [N]: float32 [N, columns], of which the first is the
    chosen token's logprob, then its distribution's statistics, and the rest is left to be filled; and the token's rank,
    int64 [N]: how many are at least as likely."""
    found = torch.empty(len(logits), columns, dtype=torch.float32)
    ranks = torch.empty(len(logits), dtype=torch.int64)
    _fill(logits, found.data_ptr() + found.itemsize, columns, chosen.contiguous().data_ptr(), ranks.data_ptr())
    return found, ranks


def _fill(rows: torch.Tensor, statistics: int, apart: int, chosen: int | None, ranks: int | None) -> None:
    kernels = library()
    assert kernels is not None
    rows = rows if rows.stride(-1) == 1 else rows.contiguous()
    kind = rows.dtype == torch.bfloat16
    kernels.token_statistics(rows.data_ptr(), statistics, *rows.shape, rows.stride(0), kind, apart, chosen, ranks)
