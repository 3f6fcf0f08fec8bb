"""An early start of the engine's process, on CPU: it imports vLLM while the API process does so on another core.

The imports take half of the start. Python's fork server does them for the engine: it only imports, and forks into the
engine when the API process has its configuration.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterable, Mapping
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, ForkServerProcess

import torch

from server.system.child_process import ProtectedProcess, hidden, starting

PROTECTION = "server.system.fork_server"

IMPORTED = (
    "vllm.v1.engine.core",
    "model_impl.engine.worker",
    "model_impl.model.tokenformer",
    "model_impl.engine.scheduler",
)
"""Modules of the engine. Importing them takes most of its start."""

THREADS = "OMP_NUM_THREADS"
"""OpenMP reads this variable when torch is imported; a process that is forked later loses the setting."""


def is_worthwhile() -> bool:
    """Whether there is no accelerator, whose library might not survive a fork."""
    return torch.accelerator.current_accelerator() is None


def give_head_start(without: Iterable[str]) -> None:
    """Start the fork server with this process's environment, less the secrets in the variables `without`."""
    multiprocessing.set_forkserver_preload([PROTECTION, *IMPORTED])
    with hidden(without), starting():
        forkserver.ensure_running()


class EngineProcess(ProtectedProcess, ForkServerProcess):
    """A forked process with the current environment of its parent, instead of that of the fork server."""

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
            torch.set_num_threads(int(self.environment[THREADS].split(",")[0]))  # further numbers are for nested loops
        super().run()


class EngineContext(ForkServerContext):
    Process = EngineProcess


def use_head_start() -> None:
    """Have vLLM fork the engine's process from the fork server instead of spawning it."""
    from vllm.v1.engine import utils

    utils.get_mp_context = EngineContext
