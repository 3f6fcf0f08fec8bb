"""The engine process is forked from an earlier one, and must equal one that is started when needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

SCRIPT = """
import json, os, sys, time
from server.process import head_start

def report():
    import torch
    found = {"pid": os.getpid(), "environment": dict(os.environ), "threads": torch.get_num_threads()}
    found |= {"cores": sorted(os.sched_getaffinity(0)), "imported": "server.system.cores" in sys.modules}
    print(json.dumps(found), flush=True)
    time.sleep(600)

if __name__ == "__main__":
    from server.system.cores import prepare_openmp
    head_start.IMPORTED = ("torch", "server.system.cores")
    prepare_openmp()
    head_start.give_head_start(without=["SECRET"])
    assert os.environ.pop("SECRET") == "secret"
    del os.environ["EARLIER"]
    os.environ |= json.loads(sys.argv[1])
    process = head_start.EngineContext().Process(target=report, name="engine")
    process.start()
    process.join()
"""


def forked(tmp_path: Path, later: dict[str, str], **environment: str) -> Any:
    """The environment of the engine process, with `later` set after the head start; its parent is then killed."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    inherited = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    given = inherited | {"SECRET": "secret", "EARLIER": "1", "PYTHONPATH": os.getcwd()} | environment
    command = [sys.executable, script, json.dumps(later)]
    with subprocess.Popen(command, env=given, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        found = json.loads(parent.stdout.readline())
        parent.kill()
    return found


def test_it_is_as_if_it_had_been_started_when_it_is_needed(tmp_path: Path) -> None:
    """OpenMP reads its settings once, before the fork, and Intel's would keep what is forked on one core."""
    found = forked(tmp_path, {"LATER": "set", "OMP_NUM_THREADS": "3"})
    assert found["environment"]["LATER"] == "set"
    assert not {"EARLIER", "SECRET"} & set(found["environment"])
    assert found["imported"], "before it was forked"
    assert found["threads"] == 3
    assert found["cores"] == sorted(os.sched_getaffinity(0))
    with suppress(psutil.NoSuchProcess):  # it does not outlive its parent
        psutil.Process(found["pid"]).wait(timeout=30)


def test_it_may_have_fewer_threads_than_cores(tmp_path: Path) -> None:
    assert forked(tmp_path, {"OMP_NUM_THREADS": "1"})["threads"] == 1


def test_threads_that_the_user_has_set_stay(tmp_path: Path) -> None:
    assert forked(tmp_path, {}, OMP_NUM_THREADS="3")["threads"] == 3
