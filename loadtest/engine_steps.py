"""The time of an engine's steps, seen from outside: by a client without HTTP, in a process of its own.

The engine runs in another process, with the scheduler, the worker and as many threads as a server would give it. So the
time between two messages has everything that it does in a step: scheduling, the model, packing and sending the tokens.
"""

from __future__ import annotations

import math
import os
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from loadtest.in_process import generate, start
from model_impl.checkpoint.reading import expected_tensors, load_config
from model_impl.plugin import SCHEDULER_CLASS
from model_impl.wire import REPORT_ARG, UNSHOWN_ARG
from server.system.cores import IN_ENGINE, prepare_openmp, threads

_engine: Any = None
"""The client of an engine, in a process that was started for one."""


class EngineProcess:
    """An engine without a server."""

    def __init__(self, checkpoint: Path) -> None:
        shapes = expected_tensors(load_config(checkpoint)).values()
        self.threads = threads(sum(map(math.prod, shapes)))
        prepare_openmp()  # the library must precede torch in the new processes
        self.pool = ProcessPoolExecutor(1, get_context("spawn"), _start, (checkpoint, self.threads))

    def __enter__(self) -> EngineProcess:
        self.messages(1, 32, 2)
        return self

    def __exit__(self, *error: object) -> None:
        self.pool.submit(_stop).result()
        self.pool.shutdown()

    def messages(self, rows: int, prompt: int, new: int) -> list[float]:
        """Seconds until the first message of a batch, and from each to the next. Each has the tokens of a step."""
        return self.pool.submit(_messages, rows, prompt, new).result()


def _start(checkpoint: Path, threads: int) -> None:
    os.environ |= {"OMP_NUM_THREADS": str(threads), "VLLM_ENABLE_V1_MULTIPROCESSING": "1"}
    global _engine
    _engine = start(checkpoint, distributed_executor_backend=IN_ENGINE, scheduler_cls=SCHEDULER_CLASS)


def _stop() -> None:
    """The engine's process would outlive its client, and the client wait for it."""
    _engine.llm_engine.engine_core.shutdown()


def _messages(rows: int, prompt: int, new: int) -> list[float]:
    client = _engine.llm_engine.engine_core
    receive = client.get_output
    moments = [time.perf_counter()]

    def timed() -> Any:
        received = receive()
        moments.append(time.perf_counter())
        return received

    client.get_output = timed
    try:
        generate(_engine, rows, prompt, new, logprobs=0, **{REPORT_ARG: True, UNSHOWN_ARG: True})
    finally:
        del client.get_output  # that of the class is seen again
    return [later - earlier for earlier, later in pairwise(moments)]
