"""The systemd unit: sound, closed, and in step with what the server does at its start and end."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from server.engine.settings import GRACE_SECONDS
from server.process.flags import KEYS_VARIABLE
from server.process.lifecycle import DELIVERY_SECONDS
from tests.deploy.promql import DEPLOY

UNIT = DEPLOY / "systemd" / "tokenformer.service"
DOCS = (DEPLOY.parent / "docs" / "deploy.md").read_text()

analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="needs systemd-analyze; on Debian: apt-get install systemd"
)


def settings() -> dict[str, list[str]]:
    """The values of each setting, whatever its section."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for line in UNIT.read_text().splitlines():
        if line and not line.startswith(("#", "[")):
            name, value = line.split("=", 1)
            found[name].append(value)
    return found


def only(name: str) -> str:
    (value,) = settings()[name]
    return value


def run_analyze(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *map(str, arguments)], capture_output=True, text=True, timeout=60)


@analyze
def test_systemd_finds_no_fault(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    command = only("ExecStart").split()[0]
    unit.write_text(UNIT.read_text().replace(command, sys.executable))  # the command must exist
    done = run_analyze("verify", unit)
    assert (done.returncode, done.stderr) == (0, "")
    unit.write_text(unit.read_text().replace("Restart=on-failure", "Restart=on-fialure"))
    assert "on-fialure" in run_analyze("verify", unit).stderr


@analyze
def test_it_is_as_closed_as_a_server_with_a_network_can_be() -> None:
    done = run_analyze("security", "--offline=true", "--threshold=20", UNIT)  # 2.0 of 10
    assert done.returncode == 0, done.stdout


def test_running_requests_may_finish_before_the_server_is_killed() -> None:
    assert int(only("TimeoutStopSec")) > GRACE_SECONDS + DELIVERY_SECONDS
    assert only("KillSignal") == "SIGTERM"


def test_a_failure_restarts_it_and_a_start_that_was_stopped_is_none() -> None:
    assert only("Restart") == "on-failure"
    assert only("SuccessExitStatus") == str(128 + 15)  # see tests/faults/test_startup.py


def test_the_docs_write_what_the_unit_reads() -> None:
    command, *arguments = only("ExecStart").split()
    assert arguments == ["serve", "${MODEL}", "$FLAGS"]
    section = DOCS.split("## systemd")[1].split("\n## ")[0]
    assert set(re.findall(r"([A-Z_]+)=", section.split("printf")[1].split(">")[0])) == {"MODEL", "FLAGS", KEYS_VARIABLE}
    for place in (only("EnvironmentFile"), str(Path(command).parents[1])):
        assert place in section
    assert (DEPLOY.parent / re.findall(r"deploy/\S+\.service", section)[0]).samefile(UNIT)
