"""Keeps tracebacks of expected errors, and remarks that need no action, out of vLLM's log."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable

from model_impl.one_line_error import OneLineError

ENGINE = ("vllm.v1.engine.core", "vllm.v1.executor.multiproc_executor")
"""Loggers of the engine's processes that log the error of a call, such as a delta's refusal."""


FAILED_START = "failed to start."
"""How vLLM's message ends when one of these processes cannot start."""

QUIET = "TOKENFORMER_QUIET"
"""Environment variable that `tokenformer serve` sets for its processes unless it is verbose."""

REMARKS = (
    "vllm.config.model",
    "vllm.config.scheduler",
    "vllm.config.vllm",
    "vllm.entrypoints.serve.lora.api_router",
    "vllm.platforms.cpu",
    "vllm.utils.system_utils",
    "vllm.v1.engine.input_processor",
    "vllm.v1.worker.cpu_worker",
)
"""Loggers whose warnings tell how vLLM completed its settings, or how its interface will change. What cannot work is an
error."""


class WithoutTraceback(logging.Filter):
    """Lets a record of such an error pass as one line."""

    def __init__(self, *foreseen: type[Exception]) -> None:
        super().__init__()
        self.foreseen = foreseen

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, self.foreseen):
            # An error of ours says what it is about; vLLM would name its own function.
            said = str(error) if isinstance(error, OneLineError) else f"{record.getMessage()} {error}"
            record.msg, record.args = said, None
            record.exc_info = record.exc_text = None
        return True


def shorten(names: Iterable[str], *foreseen: type[Exception]) -> None:
    """Filter the loggers of these names; a second call changes nothing."""
    for name in names:
        logger = logging.getLogger(name)
        if not any(isinstance(known, WithoutTraceback) for known in logger.filters):
            logger.addFilter(WithoutTraceback(*foreseen))


failed_starts: list[BaseException] = []
"""The errors of a process that could not start. A worker of vLLM's logs its error and returns."""


def failed_start(record: logging.LogRecord) -> bool:
    """Keeps the error of such a record, and drops its traceback."""
    if record.exc_info and record.exc_info[1] and str(record.msg).endswith(FAILED_START):
        failed_starts.append(record.exc_info[1])
        if QUIET in os.environ:
            record.exc_info = None
    return True


def is_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR


def install() -> None:
    shorten(ENGINE, OneLineError)
    for name in ENGINE:
        logging.getLogger(name).addFilter(failed_start)
    if QUIET in os.environ:
        for name in REMARKS:
            # Not by level: vLLM's logging configuration, applied later in some processes, would reset it.
            logging.getLogger(name).addFilter(is_error)
