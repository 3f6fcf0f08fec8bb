"""The demo server of the tests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from demo.texts import texts
from model_impl.checkpoint.reading import load_config
from tests.support.paths import ROOT
from tests.support.servers import Server, started

DEMO = ROOT / "demo" / "checkpoint"


def corpus() -> list[dict[str, Any]]:
    """Every fourteenth text of a round of both stages, for /v1/trace."""
    return [line for part in ("base", "chemistry") for line in texts(part, rounds=1)][::14]


@contextmanager
def demo_server(root: Path) -> Iterator[Server]:
    """The server with every feature that a test may use; `root` is a directory for its log and corpus."""
    (root / "corpus.jsonl").write_text("".join(json.dumps(line) + "\n" for line in corpus()))
    with server_of(DEMO, root, "--trace", "--trace-corpus", str(root / "corpus.jsonl")) as server:
        yield server


@contextmanager
def server_of(checkpoint: Path, root: Path, *further: str) -> Iterator[Server]:
    """The server of a checkpoint under the demo's name, with its context; `root` is a directory for its log."""
    flags = ["--served-model-name", "demo", "--enable-auto-tool-choice", "--tool-call-parser", "hermes"]
    context = load_config(DEMO).max_position_embeddings
    with started(checkpoint, root / "log", [*flags, "--max-model-len", context, *further], "demo") as server:
        yield server
