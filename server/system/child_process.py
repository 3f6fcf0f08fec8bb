"""Child processes of the server ignore signals to the whole server, and end when their parent ends.

A supervisor sends SIGTERM, and a terminal SIGINT, to every process of the server. Only the first process may act on
it: the others are needed until the running requests are finished. It ends them with a signal that nobody else sends.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, partial
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from multiprocessing.process import BaseProcess
from typing import Any

from server.system.quiet import is_quiet

IGNORED = (signal.SIGTERM, signal.SIGINT)

END = signal.SIGUSR2
"""The parent's signal, in place of SIGTERM."""

CAUSE_SECONDS = 1.0
"""Time for a child to tell why it fails."""

failures: list[str] = []
"""Why this process, a child, will end, from code that cannot raise it: see `ProtectedProcess`."""

PR_SET_PDEATHSIG = 1
"""prctl(2) option: the signal that the kernel sends when the thread that started this process has ended."""


def protect() -> None:
    """Ignore signals from others, and have the kernel kill this process when its parent ends."""
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, IGNORED)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


@cache
def cause_pipe() -> tuple[Connection, Connection]:
    """The two ends of the pipe by which the children of this process say why they failed."""
    reader, writer = multiprocessing.Pipe(duplex=False)
    os.set_blocking(writer.fileno(), False)
    return reader, writer


def told_cause(seconds: float = 0) -> str | None:
    """The message of a child that failed, which it has sent or sends within `seconds`."""
    if not cause_pipe.cache_info().currsize:  # there are no children
        return None
    reader, _ = cause_pipe()
    return str(reader.recv()) if reader.poll(seconds) else None


def root_cause(error: BaseException) -> str:
    """Why this process fails, in one line: what a child has told, or else the error itself."""
    from model_impl.faults import refusal

    # vLLM may learn that its worker has failed before the worker has told why.
    if (told := told_cause(CAUSE_SECONDS)) is not None:
        return told
    cause = str(error.args[0]) if isinstance(error, KeyError) and error.args else refusal(error)
    return cause if isinstance(error, OSError | RuntimeError | ValueError) else f"{type(error).__name__}: {cause}"


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
    """A process of vLLM's, whose handlers of SIGTERM and SIGINT obey `END` instead.

    It tells its parent why it failed, as vLLM only refers to a traceback in the log.
    """

    def start(self) -> None:
        _, self.causes = cause_pipe()
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
        try:
            super().run()
        except Exception as error:
            self._fail(error)
            if not is_quiet():
                raise
            sys.exit(1)  # without a traceback
        else:
            from model_impl.engine.log_filter import failed_starts

            for failure in failed_starts:
                self._fail(failure)
            if failures:
                self._fail(RuntimeError(failures[0]))
                sys.exit(1)

    def _fail(self, error: BaseException) -> None:
        with suppress(BlockingIOError):  # nobody reads, and many processes have failed
            self.causes.send(root_cause(error))


class SpawnedProcess(ProtectedProcess, SpawnProcess):
    pass


def protect_children() -> None:
    """Protect every process that vLLM spawns from this one: engines, workers, API servers, the coordinator."""
    multiprocessing.get_context("spawn").Process = SpawnedProcess  # type: ignore[misc]
