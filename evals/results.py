"""All figures of one seed, as JSON in evals/results, from which the report is made."""

from __future__ import annotations

import json
import math
import platform
from pathlib import Path

import numpy as np
import torch

from evals import tasks
from evals.matching import Flags
from evals.rare import RareWorld
from evals.run import Scored
from evals.study import study_items
from evals.view import View

RESULTS = Path(__file__).parent / "results"

TWO_KINDS = {"unknown": "unknown people", "never_stated": "facts never stated about known people"}


def seed_figures(scored: Scored) -> tasks.Figures:
    """Per model (`MODELS`) and task."""
    world, recipe = scored.subject.world, scored.subject.recipe
    rare = f", {world.rare} of them rare" if isinstance(world, RareWorld) else ""
    trained = {
        "world": f"{world.known} people known{rare}, {world.unknown} unknown",
        "epochs": f"{recipe.epochs} epochs",
    }
    return {
        "seed": scored.subject.seed,
        "trained": trained,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} thread, torch {torch.__version__}",
        "models": {name: model_figures(scored, name) for name in scored.tables},
    }


def model_figures(scored: Scored, name: str) -> tasks.Figures:
    view = View(scored.items_of(name), scored.tables[name])
    found: tasks.Figures = {"cells": tasks.cells(view, scored.styles.get(name))}
    if name == "grown":
        return found | {"detection": {"all": tasks.detection(view)}, "provenance": tasks.provenance(view)}
    asked = view.where(view.world == "A")
    found["detection"] = {scope: tasks.detection(part) for scope, part in scopes(asked).items()}
    found["separation"] = {kind: separation(asked, kind) for kind in TWO_KINDS}
    found["style"] = tasks.style_separation(view, scored.styles[name])
    single = asked.where(asked.kind != "ambiguous")
    found["calibration"] = {"all": tasks.calibration(asked), "one answer": tasks.calibration(single)}
    found["value_tokens"] = tasks.value_tokens(single)
    found["exclusive"] = {"all": tasks.exclusive(asked), "one answer": tasks.exclusive(single)}
    found["exposure"] = tasks.exposure(asked)
    items = study_items(scored.items)
    positive = np.array([item.fact.kind == "unknown" for item in items])
    people = [item.person for item in items]
    found["study"] = tasks.study_figures(scored.studies[name], positive, people)
    return found


def scopes(asked: View) -> dict[str, View]:
    """Parts of the answers in which errors are to be detected. "one answer" leaves the ambiguous facts out."""
    single = asked.where(asked.kind != "ambiguous")
    not_asked = np.array([not item.fact.person.asked for item in single.items])
    held_out = np.array([item.held_out_wording for item in single.items])
    return {
        "all": asked,
        "one answer": single,
        "one answer, people never asked about in training": single.where(not_asked),
        "one answer, held-out wordings": single.where(held_out),
        "known people": single.where(single.kind == "known"),
        "all, without rare people": asked.where(~rare_rows(asked)),
        "one answer, without rare people": single.where(~rare_rows(single)),
    }


def rare_rows(view: View) -> Flags:
    return np.array([item.rare for item in view.items], dtype=bool)


def separation(view: View, kind: str) -> tasks.Figures | None:
    part = view.where(np.isin(view.kind, [kind, "ambiguous"]))
    return tasks.separation(part, part.kind == kind)


def write(figures: tasks.Figures, results: Path) -> Path:
    results.mkdir(parents=True, exist_ok=True)
    file = results / f"seed-{figures['seed']}.json"
    file.write_text(json.dumps(rounded(figures), indent=1) + "\n")
    return file


def rounded(value: object) -> object:
    """Floats to five decimals, so that the files are small and their differences readable; null for an undefined value
    (the rank correlation of a constant)."""
    if isinstance(value, float):
        return round(value, 5) if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: rounded(part) for key, part in value.items()}
    return [rounded(part) for part in value] if isinstance(value, list) else value
