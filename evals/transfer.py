"""Transfer: calibrations fitted on some attributes, wordings, kinds of facts, worlds or models, and judged on others.

`python -m evals.transfer` asks the models of every seed that has them, and writes evals/results/transfer.json. It also
writes how well the newer signals find errors there, the closed form and the published EPR and WEPR among them: seeds
whose models are gone have no figures of these.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from evals.fitted import crossed
from evals.matching import Flags, Values, interval, resample_counts, weighted_auroc
from evals.questions import draw_items
from evals.results import RESULTS, rounded
from evals.run import answer_table, model_items
from evals.score import Table
from evals.tasks import Figures, detection, separation
from evals.train import RUNS, SEEDS, Subject
from evals.view import METHODS, View
from server.calibrate.figures import chance_eces, ece, ranked

SIGNALS = ("max probability", "entropy, max of value", "entropy, mean", "variance, mean", "closed form, max of value")
"""Signals without a fit, whose order no transfer changes."""

SHOWN = (*SIGNALS, "entropy, first value token", "ensemble epistemic, max of value", *METHODS)
"""Signals whose detection of errors is written."""


def transfer(view: View, kinds: np.ndarray) -> Figures:
    """Figures of each method on all answers: fitted on other people's answers of every kind (`seen`), and on other
    people's answers of the other kinds (`unseen`); `lost` is the AUROC between the two."""
    wrong, weights = view.wrong, resample_counts(view.people)
    fits = {"seen": view.fitted(wrong, names=METHODS)}
    fits["unseen"] = view.fitted(wrong, crossed(view.people, kinds), METHODS)
    signals = view.unlabelled()
    methods = {}
    for name in METHODS:
        drawn = {how: weighted_auroc(wrong, risks[name], weights) for how, risks in fits.items()}
        methods[name] = {how: judged(wrong, risks[name], drawn[how]) for how, risks in fits.items()}
        methods[name]["lost"] = interval(drawn["seen"] - drawn["unseen"])
    return {
        "answers": len(wrong),
        "wrong": int(wrong.sum()),
        "kinds": sorted(map(str, set(kinds.tolist()))),
        "methods": methods,
        "signals": {name: interval(weighted_auroc(wrong, signals[name], weights)) for name in SIGNALS},
    }


def judged(wrong: Flags, risk: Values, aurocs: Values) -> Figures:
    return {
        "auroc": interval(aurocs),
        "ece": ece(ranked(wrong, risk)),
        "ece_by_chance": float(chance_eces(risk).mean()),
    }


def shifts(base: View, grown: View) -> dict[str, Figures]:
    """Differences between the questions of a fit and those that it judges, with one model."""
    return {
        "attributes": transfer(base, np.array([item.fact.attribute.name for item in base.items])),
        "wordings": transfer(base, np.array(["held out" if i.held_out_wording else "trained" for i in base.items])),
        "kinds of facts": transfer(base, base.kind),
        "worlds": transfer(grown, grown.world),
    }


def joined(views: Sequence[View]) -> View:
    """The answers of several models, with the columns that all of them have."""
    tables = [view.table for view in views]
    signals = [name for name in tables[0].signals if all(name in table.signals for table in tables)]
    vectors = [name for name in tables[0].vectors if all(name in table.vectors for table in tables)]
    table = Table(
        {name: np.concatenate([one.signals[name] for one in tables]) for name in signals},
        {name: np.concatenate([one.vectors[name] for one in tables]) for name in vectors},
        [answer for one in tables for answer in one.answers],
    )
    return View([item for view in views for item in view.items], table)


def found_errors(base: View) -> Figures:
    """The figures of SHOWN as `evals.results` has them for all signals, and both kinds of not knowing in one task."""
    parts = {"all": base, "one answer": base.where(base.kind != "ambiguous")}
    unsure = base.where(base.kind != "known")
    tasks = {name: detection(part) for name, part in parts.items()}
    tasks["unknown or never stated"] = separation(unsure, unsure.kind != "ambiguous")
    return {
        name: found | {"signals": {signal: found["signals"][signal] for signal in SHOWN if signal in found["signals"]}}
        for name, found in tasks.items()
        if found
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m evals.transfer", description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=Path, default=RUNS, help="where models and scores are kept")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the figures go")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    subjects = [Subject(seed, arguments.runs) for seed in SEEDS]
    views = {subject.seed: answered(subject) for subject in subjects if all(map(subject.trained, ("base", "grown")))}
    (arguments.results / "transfer.json").write_text(json.dumps(rounded(figures(views)), indent=1) + "\n")


def answered(subject: Subject) -> tuple[View, View]:
    """The answers of the base stage about its own world, and of the grown stage about both."""
    items = draw_items(subject.world, subject.world_b, subject.recipe.epochs)
    base, grown = (
        View(asked, answer_table(subject, model, asked))
        for model in ("base", "grown")
        for asked in [model_items(items, model)]
    )
    return base.where(base.world == "A"), grown


def figures(views: Mapping[int, tuple[View, View]]) -> Figures:
    found: Figures = {
        "seeds": {
            str(seed): {"errors": found_errors(base), "transfer": shifts(base, grown)}
            for seed, (base, grown) in views.items()
        }
    }
    bases = [base for base, _ in views.values()]
    if len(bases) > 1:
        models = np.repeat([f"seed {seed}" for seed in views], [len(base.items) for base in bases])
        found["models"] = transfer(joined(bases), models)
    return found


if __name__ == "__main__":
    main()
