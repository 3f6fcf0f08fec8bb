"""The choice between our product and oneDNN's, by a measurement on the processor at hand.

Our product of few rows (csrc/packed.c) beats oneDNN's on the processors that it was measured on, which says nothing
about others (docs/performance.md). So both multiply a few rows of every shape when weights are loaded.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import takewhile
from time import perf_counter

import torch

from model_impl.kernels.cpu import library as cpu_kernels

ROWS = (1, 4, 16, 64)
REPETITIONS = 7
"""Repetitions, of which the fastest counts: other processes can only slow a product down."""
MARGIN = 1.1
"""The ratio up to which ours is taken: a smaller difference may be noise, and ours saves a call through PyTorch."""

Product = Callable[[torch.Tensor], object]


def rows_worth(ours: Product, theirs: Product, width: int, dtype: torch.dtype) -> int:
    """The largest of `ROWS` up to which `ours` takes no longer than `theirs` for x [rows, width], or 0.

    A single thread measures: threads that wait for each other lose whole time slices to other processes.
    """
    inputs = [torch.zeros(rows, width, dtype=dtype) for rows in ROWS]
    with ThreadPoolExecutor(1, initializer=_leave_other_threads_alone) as alone:
        ratios = alone.submit(lambda: [_ratio(ours, theirs, x) for x in inputs]).result()
    return worthwhile(ratios)


def worthwhile(ratios: Sequence[float]) -> int:
    """`ratios` of times, ours by theirs, for each of `ROWS`."""
    wins = [rows for rows, _ in takewhile(lambda pair: pair[1] <= MARGIN, zip(ROWS, ratios, strict=True))]
    return wins[-1] if wins else 0


def _ratio(ours: Product, theirs: Product, x: torch.Tensor) -> float:
    times: list[list[float]] = [[], []]
    for product in (ours, theirs):
        product(x)  # oneDNN compiles a product at its first use
    for _ in range(REPETITIONS):
        for taken, product in zip(times, (ours, theirs), strict=True):
            start = perf_counter()
            product(x)
            taken.append(perf_counter() - start)
    return min(times[0]) / min(times[1])


def _leave_other_threads_alone() -> None:
    """Set OpenMP's threads to one. The number belongs to the calling thread; PyTorch sets it before its first work."""
    torch.zeros(1 << 16).add_(1)
    kernels = cpu_kernels.library()
    assert kernels is not None
    kernels.omp_set_num_threads(ctypes.c_int(1))
