"""Real servers; that of the demo checkpoint is started once for all tests here."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from demo.texts import texts
from tests.servers import Server, serving

DEMO = Path(__file__).parents[2] / "demo" / "checkpoint"


@contextmanager
def started(checkpoint: Path, log: Path, flags: Sequence[str], name: str | None = None) -> Iterator[Server]:
    """A server that answers, and that must not have died by the end of its tests."""
    with serving(checkpoint, log, flags, name) as server:
        server.wait_until_ready()
        yield server
        assert server.process.poll() is None, server.tail()


def corpus() -> list[dict[str, Any]]:
    """Every twentieth of the demo's training texts, for /v1/trace."""
    return list(texts("world-b"))[::20]


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("demo")
    flags = ["--served-model-name", "demo", "--enable-auto-tool-choice", "--tool-call-parser", "hermes"]
    (root / "corpus.jsonl").write_text("".join(json.dumps(line) + "\n" for line in corpus()))
    flags += ["--trace", "--trace-corpus", str(root / "corpus.jsonl")]
    with started(DEMO, root / "log", flags, "demo") as server:
        yield server


@pytest.fixture(scope="session")
def client(demo: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{demo.url}/v1", api_key="none", max_retries=0, timeout=60) as opened:
        yield opened
