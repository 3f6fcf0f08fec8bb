"""Keeps what clients wrote, and tracebacks of streams that were cut off, out of vLLM's log."""

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
"""Loggers that warn of requests by quoting them: roles, names, contents, arguments of tool calls."""

STREAMING = ("vllm.entrypoints.openai.chat_completion.serving", "vllm.entrypoints.openai.completion.serving")
"""Loggers that log whatever ends a stream."""

_QUOTE = re.compile(r"%[-.0-9]*[a-z]")


class WithoutQuotes(logging.Filter):
    """Lets a record pass as its bare message, with dots where a request would be quoted."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.args:
            record.msg, record.args = _QUOTE.sub("...", record.msg), None
        return True


def shorten_streams() -> None:
    """One line for each stream that the server itself cuts off."""
    shorten(STREAMING, GracefulHTTPError)


def keep_quotes_out() -> None:
    """To be called in each process that reads requests; calling it again changes nothing."""
    for name in QUOTING:
        logger = logging.getLogger(name)
        if not any(isinstance(known, WithoutQuotes) for known in logger.filters):
            logger.addFilter(WithoutQuotes())
