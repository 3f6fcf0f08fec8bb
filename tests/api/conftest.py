"""A demo server whose calibrations are known to hold for whole chats only, and which replaces doubted answers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from openai import OpenAI

from tests.support.demo_server import DEMO
from tests.support.judged import DOUBT_TEXT, calibration_files
from tests.support.servers import Server, started


@pytest.fixture(scope="session")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("judged")
    flags = ["--served-model-name", "demo", "--enable-auto-tool-choice", "--tool-call-parser", "hermes"]
    flags += [flag for file in calibration_files(root) for flag in ("--calibration", str(file))]
    flags += ["--on-doubt", "replace", "--doubt-text", DOUBT_TEXT]
    with started(DEMO, root / "log", flags, "demo") as server:
        yield server


@pytest.fixture(scope="session")
def judged_client(judged: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{judged.url}/v1", api_key="none", max_retries=0, timeout=60) as opened:
        yield opened
