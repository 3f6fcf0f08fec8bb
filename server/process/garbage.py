"""When Python's garbage collector looks through everything, and when freed memory returns to the system.

Both happen between large answers, and not while they are made.

A logprob is several objects, and a look through the million of a large answer stops the event loop for a second. Left
to itself the collector looks again whenever there are a quarter more.
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
"""Between two looks; the second while large answers are under way all the time."""

NOTICE_SECONDS = 0.5
"""For a large answer to be noticed."""

LARGE = 1 << 15
"""Cells under way, see `server.gate.weight`, from which a look takes longer than others should wait."""

GROWN = 16 << 20
"""Bytes of growth from which the C library is asked to return what it keeps. Large bodies leave as much as answers."""

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
    """Let the C library return freed memory to the system, where it is glibc."""
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "malloc_trim"):
        library.malloc_trim(0)
