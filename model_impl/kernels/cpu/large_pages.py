"""Move memory that is read throughout into large pages, which Linux gives by itself only to those who ask.

A step reads all weights once, in order: with pages of 4 KiB the processor spends a quarter of the time looking up where
they lie (docs/performance.md).
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterable

PAGE = 2 << 20
MADV_HUGEPAGE, MADV_COLLAPSE = 14, 25
"""Of <sys/mman.h>: do it when there is time; do it now (since Linux 6.1, refused before)."""


def use_large_pages(ranges: Iterable[tuple[int, int]]) -> None:
    """`ranges`: addresses and lengths in bytes. Where the system does not want to, everything stays as it is."""
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    for start, length in ranges:
        # Pages at the ends may reach into neighbours; where there is nothing mapped, they are left out.
        around = start // PAGE * PAGE, -(-(start + length) // PAGE) * PAGE
        within = -(-start // PAGE) * PAGE, (start + length) // PAGE * PAGE
        for first, end in (around, within):
            if end > first and libc.madvise(first, end - first, MADV_HUGEPAGE) == 0:
                libc.madvise(first, end - first, MADV_COLLAPSE)
                break
