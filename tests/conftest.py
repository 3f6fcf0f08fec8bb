"""Settings of vLLM for this process, which must precede its import, and fixtures of many tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from openai import OpenAI

from tests.support.servers import Server

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# Tiny models: one thread is faster than two that wait for each other, above all beside a server on the same cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# The engine runs inside the test process, where a test can reach its workers and nothing waits for a child to start.
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_USE_V2_MODEL_RUNNER", "0")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")

settings.register_profile("busy", deadline=None)  # on a busy machine any example may take 200 ms
settings.load_profile("busy")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--served",
        type=Path,
        metavar="DIR",
        help="let the demo server serve the checkpoint DIR, of any model: -m 'not demo_only' leaves out what it lacks",
    )


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Ends with its module: while Playwright runs, no other test of this process could run an event loop."""
    from tests.support.browser import CHROMIUM, INSTALL, launched  # Playwright is not needed for anything else

    if CHROMIUM is None:
        pytest.skip(INSTALL)
    with launched() as browser:
        yield browser


@pytest.fixture(scope="session")
def demo(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server of the demo checkpoint, or of that of `--served`, started once for all tests."""
    from tests.support.demo_server import demo_server, server_of  # imports torch, which reads the settings above

    root, other = tmp_path_factory.mktemp("demo"), request.config.getoption("--served")
    with demo_server(root) if other is None else server_of(other, root) as server:
        yield server


@pytest.fixture(scope="session")
def client(demo: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{demo.url}/v1", api_key="none", max_retries=0, timeout=60) as opened:
        yield opened
