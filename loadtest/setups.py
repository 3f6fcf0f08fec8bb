"""Servers to compare: ours and vLLM's own, each as its users start it, with the same settings of the engine."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.ports import free_ports
from tests.support.servers import Server, command_line, running

MODEL = "measured"
ENGINE = ("--block-size", "32", "--max-num-seqs", "64", "--kv-cache-memory-bytes", str(1 << 30))
STOCK = "vllm.entrypoints.launchers.api_server.entry"
"""The function behind `vllm serve`. The CPU build's program `vllm` fails: it looks for a package of that name."""


@dataclass(frozen=True)
class Setup:
    """A checkpoint and the way to serve it."""

    checkpoint: Path
    flags: tuple[str, ...] = ()
    stock: bool = False
    """vLLM's server and worker, and of ours only the model, which the installed package registers."""
    engine: tuple[str, ...] = ENGINE
    """Settings that both sides of a comparison have; none where users' defaults are measured."""

    def command(self) -> list[str]:
        """With the names that a reader can use; `starting` adds the port."""
        checkpoint = os.path.relpath(self.checkpoint)
        server = ["python", "-m", STOCK, "--model", checkpoint] if self.stock else ["tokenformer", "serve", checkpoint]
        return [*server, "--host", "127.0.0.1", "--served-model-name", MODEL, *self.engine, *self.flags]

    @contextmanager
    def starting(self, log: Path) -> Iterator[Server]:
        """A server whose process has just been started."""
        (port,) = free_ports(1)
        _, *arguments = [*self.command(), "--port", str(port)]
        command = [sys.executable, *arguments] if self.stock else command_line(*arguments)
        with running(command, port, log, MODEL) as server:
            yield server

    @contextmanager
    def running(self, log: Path) -> Iterator[Server]:
        """A server that answers."""
        with self.starting(log) as server:
            server.wait_until_ready()
            yield server

    def __str__(self) -> str:
        return shlex.join(self.command())
