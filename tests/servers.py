"""`tokenformer serve` as a process, as a user starts it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.ports import free_ports

START_SECONDS = 240
"""Several servers may start at once on two cores."""


@dataclass
class Server:
    """A process that was started; `wait_until_ready` before it is asked anything."""

    name: str
    url: str
    log: Path
    process: subprocess.Popen[bytes]

    def wait_until_ready(self) -> None:
        """Raises RuntimeError with the end of the log if the server ends or does not answer."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended with {self.process.returncode}:\n{self.tail()}")
            try:
                if httpx.get(f"{self.url}/health", timeout=5).status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.2)  # between two looks at a process that starts
        raise RuntimeError(f"the server did not answer within {START_SECONDS} s:\n{self.tail()}")

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-4000:]


@contextmanager
def serving(checkpoint: Path, log: Path, flags: Sequence[object] = ()) -> Iterator[Server]:
    """Start a server, and end it with the block."""
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "server", "serve", str(checkpoint), "--port", str(port), *map(str, flags)]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield Server(checkpoint.name, f"http://127.0.0.1:{port}", log, process)
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
