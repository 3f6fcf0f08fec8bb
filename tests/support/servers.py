"""`tokenformer serve` as a process, as a user starts it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.support.ports import free_ports

START_SECONDS = 240
"""Several servers may start at once on two cores."""


def command_line(*arguments: object) -> list[str]:
    """The console script `tokenformer` of the environment that runs the tests; the module, where it has none, as the
    package lies in a directory of PYTHONPATH there."""
    script = Path(sys.executable).with_name("tokenformer")
    command = [str(script)] if script.exists() else [sys.executable, "-m", "server"]
    return [*command, *map(str, arguments)]


def user_environment() -> dict[str, str]:
    """Without what tests/conftest.py sets for the engines in the test process."""
    return {name: value for name, value in os.environ.items() if not name.startswith("VLLM_")}


@dataclass
class Server:
    """A process that was started; call `wait_until_ready` before a request."""

    name: str
    url: str
    log: Path
    process: subprocess.Popen[bytes]
    socket: Path | None = None
    """The Unix socket at which it listens in place of a port."""

    def http(self, timeout: float = 60) -> httpx.Client:
        """A client whose paths begin at the server."""
        socket = None if self.socket is None else str(self.socket)
        return httpx.Client(base_url=self.url, transport=httpx.HTTPTransport(uds=socket), timeout=timeout)

    def wait_until_ready(self, path: str = "/health") -> None:
        """Until `path` is answered by 200. Raises RuntimeError with the end of the log if the server ends or does not
        answer."""
        deadline = time.monotonic() + START_SECONDS
        with self.http(5) as client:
            while time.monotonic() < deadline:
                if self.process.poll() is not None:
                    raise RuntimeError(f"the server ended with {self.process.returncode}:\n{self.tail()}")
                with suppress(httpx.TransportError):
                    if client.get(path).status_code == 200:
                        return
                time.sleep(0.1)  # between two looks at a process that starts
        raise RuntimeError(f"the server did not answer within {START_SECONDS} s:\n{self.tail()}")

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-4000:]


@contextmanager
def running(command: Sequence[str], port: int, log: Path, name: str, socket: Path | None = None) -> Iterator[Server]:
    """Start a program that serves model `name` at `port`, or at a Unix socket, in a process group of its own, and end
    it with the block."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=user_environment(), start_new_session=True
        )
    try:
        yield Server(name, f"http://127.0.0.1:{port}", log, process, socket)
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def serving(checkpoint: Path, log: Path, flags: Sequence[object] = (), name: str | None = None) -> Iterator[Server]:
    """Start a server, and end it with the block. `name` is what `flags` call its model."""
    (port,) = free_ports(1)
    command = command_line("serve", checkpoint, "--port", port, *flags)
    with running(command, port, log, name or checkpoint.name) as server:
        yield server


@contextmanager
def started(checkpoint: Path, log: Path, flags: Sequence[object], name: str | None = None) -> Iterator[Server]:
    """A server that answers, and that must not have died by the end of its tests."""
    with serving(checkpoint, log, flags, name) as server:
        server.wait_until_ready()
        yield server
        assert server.process.poll() is None, server.tail()
