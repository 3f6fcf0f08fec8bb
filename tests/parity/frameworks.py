"""Unmodified clients of others that let a model call functions and fill classes: each script asks and checks."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.parity.environments import environment
from tests.support.servers import Server

SCRIPTS = Path(__file__).parent / "clients"


def asks(tool: str, script: str, answers: int) -> Callable[[Server, Path], str]:
    """A check that the script, in the tool's environment, accepts so many answers."""

    def check(server: Server, folder: Path) -> str:
        command = [environment(tool) / "python", SCRIPTS / script, f"{server.url}/v1"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-2000:]
        found = done.stdout.splitlines()
        assert len(found) == answers, found
        return ", ".join(found)

    check.__name__ = script
    return check
