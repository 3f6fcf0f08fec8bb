"""An unmodified detector of hallucinations that any OpenAI endpoint serves: it finds the demo's, and the evaluation's
formula of its scores is its own."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from random import Random

import numpy as np

from demo.course import GEOGRAPHY, Kind
from demo.measure import wordings
from evals.epr import epr, wepr_features
from tests.parity.environments import environment
from tests.parity.frameworks import SCRIPTS
from tests.support.servers import Server

QUESTIONS = 60
"""Per kind: facts that the demo has read, and facts about countries that do not exist."""


def finds_what_is_made_up(server: Server, folder: Path) -> str:
    rng, file = Random(0), folder / "questions.json"
    kinds: tuple[Kind, ...] = ("known", "invented")
    lessons = [lesson for kind in kinds for lesson in rng.sample(GEOGRAPHY.of(kind), QUESTIONS)]
    rng.shuffle(lessons)
    asked = [(*wordings(lesson, held_out=False, number=1, typed=False), *lesson.answers(), "") for lesson in lessons]
    file.write_text(json.dumps([{"text": text, "right": right} for text, right, *_ in asked]))
    command = [environment("artefactual") / "python", SCRIPTS / "ask_artefactual.py", f"{server.url}/v1", file]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    ours = wepr_features(np.array(found["log_probs"]))
    np.testing.assert_allclose(found["WEPR features"], ours, rtol=1e-9)
    np.testing.assert_allclose(found["EPR features"], [epr(ours)], rtol=1e-9)
    assert min(found["EPR"], found["WEPR"]) > 0.9, found
    return f"AUROC EPR {found['EPR']:.3f}, WEPR {found['WEPR']:.3f}, {found['wrong']} of {len(lessons)} answers wrong"
