"""Keeps clients' texts, and tracebacks of streams that were cut off, out of vLLM's log."""

from __future__ import annotations

import logging
import re

from vllm.exceptions import GracefulHTTPError

from model_impl.engine.log_filter import shorten

QUOTING = (
    "vllm.renderers.chat_utils",
    "vllm.renderers.hf",
    "vllm.renderers.params",
    "vllm.tool_parsers.utils",
    "vllm.entrypoints.openai.chat_completion.batch_serving",
    "vllm.entrypoints.openai.chat_completion.serving",
    "vllm.entrypoints.openai.responses.serving",
    "vllm.entrypoints.openai.responses.utils",
)
"""Loggers whose warnings quote requests: roles, names, contents, arguments of tool calls."""

STREAMING = ("vllm.entrypoints.openai.chat_completion.serving", "vllm.entrypoints.openai.completion.serving")
"""Loggers of exceptions that end streams."""

_QUOTE = re.compile(r"%[-.0-9]*[a-z]")


class WithoutQuotes(logging.Filter):
    """Replaces the arguments of a record by dots."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.args:
            record.msg, record.args = _QUOTE.sub("...", record.msg), None
        return True


def shorten_streams() -> None:
    """Log one line for each stream that the server itself cuts off."""
    shorten(STREAMING, GracefulHTTPError)


def keep_quotes_out() -> None:
    """Install the filters in this process; idempotent."""
    for name in QUOTING:
        logger = logging.getLogger(name)
        if not any(isinstance(known, WithoutQuotes) for known in logger.filters):
            logger.addFilter(WithoutQuotes())
