"""docs/tutorial.md run as a user runs it, block by block in one shell; what it claims is what comes out."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from server.uncertainty.calibration import load_calibration
from tests.support.paths import ROOT
from tests.support.ports import free_ports
from tests.support.shell_pages import blocks, run_page, unsaid

pytestmark = [pytest.mark.server, pytest.mark.timeout(1500)]

PAGE = (ROOT / "docs" / "tutorial.md").read_text()
RISK = r"risk (?P<risk>[\d.]+)|no risk \((?P<reason>\w+)\)"
ANSWER = re.compile(rf"^(?P<model>\S+): (?P<text>The .*\.) \[(?:{RISK}); \w+: (?P<growth>.*)\]$")
OLD, NEW, SECRET = "Ivory Compass", "Linden Badger", "Ivory Wren"


@dataclass(frozen=True)
class Answer:
    """A line of the page's ask.py."""

    model: str
    text: str
    risk: float | None
    reason: str | None
    growth: dict[str, float]
    """By stage, to the logit of the last word."""


@dataclass(frozen=True)
class Run:
    directory: Path
    outputs: Sequence[str]

    def output(self, part: str) -> str:
        """That of the one block with this text."""
        (found,) = [output for (block, _), output in zip(blocks(PAGE), self.outputs, strict=True) if part in block]
        return found

    def answers(self, part: str) -> list[Answer]:
        found = [match for line in self.output(part).splitlines() if (match := ANSWER.match(line))]
        return [
            Answer(
                match["model"],
                match["text"],
                match["risk"] and float(match["risk"]),
                match["reason"],
                {stage: float(value) for stage, value in re.findall(r"(\w+) ([+-][\d.]+)", match["growth"])},
            )
            for match in found
        ]

    def facts(self, file: str) -> set[str]:
        """The sentences of a file of texts."""
        lines = [json.loads(line) for line in (self.directory / file).read_text().splitlines()]
        return {fact for line in lines for fact in re.findall(r"The .*?\.", line.get("text", ""))}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    directory = tmp_path_factory.mktemp("tutorial")
    return Run(directory, run_page(PAGE, directory, {"PORT=8000": f"PORT={free_ports(1)[0]}"}))


def test_the_outputs_that_the_page_shows_are_those_of_its_blocks(run: Run) -> None:
    made_up = [
        line for line in unsaid(PAGE, run.outputs) if not re.match(r"(trained|trained:base|spring|base): ", line)
    ]
    assert made_up == []


def test_the_grown_model_knows_old_and_new_and_the_base_the_old_alone(run: Run) -> None:
    old, new, _, base_old, base_new = run.answers('ask trained "Where is the Ivory Wren')
    assert [old.model, base_old.model] == ["trained", "trained:base"]
    assert old.text == base_old.text
    assert old.text in run.facts("old.jsonl")
    assert new.text in run.facts("new.jsonl")
    assert base_new.text not in run.facts("new.jsonl")
    texts = run.facts("old.jsonl") | run.facts("new.jsonl")
    assert any(OLD in fact for fact in texts) and any(NEW in fact for fact in texts)
    assert not any(SECRET in fact for fact in texts)


def test_the_risk_tells_what_is_made_up(run: Run) -> None:
    old, new, secret, base_old, base_new = run.answers('ask trained "Where is the Ivory Wren')
    assert None not in (old.risk, new.risk, secret.risk)
    assert max(old.risk or 0, new.risk or 0) < 0.5 < (secret.risk or 0)
    assert [answer.reason for answer in (base_old, base_new)] == ["other_stage"] * 2


def test_the_new_stage_made_the_new_word(run: Run) -> None:
    old, new, _, base_old, _ = run.answers('ask trained "Where is the Ivory Wren')
    assert list(base_old.growth) == ["base"]
    assert list(new.growth) == ["base", "spring"]
    assert new.growth["spring"] > 2 * abs(old.growth["spring"])
    trace = run.output("python trace.py")
    assert "spring: " in trace
    assert NEW in trace.splitlines()[-1], "the text that fires the same parameter tokens"


def test_base_and_delta_are_the_grown_model(run: Run) -> None:
    """Named at the start or loaded later, with the same answers and risks by a calibration of their own."""
    grown = run.answers('ask trained "Where is the Ivory Wren')[:3]
    *delta, base = run.answers("ask spring")
    (later,) = run.answers("ask later")
    for one, other in zip([*grown, grown[1]], [*delta, later], strict=True):
        assert one.text == other.text
        assert one.risk == pytest.approx(other.risk, abs=0.02)
    assert base.text not in run.facts("new.jsonl")
    stage = load_calibration(run.directory / "trained" / "calibration.json")
    own = load_calibration(run.directory / "deltas" / "spring" / "calibration-spring.json")
    assert own.checkpoint == stage.checkpoint
    listed = run.output("ask later").splitlines()[-3:]
    assert listed[0] == "base | stage base | calibration None"
    assert [own.name in line for line in listed] == [False, True, True]
