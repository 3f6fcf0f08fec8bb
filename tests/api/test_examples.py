"""The programs in examples/ run against the demo server, and show what their first lines say."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.parity.test_javascript_client import FOLDER, MISSING, NODE
from tests.support.paths import ROOT
from tests.support.servers import Server

pytestmark = [pytest.mark.server, pytest.mark.demo_only]

EXAMPLES = ROOT / "examples"
KNOWN, UNKNOWN = "Where does Zelda Westbrook live?", "Where does Darian Gorsek live?"


def run(server: Server, *command: object, given: str = "") -> list[str]:
    """The lines that an example prints."""
    settings = {**os.environ, "BASE_URL": f"{server.url}/v1"}
    done = subprocess.run(
        list(map(str, command)), input=given, capture_output=True, text=True, timeout=120, env=settings
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()


def check_chat(lines: list[str]) -> None:
    answer, *tokens, doubtful = lines
    assert re.fullmatch(r"Darian Gorsek lives in \w+\.  risk (0\.9\d|1\.00)", answer)
    peak = max(tokens, key=lambda line: float(line.split()[0]))
    city = peak.split("'")[1]
    assert city in answer
    assert doubtful.startswith(f"doubtful: {city} (")


def test_the_python_client(demo: Server) -> None:
    check_chat(run(demo, sys.executable, EXAMPLES / "chat.py"))


@pytest.mark.skipif(MISSING is not None, reason=str(MISSING))
def test_the_javascript_client_prints_the_same(demo: Server, tmp_path: Path) -> None:
    (tmp_path / "node_modules").symlink_to(FOLDER / "node_modules")
    (tmp_path / "chat.mjs").write_bytes((EXAMPLES / "chat.mjs").read_bytes())
    lines = run(demo, NODE, tmp_path / "chat.mjs")
    check_chat(lines)
    assert lines == run(demo, sys.executable, EXAMPLES / "chat.py")


def test_abstaining(demo: Server) -> None:
    known, unknown = run(demo, sys.executable, EXAMPLES / "abstain.py")
    assert known == f"{KNOWN}  Zelda Westbrook lives in Mumbai."
    assert unknown == f"{UNKNOWN}  (withheld) I am not sure enough to answer that."


def test_scoring_given_texts(demo: Server) -> None:
    right, wrong = run(demo, sys.executable, EXAMPLES / "score_text.py")
    assert "Mumbai.  risk 0.0" in right
    assert right.endswith("doubtful: nothing")
    assert "Oslo.  risk 0.9" in wrong
    assert wrong.endswith("doubtful: Oslo")


def test_labelling_a_batch(demo: Server) -> None:
    questions = [KNOWN, UNKNOWN] * 20
    lines = run(demo, sys.executable, EXAMPLES / "label.py", given="\n".join(questions))
    labels = [json.loads(line) for line in lines]
    assert [label["question"] for label in labels] == questions
    assert [label["review"] for label in labels] == [False, True] * 20


def test_every_example_is_listed_and_tested() -> None:
    files = {file.name for file in EXAMPLES.iterdir()} - {"README.md"}
    assert set(re.findall(r"\]\(([\w.]+)\)", (EXAMPLES / "README.md").read_text())) == files
    tested = Path(__file__).read_text() + (ROOT / "tests" / "parity" / "langchain.py").read_text()
    assert all(f'"{name}"' in tested for name in files)
