"""Move weights into large pages, which Linux gives only on request.

A step reads all weights once, in order. With pages of 4 KiB the processor spends a quarter of that time on address
translation (docs/performance.md).
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterable

PAGE = 2 << 20
MADV_HUGEPAGE, MADV_COLLAPSE = 14, 25
"""Constants of <sys/mman.h>: collapse when there is time, and collapse now (refused before Linux 6.1)."""


def use_large_pages(ranges: Iterable[tuple[int, int]]) -> None:
    """`ranges`: addresses and lengths in bytes. Where the system refuses, the pages stay as they are."""
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    for start, length in ranges:
        # Pages at the ends may reach into neighbours; pages that are not mapped throughout are left out.
        around = start // PAGE * PAGE, -(-(start + length) // PAGE) * PAGE
        within = -(-start // PAGE) * PAGE, (start + length) // PAGE * PAGE
        for first, end in (around, within):
            if end > first and libc.madvise(first, end - first, MADV_HUGEPAGE) == 0:
                libc.madvise(first, end - first, MADV_COLLAPSE)
                break
