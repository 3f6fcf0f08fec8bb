"""The figures of `evals.transfer` and `evals.closed_form`, which exist for the seeds whose models were at hand."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evals.report.aggregate import Results, spread
from evals.view import METHODS
from server.calibrate.markdown import table

CLOSED_FORM, ENSEMBLE = "closed form, max of value", "ensemble epistemic, max of value"

TASKS = {"all": "auroc", "one answer": "auroc", "unknown or never stated": "matched"}
"""Tasks of `evals.transfer`, with the name of their figure."""

ANSWERS = {
    "max probability": "one pass",
    "entropy, max of value": "one pass",
    "variance, mean": "one pass",
    CLOSED_FORM: "one pass",
    ENSEMBLE: "16 passes",
    "EPR (published)": "one pass, labels",
    "WEPR (published)": "one pass, labels",
    "calibrated (logistic)": "one pass, labels",
    "calibrated (probe)": "one pass, labels",
    "calibrated (probe) + ensemble": "16 passes, labels",
}
"""The signals of the first table, with what they take."""

SHIFTS = {
    "attributes": "questions about the other five attributes",
    "wordings": "the other half of the wordings: those of training, or those that it never used",
    "worlds": "the grown model's answers about the other world",
    "kinds of facts": "answers about one of the four kinds of facts, of which the fit has seen none",
}


@dataclass(frozen=True)
class AtHand:
    """By seed, the figures of errors and transfer; `models`, the transfer between the seeds' models; and by model, as
    `seed 0 base`, those of the closed form's study."""

    seeds: dict[int, dict[str, Any]]
    models: dict[str, Any]
    study: dict[str, dict[str, dict[str, float]]]

    @staticmethod
    def load(directory: Path) -> AtHand:
        transfer, study = (read(directory / f"{name}.json") for name in ("transfer", "closed-form"))
        seeds = {int(seed): found for seed, found in transfer.get("seeds", {}).items()}
        return AtHand(seeds, transfer.get("models", {}), study)

    @property
    def names(self) -> str:
        return ", ".join(map(str, self.seeds)) or "none"

    def missing(self, results: Results) -> list[int]:
        return [seed for seed in results.seeds if seed not in self.seeds]

    def errors(self, signal: str, task: str) -> dict[int, float]:
        found = {seed: figures["errors"].get(task, {}).get("signals", {}) for seed, figures in self.seeds.items()}
        return {seed: signals[signal][TASKS[task]]["value"] for seed, signals in found.items() if signal in signals}

    def transfer(self, shift: str, method: str, how: str, figure: str) -> dict[int, float]:
        """The figures of every seed; `how` is "seen" or "unseen"."""
        found = {
            seed: figures["transfer"][shift]["methods"][method][how][figure] for seed, figures in self.seeds.items()
        }
        return {seed: value["value"] if isinstance(value, dict) else value for seed, value in found.items()}

    def studied(self, kind: str) -> list[str]:
        return [name for name in self.study if name.endswith(kind)]


def read(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    return found


def answers_table(results: Results, at_hand: AtHand) -> str:
    """The first table: every signal on the tasks, over the seeds at hand and over all."""
    rows = []
    for signal, takes in ANSWERS.items():
        here = [values(at_hand.errors(signal, task)) for task in TASKS]
        paths = [("detection", scope, "signals", signal, "auroc") for scope in ("all", "one answer")]
        paths.append(("separation", "unknown", "signals", signal, "matched"))
        rows.append([signal, takes, *here, *(spread(results.values("base", *path), 2) for path in paths)])
    head = ["signal", "takes", f"wrong (seeds {at_hand.names})", "wrong, one answer", "does not know"]
    return table([*head, "wrong (all seeds)", "wrong, one answer", "does not know"], rows)


def values(found: dict[int, float]) -> str:
    return ", ".join(f"{value:.2f}" for value in found.values()) or "-"


def transfer_table(at_hand: AtHand) -> str:
    """AUROC and ECE of every method, of fits that have seen the like of what they judge, and of fits that have not."""
    rows = []
    for shift in SHIFTS if at_hand.seeds else ():
        for method in METHODS:
            found = [
                values(at_hand.transfer(shift, method, how, figure))
                for figure in ("auroc", "ece")
                for how in ("seen", "unseen")
            ]
            rows.append([shift, method, *found])
    for method, figures in at_hand.models.get("methods", {}).items():
        auroc = [f"{figures[how]['auroc']['value']:.2f}" for how in ("seen", "unseen")]
        rows.append(["models", method, *auroc, *(f"{figures[how]['ece']:.2f}" for how in ("seen", "unseen"))])
    return table(["unseen", "method", "AUROC, seen", "unseen", "ECE, seen", "unseen"], rows)


def closed_form_table(at_hand: AtHand) -> str:
    """The served closed form and its rivals in the study, and what of it exists for a twin."""
    rows = []
    settings = [f"{layers}, {words} words, max" for layers in LAYERS for words in (8, 32, 100)]
    for setting in ("entropy, max", *settings, f"{LAYERS[0]}, 32 words, share of the entropy, max"):
        found = [at_hand.study[name].get(setting, {}) for name in at_hand.studied("base")]
        twins = [at_hand.study[name].get(setting, {}) for name in at_hand.studied("twin")]
        cells = [", ".join(f"{part[task]:.3f}" for part in found if task in part) or "-" for task in STUDIED]
        rows.append([setting, *cells, ", ".join(f"{part['wrong']:.3f}" for part in twins if part) or "-"])
    ensemble = [", ".join(f"{v:.3f}" for v in at_hand.errors(ENSEMBLE, task).values()) or "-" for task in STUDIED_AS]
    rows.append(["16 members, max of value", *ensemble, "-"])
    return table(["closed form", "does not know", "wrong", "wrong, one answer", "twin: wrong"], rows)


LAYERS = ("all blocks", "last feed-forward")
STUDIED = ("unknown", "wrong", "wrong, one answer")
STUDIED_AS = ("unknown or never stated", "all", "one answer")
"""The tasks of the closed form's study, and their names in `evals.transfer`."""
