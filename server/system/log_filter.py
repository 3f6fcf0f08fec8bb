"""Keeps what clients wrote out of vLLM's log."""

from __future__ import annotations

import logging

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


class WithoutQuotes(logging.Filter):
    """Lets a record pass as its bare message, with %s where a request would be quoted."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.args = None
        return True


def keep_quotes_out() -> None:
    """To be called in each process that reads requests; calling it again changes nothing."""
    for name in QUOTING:
        logger = logging.getLogger(name)
        if not any(isinstance(known, WithoutQuotes) for known in logger.filters):
            logger.addFilter(WithoutQuotes())
