"""Lines of vLLM's log, without texts of clients and without tracebacks of what was foreseen."""

from __future__ import annotations

import logging
from http import HTTPStatus

import pytest
from vllm.exceptions import GracefulHTTPError

from model_impl.checkpoint.reading import CheckpointError
from model_impl.engine.log_filter import ENGINE, install
from server.system.log_filter import QUOTING, STREAMING, keep_quotes_out, shorten_streams


def logged(name: str, error: Exception, capsys: pytest.CaptureFixture[str]) -> str:
    """The log's lines of an error that a logger catches."""
    logger, handler = logging.getLogger(name), logging.StreamHandler()
    logger.addHandler(handler)
    try:
        raise error
    except Exception:
        logger.exception("Call of %s failed.", "a method")
    finally:
        logger.removeHandler(handler)
    return capsys.readouterr().err


def test_a_stream_that_is_cut_off_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    shorten_streams()
    for name in STREAMING:
        said = logged(name, GracefulHTTPError("It ends.", HTTPStatus.SERVICE_UNAVAILABLE), capsys)
        assert "It ends." in said and "Traceback" not in said
        assert "Traceback" in logged(name, LookupError("unforeseen"), capsys)


def test_a_delta_that_the_engine_refuses_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    install()
    for name in ENGINE:
        assert "Call of a method failed. It has changed.\n" in logged(name, CheckpointError("It has changed."), capsys)
        assert "Traceback" in logged(name, RuntimeError("unforeseen"), capsys)


def test_a_quoted_request_becomes_dots() -> None:
    keep_quotes_out()
    for name in QUOTING:
        logger, quoted = logging.getLogger(name), ("hunter2", {"text": "hunter2"})
        record = logger.makeRecord(name, logging.WARNING, __file__, 1, "Template rejected: %s, %r", quoted, None)
        assert logger.filter(record)
        assert record.getMessage() == "Template rejected: ..., ..."
