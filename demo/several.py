"""How well wrong answers are told from right ones to facts with several right values: `python -m demo.several URL`
writes demo/several.json.

Every lesson of a stage is asked once, one in four of those about a fact with a single value. URL is a server of the
demo, with its models `demo` and `demo:base`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

import httpx
from sklearn.metrics import roc_auc_score

from demo.course import Lesson
from demo.measure import COURSES

MODELS = {"base": "demo:base", "chemistry": "demo"}
SIGNALS = ("max_entropy", "max_epistemic", "risk")
SINGLE_SHARE = 0.25
RESULTS = Path(__file__).parent / "several.json"


def ask(client: httpx.Client, model: str, question: str) -> tuple[str, dict[str, Any]]:
    """The answer and its summary."""
    body = {"model": model, "messages": [{"role": "user", "content": question}]}
    (choice,) = client.post("/v1/chat/completions", json=body).raise_for_status().json()["choices"]
    return choice["message"]["content"], choice["uncertainty"]


def separation(right: Sequence[dict[str, float]], wrong: Sequence[dict[str, float]]) -> dict[str, float]:
    """AUROC of each signal for the wrong ones."""
    labels = [0] * len(right) + [1] * len(wrong)
    return {name: float(roc_auc_score(labels, [one[name] for one in (*right, *wrong)])) for name in SIGNALS}


def main(url: str) -> None:
    figures: dict[str, dict[str, Any]] = {}
    with httpx.Client(base_url=url, timeout=60) as client:
        for stage, model in MODELS.items():
            rng = Random(f"several/{stage}")
            lessons = [one for course in COURSES[stage] for one in course.lessons]
            found: dict[str, list[dict[str, float]]] = {"several": [], "single": [], "wrong": [], "invented": []}
            for lesson in lessons:
                if lesson.kind == "ambiguous" or rng.random() < SINGLE_SHARE:
                    text, summary = ask(client, model, rng.choice(lesson.questions()))
                    found[kind_of(lesson, text)].append(summary)
                    if lesson.kind == "invented":  # among the wrong ones as well
                        found["invented"].append(summary)
            for kind in ("several", "single"):
                auroc = separation(found[kind], found["wrong"])
                counts = {"right": len(found[kind]), "wrong": len(found["wrong"])}
                figures.setdefault(stage, {})[kind] = counts | {"auroc": auroc}
            risks = {kind: median(one["risk"] for one in summaries) for kind, summaries in found.items()}
            figures[stage]["median risk"] = risks
    text = json.dumps(figures, indent=2)
    RESULTS.write_text(text + "\n")
    print(text)


def kind_of(lesson: Lesson, text: str) -> str:
    if text not in lesson.answers():
        return "wrong"
    return "several" if lesson.kind == "ambiguous" else "single"


if __name__ == "__main__":
    main(sys.argv[1])
