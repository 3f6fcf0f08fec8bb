"""Real servers; that of the demo checkpoint is started once for all tests here."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from openai import OpenAI

from tests.servers import Server, serving

DEMO = Path(__file__).parents[2] / "demo" / "checkpoint"


@contextmanager
def started(checkpoint: Path, log: Path, flags: Sequence[str], name: str | None = None) -> Iterator[Server]:
    """A server that answers, and that must not have died by the end of its tests."""
    with serving(checkpoint, log, flags, name) as server:
        server.wait_until_ready()
        yield server
        assert server.process.poll() is None, server.tail()


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    flags = ["--served-model-name", "demo", "--enable-auto-tool-choice", "--tool-call-parser", "hermes"]
    with started(DEMO, tmp_path_factory.mktemp("demo") / "log", flags, "demo") as server:
        yield server


@pytest.fixture(scope="session")
def client(demo: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{demo.url}/v1", api_key="none", max_retries=0, timeout=60) as opened:
        yield opened
