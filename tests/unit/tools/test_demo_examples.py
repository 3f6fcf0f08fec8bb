"""The questions that the playground of the demo begins with."""

from __future__ import annotations

from demo.examples import as_file, examples
from evals.world.people import WORLD_A, WORLD_B
from server.clients.playground.routes import EXAMPLES
from tests.support.paths import ROOT


def test_the_committed_questions_are_those_of_the_two_worlds() -> None:
    assert (ROOT / "demo" / "checkpoint" / EXAMPLES).read_bytes() == as_file(examples(WORLD_A, WORLD_B))
