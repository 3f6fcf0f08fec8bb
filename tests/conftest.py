"""Settings of vLLM for every test of this process; they must stand before vLLM is imported."""

import os
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.browser import CHROMIUM, INSTALL, launched

# Tiny models: one thread is faster than two that wait for each other, above all beside a server on the same cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# The engine runs inside the test process, where a test can reach its workers and nothing waits for a child to start.
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_USE_V2_MODEL_RUNNER", "0")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Ends with its module: while Playwright runs, no other test of this process could run an event loop."""
    if CHROMIUM is None:
        pytest.skip(INSTALL)
    with launched() as browser:
        yield browser
