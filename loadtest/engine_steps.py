"""The time of an engine's steps, in a process of its own with as many threads as the server gives the model."""

from __future__ import annotations

import math
import os
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from loadtest.in_process import generate, start
from model_impl.checkpoint.reading import expected_tensors, load_config
from model_impl.wire import REPORT_ARG
from server.system.cores import IN_ENGINE, prepare_openmp, threads

_engine: Any = None
"""The engine of this process, if it was started as one."""


class EngineProcess:
    """An engine without a server; its steps are timed one by one, without what LLM does between them."""

    def __init__(self, checkpoint: Path) -> None:
        shapes = expected_tensors(load_config(checkpoint)).values()
        self.threads = threads(sum(map(math.prod, shapes)))
        prepare_openmp()  # the library must precede torch in the new process
        given = os.environ.get("OMP_NUM_THREADS")
        os.environ["OMP_NUM_THREADS"] = str(self.threads)
        try:
            self.pool = ProcessPoolExecutor(1, get_context("spawn"))
            self.pool.submit(_start, checkpoint).result()
        finally:
            if given is None:
                del os.environ["OMP_NUM_THREADS"]
            else:
                os.environ["OMP_NUM_THREADS"] = given

    def __enter__(self) -> EngineProcess:
        return self

    def __exit__(self, *error: object) -> None:
        self.pool.shutdown()

    def steps(self, rows: int, prompt: int, new: int) -> list[float]:
        """Seconds of the steps of one batch: the first has all the prompts."""
        return self.pool.submit(_steps, rows, prompt, new).result()


def _start(checkpoint: Path) -> None:
    global _engine
    _engine = start(checkpoint, max_num_batched_tokens=2048, distributed_executor_backend=IN_ENGINE)


def _steps(rows: int, prompt: int, new: int) -> list[float]:
    core = _engine.llm_engine.engine_core.engine_core
    step = core.step_fn
    seconds = []

    def timed() -> Any:
        began = time.perf_counter()
        made = step()
        seconds.append(time.perf_counter() - began)
        return made

    core.step_fn = timed
    try:
        generate(_engine, rows, prompt, new, logprobs=0, **{REPORT_ARG: True})
    finally:
        core.step_fn = step
    return seconds
