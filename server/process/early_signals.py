"""SIGTERM and SIGINT that arrive before the server is ready."""

from __future__ import annotations

import os
import signal
import sys
import threading
from argparse import Namespace
from multiprocessing import resource_tracker
from types import TracebackType

from server.gate.keys import VARIABLES as KEY_VARIABLES
from server.system.child_process import IGNORED, hidden
from server.system.log_writer import flush_output
from server.system.quiet import ignore_in_children


class EarlySignals(threading.Thread):
    """Ends the process on the first signal, until `stop`.

    vLLM's handlers raise exceptions. Its start may swallow them, or end with another error. So all other threads block
    the signals, and this one waits for them. The kernel ends the child processes.
    """

    def __init__(self) -> None:
        super().__init__(name="early signals", daemon=True)
        self.stopped = False

    def __enter__(self) -> EarlySignals:
        """Call this before there are other threads: a thread inherits the mask of the one that starts it."""
        # The tracker removes the semaphores and shared memory of processes that are killed: nothing leaks.
        ignore_in_children("ignore:resource_tracker:UserWarning")
        with hidden(KEY_VARIABLES):  # the tracker keeps the environment that it starts with
            resource_tracker.ensure_running()  # when it starts the tracker, it unblocks the signals
        signal.pthread_sigmask(signal.SIG_BLOCK, IGNORED)
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def run(self) -> None:
        number = signal.sigwait(IGNORED)
        if not self.stopped:
            # Another thread may hold the lock of `sys.stderr`.
            os.write(sys.stderr.fileno(), b"tokenformer: told to stop before it was ready\n")
            flush_output()
            os._exit(128 + number)

    def stop(self) -> None:
        """Leave the signals to the handlers of the main thread, which calls this. A second call does nothing."""
        if self.is_alive():
            assert self.ident is not None
            self.stopped = True
            signal.pthread_kill(self.ident, signal.SIGTERM)
            self.join()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, IGNORED)


def is_alone(args: Namespace) -> bool:
    """Whether this is the only API process. Otherwise it has no `Lifecycle`, and vLLM handles its signals."""
    return (args.api_server_count or args.data_parallel_size) == 1 and not args.headless
