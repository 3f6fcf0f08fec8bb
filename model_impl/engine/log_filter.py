"""Keeps tracebacks of expected errors out of vLLM's log."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from model_impl.one_line_error import OneLineError

ENGINE = ("vllm.v1.engine.core", "vllm.v1.executor.multiproc_executor")
"""Loggers of the engine's processes that log the error of a call, such as a delta's refusal."""


class WithoutTraceback(logging.Filter):
    """Lets a record of such an error pass as one line."""

    def __init__(self, *foreseen: type[Exception]) -> None:
        super().__init__()
        self.foreseen = foreseen

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, self.foreseen):
            record.msg, record.args = f"{record.getMessage()} {error}", None
            record.exc_info = record.exc_text = None
        return True


def shorten(names: Iterable[str], *foreseen: type[Exception]) -> None:
    """Filter the loggers of these names; a second call changes nothing."""
    for name in names:
        logger = logging.getLogger(name)
        if not any(isinstance(known, WithoutTraceback) for known in logger.filters):
            logger.addFilter(WithoutTraceback(*foreseen))


def install() -> None:
    shorten(ENGINE, OneLineError)
