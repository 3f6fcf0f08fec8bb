"""Schemathesis: valid and invalid requests made from the OpenAPI document, and checks of the answers."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from tests.parity.environments import environment
from tests.support.servers import Server

SECONDS = 150
"""The duration of fuzzing for each group of routes."""

OURS = ("/v1/chat/completions", "/v1/completions", "/v1/uncertainty", "/v1/models", "/livez", "/readyz")

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)
"""Without `positive_data_acceptance`: a schema cannot say that two parameters exclude each other, nor how long a prompt
may be. Without `negative_data_rejection`: vLLM's models take `"1"` for 1, as its clients rely on."""

LEFT_OUT = ("/v1/responses",)
"""vLLM's: it fails with 500 where the result of a tool call holds a file."""

CONFIGURATION = Path(__file__).parent / "fuzzing"


def run_fuzz(server: Server, folder: Path, *filters: str) -> str:
    program = environment("schemathesis") / "schemathesis"
    command = [str(program), "--config-file", str(CONFIGURATION / "schemathesis.toml"), "run", *filters]
    command += ["--checks", ",".join(CHECKS), "--max-time", str(SECONDS), "--seed", "1", "--continue-on-failure"]
    command += ["--request-timeout", "60", "--no-shrink", "--no-color"]
    hooks = {**os.environ, "SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(CONFIGURATION)}
    done = subprocess.run(
        [*command, f"{server.url}/openapi.json"], cwd=folder, env=hooks, stdout=subprocess.PIPE, text=True, timeout=900
    )
    print(done.stdout[-6000:])
    assert done.returncode == 0, "Schemathesis found failures"
    (cases,) = re.findall(r"(\d+) generated", done.stdout)
    return f"{cases} cases"


def fuzz_ours(server: Server, folder: Path) -> str:
    return run_fuzz(server, folder, *(part for path in OURS for part in ("--include-path", path)))


def fuzz_others(server: Server, folder: Path) -> str:
    """vLLM's routes beside ours."""
    return run_fuzz(server, folder, *(part for path in (*OURS, *LEFT_OUT) for part in ("--exclude-path", path)))
