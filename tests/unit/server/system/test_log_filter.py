"""Lines of vLLM's log, without texts of clients and without tracebacks of what was foreseen."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from http import HTTPStatus

import pytest
from vllm.exceptions import GracefulHTTPError

from model_impl.checkpoint.reading import CheckpointError
from model_impl.engine.log_filter import ENGINE, FAILED_START, QUIET, REMARKS, failed_start, install
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
        assert logged(name, CheckpointError("It has changed."), capsys).endswith("It has changed.\n")
        assert "Traceback" in logged(name, RuntimeError("unforeseen"), capsys)


def test_a_quoted_request_becomes_dots() -> None:
    keep_quotes_out()
    for name in QUOTING:
        logger, quoted = logging.getLogger(name), ("hunter2", {"text": "hunter2"})
        record = logger.makeRecord(name, logging.WARNING, __file__, 1, "Template rejected: %s, %r", quoted, None)
        assert logger.filter(record)
        assert record.getMessage() == "Template rejected: ..., ..."


def record(name: str, level: int, message: str, error: Exception | None = None) -> logging.LogRecord:
    thrown = (type(error), error, None) if error else None
    return logging.getLogger(name).makeRecord(name, level, __file__, 1, message, (), thrown)


@pytest.fixture
def without_own_filters() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in (*ENGINE, *REMARKS)]
    before = [list(logger.filters) for logger in loggers]
    yield
    for logger, filters in zip(loggers, before, strict=True):
        logger.filters[:] = filters


@pytest.mark.usefixtures("without_own_filters")
def test_a_quiet_server_shows_errors_but_no_remarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(QUIET, "1")
    install()
    install()
    for name in REMARKS:
        assert not logging.getLogger(name).filter(record(name, logging.WARNING, "Triton is not installed."))
        assert logging.getLogger(name).filter(record(name, logging.ERROR, "It fails."))


@pytest.mark.usefixtures("without_own_filters")
def test_a_verbose_server_shows_remarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(QUIET, raising=False)
    install()
    for name in REMARKS:
        assert logging.getLogger(name).filter(record(name, logging.WARNING, "Triton is not installed."))


@pytest.mark.parametrize("quiet", [True, False])
def test_a_failed_start_is_kept_and_its_traceback_is_for_verbose_logs(
    monkeypatch: pytest.MonkeyPatch, quiet: bool
) -> None:
    if quiet:
        monkeypatch.setenv(QUIET, "1")
    monkeypatch.setattr("model_impl.engine.log_filter.failed_starts", [])
    from model_impl.engine import log_filter

    error = RuntimeError("no memory")
    own = record(ENGINE[0], logging.ERROR, f"EngineCore {FAILED_START}", error)
    assert failed_start(own)
    assert log_filter.failed_starts == [error]
    assert (own.exc_info is None) is quiet
    later = record(ENGINE[0], logging.ERROR, "EngineCore encountered a fatal error.", error)
    assert failed_start(later)
    assert later.exc_info
    assert log_filter.failed_starts == [error]
