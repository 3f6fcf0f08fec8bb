"""Runs these tests in Triton's interpreter, in a process of their own: Triton must not be where vLLM could see it.

The tests are collected here as usual. The first that is to run starts pytest on all of them, with Triton's directory
(scripts/triton.sh) in its path, and every test has the outcome that it had there. On a machine with a GPU and Triton
in its environment they run as they are, on the GPU.
"""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
TRITON = ROOT / ".venv-triton"
HERE = find_spec("triton") is not None and (os.environ.get("TRITON_INTERPRET") == "1" or torch.cuda.is_available())

Outcomes = dict[tuple[str, str], ElementTree.Element]
OUTCOMES = pytest.StashKey[Outcomes]()


@pytest.fixture(scope="session")
def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in own(items):
        item.add_marker("interpreter")


def own(items: list[pytest.Item]) -> list[pytest.Item]:
    """The session's tests that are in this directory."""
    return [item for item in items if item.path.is_relative_to(Path(__file__).parent)]


def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if HERE:
        return None
    if not (TRITON / "installed.txt").exists():
        pytest.skip("Triton is not installed: sh scripts/triton.sh")
    stash = pyfuncitem.session.stash
    if OUTCOMES not in stash:
        stash[OUTCOMES] = interpreted(pyfuncitem.session)
    case = stash[OUTCOMES][pyfuncitem.module.__name__, pyfuncitem.name]
    for failure in (*case.iter("failure"), *case.iter("error")):
        pytest.fail(failure.text or "failed in the interpreter", pytrace=False)
    for skipped in case.iter("skipped"):
        pytest.skip(skipped.get("message") or "skipped in the interpreter")
    return True


def interpreted(session: pytest.Session) -> Outcomes:
    """By module and name, the outcomes of the session's tests that are in this directory."""
    wanted = [item.nodeid for item in own(session.items)]
    report = pytest.TempPathFactory.from_config(session.config, _ispytest=True).mktemp("interpreter") / "report.xml"
    path = os.pathsep.join([str(TRITON), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *wanted],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": path, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    if not report.exists():
        pytest.fail(f"the interpreter's tests did not run:\n{done.stdout}\n{done.stderr}", pytrace=False)
    return {
        (case.get("classname", ""), case.get("name", "")): case for case in ElementTree.parse(report).iter("testcase")
    }
