"""The official JavaScript client in Node.js; `make parity` installs it, as does `npm ci` in tests/parity/javascript."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from http import HTTPStatus
from pathlib import Path

import pytest

from tests.api.test_chat import calling_a_tool
from tests.parity.overloaded import RETRY_AFTER, overloaded
from tests.support.servers import Server

pytestmark = pytest.mark.server

FOLDER = Path(__file__).parent / "javascript"
NODE = shutil.which("node")
MISSING = None if NODE else "needs Node.js 20 or later; on Debian: apt-get install nodejs npm"
if MISSING is None and not (FOLDER / "node_modules" / "openai").is_dir():
    MISSING = "needs the openai client for JavaScript: npm ci in tests/parity/javascript, or make parity"


@pytest.mark.skipif(MISSING is not None, reason=str(MISSING))
def test_the_javascript_client_is_served_and_retries_no_sooner_than_it_is_told(demo: Server) -> None:
    with overloaded(HTTPStatus.TOO_MANY_REQUESTS) as overload:
        environment = {
            **os.environ,
            "DEMO_URL": f"{demo.url}/v1",
            "OVERLOADED_URL": overload.url,
            "BLANKS": json.dumps(calling_a_tool()["logit_bias"]),
        }
        command = [str(NODE), "--test", "--test-reporter=tap", "client.test.mjs"]
        done = subprocess.run(command, cwd=FOLDER, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "# skipped 0" in done.stdout
    assert len(overload.asked) == 2
    assert overload.waited() >= RETRY_AFTER
