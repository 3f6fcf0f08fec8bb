"""One model's answers as arrays: labels, kinds, people, and every signal by the name that the report gives it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from evals.fitted import (
    PROBE_STRENGTH,
    Inputs,
    Splits,
    folds_of,
    isotonic,
    logistic,
    predicted,
    splits_by,
    text_only,
)
from evals.matching import Flags, Values
from evals.questions import Item
from evals.score import SERVED, Table
from evals.signals import rank_sum
from server.uncertainty.features import AGGREGATES, GROUPS, LEAST_DOUBT, term, terms

PLAIN = {
    "max probability": "max_probability",
    "perplexity": "perplexity",
    "sequence probability": "sequence_probability",
    "entropy, first value token": "entropy_first",
    "entropy, mean": "entropy_mean",
    "entropy, max of value": "entropy_max",
    "variance, first value token": "variance_first",
    "variance, max of value": "variance_max",
    "variance, mean": "variance_mean",
    "margin, first value token": "margin_first",
    "margin, min of value": "margin_max",
    "self-certainty, first value token": "self_certainty_first",
    "self-certainty, mean": "self_certainty_mean",
    "logsumexp, first value token": "logsumexp_first",
    "LogTokU, first value token": "logtoku_first",
    "LogTokU, max of value": "logtoku_max",
    "LogTokU aleatoric, first value token": "logtoku_aleatoric_first",
    "LogTokU epistemic, first value token": "logtoku_epistemic_first",
    "closed form, first value token": "closed_form_first",
    "closed form, max of value": "closed_form_max",
    "closed form, mean": "closed_form_mean",
    "name surprisal in the question": "name_surprisal",
    "server: max entropy": f"{SERVED}max_entropy",
    "server: worst window": f"{SERVED}worst_window_entropy",
    "server: standardised surprisal": f"{SERVED}standardised_surprisal",
}
"""Signals of a single pass without labels, with their columns in the table."""

SAMPLED = {
    "10 samples: semantic entropy": "semantic_entropy",
    "10 samples: disagreement": "disagreement",
    "10 samples: semantic energy": "semantic_energy",
}
ENSEMBLE = {
    "ensemble epistemic, first value token": "epistemic_first",
    "ensemble epistemic, max of value": "epistemic_max",
    "ensemble epistemic, mean": "epistemic_mean",
    "ensemble aleatoric, first value token": "aleatoric_first",
}
COMBINED = {
    "epistemic + margin (ranks)": ("epistemic_first", "margin_first"),
    "epistemic + max probability (ranks)": ("epistemic_max", "max_probability"),
    "epistemic + variance, mean (ranks)": ("epistemic_max", "variance_mean"),
    "variance, mean + margin (ranks)": ("variance_mean", "margin_max"),
    "variance, mean + name surprisal (ranks)": ("variance_mean", "name_surprisal"),
}
"""Sums of ranks over the answers, without labels."""

NAME = "name surprisal in the question"
REFERENCE = "max probability"
"""The baseline that differences are taken to."""

ONE_PASS = (*(name for name in PLAIN if name != NAME), "variance, mean + margin (ranks)")
"""The signals that a target for a single pass without labels may choose from. The unfamiliarity of a name is left out:
it says nothing about the answer, and is reported on its own."""

LEAKAGE = "text only (leakage)"
ENSEMBLE_PROBE = "calibrated (probe) + ensemble"
EPR, WEPR = "EPR (published)", "WEPR (published)"
UNPENALISED = np.inf
METHODS = ("calibrated (logistic)", "calibrated (isotonic)", "calibrated (probe)", ENSEMBLE_PROBE, EPR, WEPR)
"""Fits whose risk is a probability that a server, or a client, can compute."""


@dataclass(frozen=True)
class View:
    """Answers to some of the questions of one model; columns over them."""

    items: list[Item]
    table: Table

    def where(self, rows: Flags | Sequence[int]) -> View:
        index = np.flatnonzero(rows) if np.asarray(rows).dtype == bool else np.asarray(rows)
        table = Table(
            {name: column[index] for name, column in self.table.signals.items()},
            {name: column[index] for name, column in self.table.vectors.items()},
            [self.table.answers[i] for i in index],
        )
        return View([self.items[i] for i in index], table)

    @cached_property
    def wrong(self) -> Flags:
        pairs = zip(self.items, self.table.answers, strict=True)
        return np.array([not item.right(answer) for item, answer in pairs], dtype=bool)

    @cached_property
    def kind(self) -> np.ndarray:
        return np.array([item.fact.kind for item in self.items])

    @cached_property
    def world(self) -> np.ndarray:
        return np.array([item.world for item in self.items])

    @cached_property
    def people(self) -> list[str]:
        return [item.person for item in self.items]

    def column(self, name: str) -> Values:
        return self.table.signals[name]

    def unlabelled(self) -> dict[str, Values]:
        """Every signal that needs no labels, by the report's name."""
        names = {name: column for name, column in (PLAIN | SAMPLED | ENSEMBLE).items() if column in self.table.signals}
        signals = {name: self.column(column) for name, column in names.items()}
        return signals | {name: rank_sum(*map(self.column, columns)) for name, columns in COMBINED.items()}

    @cached_property
    def served(self) -> Values:
        """The features of the server's `logistic` calibration, float64 [n, features]."""
        return np.stack([self.column(f"{SERVED}{name}") for name in AGGREGATES], axis=1)

    @cached_property
    def probed(self) -> Values:
        """The terms of the server's `probe` that come from the logits, float64 [n, terms]."""
        names = GROUPS["logits"]
        rows = zip(*(self.column(f"{SERVED}{name}").tolist() for name in names), strict=True)
        features = [dict(zip(names, row, strict=True)) for row in rows]
        return np.array([[term(row, name) for name in terms(names)] for row in features])

    @cached_property
    def ensemble(self) -> Values:
        return np.stack([self.column(name) for name in ENSEMBLE.values()], axis=1)

    @cached_property
    def ensemble_terms(self) -> Values:
        """The probe's inputs for doubts: the doubts and their logarithms."""
        return np.hstack([self.ensemble, np.log(self.ensemble + LEAST_DOUBT)])

    @cached_property
    def internals(self) -> Values:
        """Float64 [n, 4 statistics of every layer and projection]."""
        return self.table.vectors["internals"].reshape(len(self.items), -1).astype(np.float64)

    @cached_property
    def fits(self) -> dict[str, tuple[Any, Inputs]]:
        """Models to be fitted, each with the inputs that it reads."""
        vectors, signals = self.table.vectors, np.stack(list(self.table.signals.values()), axis=1)
        texts = [f"{item.text} {answer}" for item, answer in zip(self.items, self.table.answers, strict=True)]
        found = {
            "calibrated (logistic)": (logistic(), self.served),
            "calibrated (isotonic)": (isotonic(), self.column(f"{SERVED}max_entropy")),
            "calibrated (probe)": (logistic(), self.probed),
            ENSEMBLE_PROBE: (logistic(), np.hstack([self.probed, self.ensemble_terms])),
            EPR: (logistic(UNPENALISED), self.column("epr")[:, None]),
            WEPR: (logistic(UNPENALISED), vectors["wepr"]),
            "all signals": (logistic(), signals),
            "hidden-state probe": (logistic(PROBE_STRENGTH), vectors["hidden"]),
            LEAKAGE: (text_only(), np.array(texts)),
        }
        if "internals" in vectors:
            found["Pattention internals probe"] = (logistic(PROBE_STRENGTH), self.internals)
            found["calibrated (probe) + internals"] = (logistic(), np.hstack([self.probed, self.internals]))
        return found

    def fitted(
        self, label: Flags, splits: Splits | None = None, names: Iterable[str] | None = None
    ) -> dict[str, Values]:
        """Probability of `label` by each fit, or by those of `names`, for people whom the fit did not see."""
        splits = splits_by(folds_of(self.people)) if splits is None else splits
        return {name: predicted(*self.fits[name], label, splits) for name in names or self.fits}
