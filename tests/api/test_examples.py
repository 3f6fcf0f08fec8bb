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
from tests.support.facts import ANSWER, KNOWN, MADE_UP, UNKNOWN
from tests.support.paths import ROOT
from tests.support.servers import Server

pytestmark = [pytest.mark.server, pytest.mark.demo_only]

EXAMPLES = ROOT / "examples"


def run(server: Server, *command: object, given: str = "") -> list[str]:
    """The lines that an example prints."""
    settings = {**os.environ, "BASE_URL": f"{server.url}/v1"}
    done = subprocess.run(
        list(map(str, command)), input=given, capture_output=True, text=True, timeout=120, env=settings
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()


def check_chat(lines: list[str]) -> None:
    """The city is made up: the risk is high, and the doubtful words and the least certain token are of it."""
    told = re.fullmatch(rf"{MADE_UP}(.+)\.  risk (0\.9\d|1\.00)", lines[0])
    assert told
    tokens = [line for line in lines[1:] if " nats  " in line]
    peak = max(tokens, key=lambda line: float(line.split()[0]))
    assert peak.split("'")[1].strip() in told[1]
    doubtful = [line.removeprefix("doubtful: ").split(" (")[0] for line in lines[1 + len(tokens) :]]
    assert doubtful
    assert all(words in told[1] for words in doubtful)


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
    assert known == f"{KNOWN}  {ANSWER}"
    assert unknown == f"{UNKNOWN}  (withheld) I am not sure enough to answer that."


def test_scoring_given_texts(demo: Server) -> None:
    right, wrong = run(demo, sys.executable, EXAMPLES / "score_text.py")
    assert "Lima.  risk 0.0" in right
    assert right.endswith("doubtful: nothing")
    assert re.search(r"Oslo\.  risk (0\.9|1\.0)", wrong)
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
