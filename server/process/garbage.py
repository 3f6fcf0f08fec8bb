"""Full garbage collections, and the return of freed memory to the system, between large answers.

A logprob is several objects. A full collection of the million objects of a large answer stops the event loop for a
second, and by default Python starts one whenever the number has grown by a quarter.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import sys
import time

import psutil

from server.gate.admission import AdmissionControl

EVERY_SECONDS, LONGEST_SECONDS = 10.0, 300.0
"""Time between two collections; the second while large answers are always being made."""

NOTICE_SECONDS = 0.5
"""Time between two checks for large answers."""

LARGE = 1 << 15
"""Number of cells (see `server.gate.weight`) being made, from which a collection would delay others too long."""

GROWN = 16 << 20
"""Growth in bytes after which the C library returns its free memory. Large request bodies leave as much as answers."""

NEVER = 1 << 30


class Garbage:
    def __init__(self, control: AdmissionControl) -> None:
        self.control, self.last, self.resident = control, time.monotonic(), resident()

    async def run(self) -> None:
        young, middle, _ = gc.get_threshold()
        gc.set_threshold(young, middle, NEVER)
        while True:
            await asyncio.sleep(NOTICE_SECONDS)
            self.check()

    def check(self) -> None:
        large = self.control.cells > LARGE
        if time.monotonic() - self.last < (LONGEST_SECONDS if large else EVERY_SECONDS):
            return
        gc.collect()
        if not large and resident() > self.resident + GROWN:
            give_back()
            self.resident = resident()
        self.last = time.monotonic()


def resident() -> int:
    """Bytes of this process in memory."""
    return int(psutil.Process().memory_info().rss)


def give_back() -> None:
    """Have glibc return freed memory to the system; other C libraries have no such call."""
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "malloc_trim"):
        library.malloc_trim(0)
