"""The kernels compiled for CPUs (csrc/), built with the package where there is a C compiler.

They are compiled once per level of the processor, as blocking follows the width and the number of registers. Without
them PyTorch does their work.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from itertools import takewhile
from typing import TypeVar

import torch

Mirror = TypeVar("Mirror", bound=ctypes.Structure)

DTYPES = (torch.float32, torch.bfloat16)
"""The dtypes that the kernels read and write. float16 is left to PyTorch: few processors have fast vectors of it."""

LEVELS = ("default", "avx2", "avx512", "avx512_bf16")
"""The levels that setup.py compiles for, each on top of all before it."""

MAX_LEVEL = "TOKENFORMER_MAX_CPU_LEVEL"
"""Environment variable: the highest level to use. oneDNN's is ONEDNN_MAX_CPU_ISA, PyTorch's ATEN_CPU_CAPABILITY."""


def level() -> str:
    """The highest of `LEVELS` that the processor has and `MAX_LEVEL` allows. Raises ValueError for an unknown one."""
    most = os.environ.get(MAX_LEVEL, LEVELS[-1])
    if most not in LEVELS:
        raise ValueError(f"{MAX_LEVEL} must be one of {', '.join(LEVELS)}, not {most!r}")
    found = (
        torch.cpu._is_avx2_supported(),
        torch.cpu._is_avx512_supported(),
        torch.cpu._is_avx512_bf16_supported(),
    )
    return LEVELS[min(len(list(takewhile(bool, found))), LEVELS.index(most))]


@cache
def library() -> ctypes.CDLL | None:
    """The kernels of the processor's level, or of the next lower one that was built; None where none was.

    They share PyTorch's OpenMP and its threads.
    """
    for name in reversed(LEVELS[: LEVELS.index(level()) + 1]):
        spec = find_spec(f"model_impl.kernels.cpu._library_{name}")
        if spec is not None and spec.origin is not None:
            return _declared(ctypes.CDLL(spec.origin))
    return None


def _declared(found: ctypes.CDLL) -> ctypes.CDLL:
    found.token_statistics.argtypes = [*[ctypes.c_void_p] * 2, *[ctypes.c_int64] * 5, *[ctypes.c_void_p] * 2]
    found.token_statistics.restype = None
    found.packed_product.argtypes = [*[ctypes.c_void_p] * 3, ctypes.c_int64]
    found.packed_product.restype = None
    found.packed_part.argtypes = [*[ctypes.c_void_p] * 3, *[ctypes.c_int64] * 3]
    found.packed_part.restype = None
    found.likeliest_words.argtypes = [ctypes.c_void_p, *[ctypes.c_int64] * 5, *[ctypes.c_void_p] * 2]
    found.add_parts.argtypes = [ctypes.c_void_p, *[ctypes.c_int64] * 2, ctypes.c_void_p, ctypes.c_int64]
    found.report_rows.argtypes = [ctypes.c_void_p] * 2
    found.likeliest_words.restype = found.add_parts.restype = found.report_rows.restype = None
    found.field_offset.argtypes = [ctypes.c_char_p] * 2
    found.field_offset.restype = ctypes.c_int64
    return found


class LayoutError(RuntimeError):
    """A structure that the compiled kernels and Python lay out differently."""


def mirrors(name: str) -> Callable[[type[Mirror]], type[Mirror]]:
    """Class decorator: holds the structure's size and the offset of every field to those of `name` in csrc/."""

    def check(mirror: type[Mirror]) -> type[Mirror]:
        if (kernels := library()) is None:
            return mirror
        own = {field[0]: getattr(mirror, field[0]).offset for field in mirror._fields_} | {"": ctypes.sizeof(mirror)}
        for field, offset in own.items():
            if (compiled := kernels.field_offset(name.encode(), field.encode())) != offset:
                place = f"the offset of {field}" if field else "the size"
                raise LayoutError(
                    f"{mirror.__name__} is not the structure {name} of the compiled kernels: {place} is {offset} here "
                    f"and {compiled} there. Build the kernels again (make setup)."
                )
        return mirror

    return check


def supports(tensor: torch.Tensor) -> bool:
    """Whether the kernels take this tensor. A compiler cannot look into them and keeps PyTorch's operators."""
    return (
        tensor.device.type == "cpu"
        and tensor.dtype in DTYPES
        and not torch.compiler.is_compiling()
        and library() is not None
    )


def token_statistics(logits: torch.Tensor) -> torch.Tensor:
    """As `model_impl.kernels.statistics.token_statistics`."""
    rows = logits.reshape(-1, logits.shape[-1])
    statistics = torch.empty(*logits.shape[:-1], 3, dtype=torch.float32)
    _fill(rows, statistics.data_ptr(), 3, None, None)
    return statistics


def chosen_and_statistics(
    logits: torch.Tensor, chosen: torch.Tensor, columns: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The chosen tokens' logprobs and ranks and the token statistics, in one reading of the logits.

    logits [N, V] and `chosen` int64 [N] -> float32 [N, columns] and ranks int64 [N]. The columns are the logprob, the
    statistics, and others that the caller fills. The rank counts the tokens that are at least as likely.
    """
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
