"""An unmodified detector of hallucinations that any OpenAI endpoint serves: it finds the demo's, and the evaluation's
formula of its scores is its own."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from random import Random

import numpy as np

from evals.epr import epr, wepr_features
from evals.world.evaluate import draw_question
from evals.world.people import WORLD_A
from tests.parity.environments import environment
from tests.parity.frameworks import SCRIPTS
from tests.support.servers import Server

QUESTIONS = 60
"""Per kind: facts that the demo has read, and facts about people of whom it has read nothing."""


def finds_unknown_people(server: Server, folder: Path) -> str:
    rng, file = Random(0), folder / "questions.json"
    facts = [fact for kind in ("known", "unknown") for fact in rng.sample(WORLD_A.facts_of(kind), QUESTIONS)]
    rng.shuffle(facts)
    file.write_text(json.dumps([{"text": draw_question(fact).text, "right": fact.answer()} for fact in facts]))
    command = [environment("artefactual") / "python", SCRIPTS / "ask_artefactual.py", f"{server.url}/v1", file]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    ours = wepr_features(np.array(found["log_probs"]))
    np.testing.assert_allclose(found["WEPR features"], ours, rtol=1e-9)
    np.testing.assert_allclose(found["EPR features"], [epr(ours)], rtol=1e-9)
    assert min(found["EPR"], found["WEPR"]) > 0.9, found
    return f"AUROC EPR {found['EPR']:.3f}, WEPR {found['WEPR']:.3f}, {found['wrong']} of {len(facts)} answers wrong"
