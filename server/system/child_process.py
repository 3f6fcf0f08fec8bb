"""Child processes of the server ignore signals to the whole server, and end when their parent ends.

A supervisor sends SIGTERM, and a terminal SIGINT, to every process of the server. Only the first process may act on
it: the others are needed until the running requests are finished. It ends them with a signal that nobody else sends.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.context import SpawnProcess
from multiprocessing.process import BaseProcess
from typing import Any

IGNORED = (signal.SIGTERM, signal.SIGINT)

END = signal.SIGUSR2
"""The parent's signal, in place of SIGTERM."""

PR_SET_PDEATHSIG = 1
"""prctl(2) option: the signal that the kernel sends when the thread that started this process has ended."""


def protect() -> None:
    """Ignore signals from others, and have the kernel kill this process when its parent ends."""
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, IGNORED)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


@contextmanager
def starting() -> Iterator[None]:
    """Block `IGNORED` while a process is started; it inherits the mask until it calls `protect`."""
    resource_tracker.ensure_running()  # starting the tracker unblocks them
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, IGNORED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextmanager
def hidden(variables: Iterable[str]) -> Iterator[None]:
    """Take `variables`, which hold secrets, out of the environment while a process is started."""
    values = {name: os.environ.pop(name) for name in variables if name in os.environ}
    try:
        yield
    finally:
        os.environ |= values


def is_protected() -> bool:
    """Whether this process is a protected child."""
    return isinstance(multiprocessing.current_process(), ProtectedProcess)


class ProtectedProcess(BaseProcess):
    """A process of vLLM's, whose handlers of SIGTERM and SIGINT obey `END` instead."""

    def start(self) -> None:
        with starting():
            super().start()
        # Python ends daemons with this method, which would send SIGTERM.
        self._popen.terminate = partial(self._popen._send_signal, END)  # type: ignore[attr-defined]

    def run(self) -> None:
        protect()
        parent = multiprocessing.parent_process()
        if parent is None or not parent.is_alive():  # it ended before the kernel watched it
            os._exit(1)
        handle = signal.signal

        def handle_end(number: int, handler: Any) -> Any:
            return handle(END if number in IGNORED else number, handler)

        signal.signal = handle_end  # type: ignore[assignment]
        protect_children()
        super().run()


class SpawnedProcess(ProtectedProcess, SpawnProcess):
    pass


def protect_children() -> None:
    """Protect every process that vLLM spawns from this one: engines, workers, API servers, the coordinator."""
    multiprocessing.get_context("spawn").Process = SpawnedProcess  # type: ignore[misc]
