"""Standard output and error that never block and never fail, whatever becomes of who reads them."""

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
"""What waits for a reader that stalls: up to 16 MiB."""

FLUSH_SECONDS = 2.0
"""For what was said last, at the process's end."""


def protect_output() -> None:
    """From here on, what this process and those that it starts write is dropped where it cannot be written."""
    if sys.stdout is not None and sys.stdout.isatty():
        os.environ.setdefault("VLLM_LOGGING_COLOR", "1")  # vLLM will find no terminal
    numbers = [number for number, stream in ((1, sys.stdout), (2, sys.stderr)) if stream is not None]
    if len(numbers) == 2 and os.path.sameopenfile(*numbers):
        LogWriter(*numbers)  # keeps the order of what is said on both
    else:
        for number in numbers:
            LogWriter(number)
    atexit.register(flush_output)


_writers: list[LogWriter] = []


def flush_output() -> None:
    """As at the end of the process, for one that ends without running its exit handlers."""
    for writer in _writers:
        writer.close()


class LogWriter:
    """Puts a pipe in the place of file descriptors that lead to the same file. One thread empties it always, another
    writes to where it led as fast as that takes it."""

    def __init__(self, *numbers: int) -> None:
        self.numbers, self.process = numbers, os.getpid()
        self.sink = os.dup(numbers[0])
        self.source, inlet = os.pipe()
        with suppress(OSError):  # a user may have only so much memory in pipes
            fcntl.fcntl(inlet, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._lead_to(inlet)
        os.close(inlet)
        self.pieces: queue.Queue[bytes] = queue.Queue(PIECES)
        self.moving = threading.Lock()
        """Held while a piece is on its way from the pipe into the queue."""
        self.lost = 0
        """Bytes that were dropped since the last that were written."""
        for run in (self._collect, self._write):
            threading.Thread(target=run, name=f"log writer {numbers[0]}", daemon=True).start()
        _writers.append(self)

    def close(self) -> None:
        """Wait until all is written, but not for ever; what comes later goes there directly, or nowhere."""
        if os.getpid() != self.process:  # a fork, which has no threads of ours
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
            os.dup2(target, number)  # for processes that are started later, too

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
