"""The engine's process, begun early: on CPU it imports vLLM on one core while the API process does so on another.

Both import for as long as everything else takes together. Python's fork server does it: a process of its own that has
imported and done nothing else, and forks into the engine as soon as this process knows what engine it wants.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterable, Mapping
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, ForkServerProcess

import torch

from server.system.child_process import ProtectedProcess, starting

PROTECTION = "server.system.fork_server"

IMPORTED = (
    "vllm.v1.engine.core",
    "model_impl.engine.worker",
    "model_impl.model.tokenformer",
    "model_impl.engine.scheduler",
)
"""What the engine needs, most of the time that it takes to start."""

THREADS = "OMP_NUM_THREADS"
"""Read by OpenMP when torch is imported; a process that is forked later does not keep it."""


def is_worthwhile() -> bool:
    """Not with an accelerator: its library might not survive a fork."""
    return torch.accelerator.current_accelerator() is None


def give_head_start(without: Iterable[str]) -> None:
    """Start the fork server with this process's environment but for the variables `without`, which hold secrets."""
    hidden = {name: os.environ.pop(name) for name in without if name in os.environ}
    try:
        multiprocessing.set_forkserver_preload([PROTECTION, *IMPORTED])
        with starting():
            forkserver.ensure_running()
    finally:
        os.environ |= hidden


class EngineProcess(ProtectedProcess, ForkServerProcess):
    """A process with the environment of its parent, where the fork server has the one that it was started with."""

    environment: Mapping[str, str]

    def start(self) -> None:
        self.environment = dict(os.environ)
        super().start()

    def run(self) -> None:
        at_fork = dict(os.environ)
        for name in at_fork.keys() - self.environment.keys():
            del os.environ[name]
        os.environ.update(self.environment.items() - at_fork.items())
        if THREADS in self.environment:
            torch.set_num_threads(int(self.environment[THREADS].split(",")[0]))  # what follows is for nested loops
        super().run()


class EngineContext(ForkServerContext):
    """What vLLM starts processes by."""

    Process = EngineProcess


def use_head_start() -> None:
    """Have vLLM fork the engine's process from the fork server; by itself it starts every process from nothing."""
    from vllm.v1.engine import utils

    utils.get_mp_context = EngineContext
