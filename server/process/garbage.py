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

from server.gate.admission import AdmissionControl

EVERY_SECONDS, LONGEST_SECONDS = 10.0, 300.0
"""Time between two collections; the second while large answers are always being made."""

NOTICE_SECONDS = 0.5
"""Time between two checks for large answers."""

LARGE = 1 << 15
"""Number of cells (see `server.gate.weight`) being made, from which a collection would delay others too long."""

NEVER = 1 << 30


class Garbage:
    def __init__(self, control: AdmissionControl) -> None:
        self.control, self.last = control, time.monotonic()

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
        if not large:
            give_back()
        self.last = time.monotonic()


def give_back() -> None:
    """Have glibc return freed memory to the system; other C libraries have no such call.

    It takes a millisecond, after large answers 5 to 16. It does not wait for the process to grow: what was in use at
    the last call may be free now, with no growth since.
    """
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "malloc_trim"):
        library.malloc_trim(0)
