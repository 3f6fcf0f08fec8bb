"""Standard output and error that never block and never fail, whatever their reader does."""

from __future__ import annotations

import atexit
import fcntl
import os
import queue
import select
import sys
import threading
import time
from contextlib import suppress

PIPE_BYTES = 1 << 20
PIECE_BYTES, PIECES = 1 << 16, 256
"""Buffer for a reader that stalls: up to 16 MiB."""

FLUSH_SECONDS = 2.0
"""Time to write the last messages at the process's end."""


def protect_output() -> None:
    """From now on, drop output of this process and its children that cannot be written."""
    if sys.stdout is not None and sys.stdout.isatty():
        os.environ.setdefault("VLLM_LOGGING_COLOR", "1")  # vLLM will see a pipe, not the terminal
    numbers = [number for number, stream in ((1, sys.stdout), (2, sys.stderr)) if stream is not None]
    if len(numbers) == 2 and os.path.sameopenfile(*numbers):
        LogWriter(*numbers)  # keeps the order between both
    else:
        for number in numbers:
            LogWriter(number)
    atexit.register(flush_output)


_writers: list[LogWriter] = []


def flush_output() -> None:
    """Flush as at exit, for a process that ends without its exit handlers."""
    for writer in _writers:
        writer.close()


class LogWriter:
    """Replaces file descriptors of the same file by a pipe. One thread always empties the pipe, and another writes to
    the file as fast as the file accepts it."""

    def __init__(self, *numbers: int) -> None:
        self.numbers, self.process = numbers, os.getpid()
        self.sink = os.dup(numbers[0])
        self.source, inlet = os.pipe()
        with suppress(OSError):  # the user's limit on memory in pipes
            fcntl.fcntl(inlet, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._lead_to(inlet)
        os.close(inlet)
        self.pieces: queue.Queue[bytes] = queue.Queue(PIECES)
        self.moving = threading.Lock()
        """Held while a piece moves from the pipe into the queue."""
        self.lost = 0
        """Bytes dropped since the last write."""
        for run in (self._collect, self._write):
            threading.Thread(target=run, name=f"log writer {numbers[0]}", daemon=True).start()
        _writers.append(self)

    def close(self) -> None:
        """Wait up to FLUSH_SECONDS until all is written. Later output goes to the file directly, or nowhere."""
        if os.getpid() != self.process:  # in a fork, our threads do not run
            return
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        deadline = time.monotonic() + FLUSH_SECONDS
        while (waiting := self._is_behind()) and time.monotonic() < deadline:
            time.sleep(0.005)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        self._lead_to(nowhere if waiting else self.sink)
        os.close(nowhere)

    def _lead_to(self, target: int) -> None:
        for number in self.numbers:
            os.dup2(target, number)  # inherited by later processes

    def _is_behind(self) -> bool:
        with self.moving:
            return bool(self.pieces.unfinished_tasks or select.select([self.source], [], [], 0)[0])

    def _collect(self) -> None:
        poll = select.poll()
        poll.register(self.source)
        while True:
            poll.poll()
            with self.moving:
                piece = os.read(self.source, PIECE_BYTES)
                if not piece:  # closed, by every process
                    return
                try:
                    self.pieces.put_nowait(piece)
                except queue.Full:
                    self.lost += len(piece)

    def _write(self) -> None:
        while True:
            piece = self.pieces.get()
            try:
                if lost := self.lost:
                    self._put(b"\ntokenformer: warning: %d bytes of log could not be written\n" % lost)
                    self.lost -= lost
                self._put(piece)
            except OSError:  # a full disk, or nobody who reads
                self.lost += len(piece)
            finally:
                self.pieces.task_done()

    def _put(self, data: bytes) -> None:
        while data:
            data = data[os.write(self.sink, data) :]
