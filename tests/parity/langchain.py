"""LangChain: the example of it runs."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.parity.environments import environment
from tests.support.paths import ROOT
from tests.support.servers import Server


def shows_entropies(server: Server, folder: Path) -> str:
    """The unknown person's answer is the less sure one."""
    command = [environment("langchain-openai") / "python", ROOT / "examples" / "langchain_chat.py"]
    settings = {**os.environ, "BASE_URL": f"{server.url}/v1", "MODEL": "demo"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=settings, cwd=folder)
    assert done.returncode == 0, done.stderr[-2000:]
    known, unknown = (
        float(line.split("highest entropy ")[1].removesuffix(" nats")) for line in done.stdout.splitlines()
    )
    assert known < 0.5 < 2 < unknown, done.stdout
    return f"highest entropies {known} and {unknown} nats"
