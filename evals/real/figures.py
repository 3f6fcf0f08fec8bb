"""All figures of one model's answers to real questions, as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from evals.matching import Flags, Values, interval, resample_counts, weighted_auroc
from evals.real.methods import METHODS, PROBE, risks_by, seen, unseen
from evals.real.spans import new_words, word_signals
from evals.real.view import View
from server.calibrate.figures import auroc, chance_eces, ece, prr, ranked

Figures = dict[str, Any]

FEWEST = 10
"""The smallest number of right and of wrong answers of an attribute that has figures of its own."""

RATES = (0.1, 0.2, 0.3, 0.5)
"""Shares of answers, or words, that are flagged."""

SHIPPED = (PROBE, "calibrated (logistic)", "EPR (published)", "WEPR (published)")
"""Fits that are judged on countries and invented places together."""

FLAGGING = (
    "max probability, max",
    "entropy, mean",
    "entropy, max",
    "variance, mean",
    "closed form, max",
    "entropy, first new word",
    PROBE,
)
"""Signals whose flags are judged."""


def all_figures(view: View) -> Figures:
    """Elements are judged by fits on everything else, and were used for no choice."""
    country, invented, element = (view.where(view.kind == kind) for kind in ("country", "invented", "element"))
    asked = view.where(view.kind != "element")
    fits = {name: risks_by(country, name, seen(country)) for name in METHODS}
    moved = {name: risks_by(country, name, unseen(country)) for name in METHODS}
    last = {name: risks(view, view.kind != "element", view.kind == "element") for name, risks in METHODS.items()}
    return {
        "answers": {kind: counts(part) for kind, part in parts(view).items()},
        "countries": judged(country, country.signals | fits),
        "by attribute": by_attribute(country, country.signals | fits),
        "transfer": {
            "by method": {
                name: {"seen": figures_of(country, fits[name]), "unseen": figures_of(country, moved[name])}
                for name in METHODS
            },
            "by attribute": by_attribute(country, moved),
        },
        "elements": judged(element, element.signals | last),
        "elements by attribute": by_attribute(element, element.signals | last),
        "invented": unknown_places(view, country, invented, fits),
        "countries and invented": judged(
            asked, asked.signals | {name: risks_by(asked, name, seen(asked)) for name in SHIPPED}
        ),
        "flags": flags(country, country.signals | fits),
        "spans": spans(country),
    }


def parts(view: View) -> dict[str, View]:
    kinds = {kind: view.where(view.kind == kind) for kind in dict.fromkeys(view.kind.tolist())}
    attributes = {
        f"{kind}: {name}": part.where(part.attribute == name)
        for kind, part in kinds.items()
        for name in dict.fromkeys(part.attribute.tolist())
    }
    return kinds | attributes


def counts(view: View) -> Figures:
    return {"answers": len(view.wrong), "wrong": int(view.wrong.sum())}


def judged(view: View, signals: Mapping[str, Values]) -> Figures:
    """Counts and the figures of every signal that enough right and wrong answers have."""
    known = {name: signal for name, signal in signals.items() if enough(view.wrong[np.isfinite(signal)])}
    return counts(view) | {
        "signals": {name: figures_of(view, signal, name in METHODS) for name, signal in known.items()}
    }


def figures_of(view: View, signal: Values, risk: bool = True) -> Figures:
    """Figures over the answers that have the signal; those of calibration for a risk."""
    rows = np.isfinite(signal)
    wrong, values = view.wrong[rows], signal[rows]
    groups = [group for group, has in zip(view.groups, rows, strict=True) if has]
    found: Figures = {
        "auroc": interval(weighted_auroc(wrong, values, resample_counts(groups))),
        "within": within(view.where(rows), values),
        "prr": prr(ranked(wrong, values)),
    }
    if not rows.all():
        found["answers"] = int(rows.sum())
    if risk:
        found |= {"ece": ece(ranked(wrong, values)), "ece_by_chance": float(chance_eces(values).mean())}
    return found


def within(view: View, signal: Values) -> float | None:
    """The mean AUROC within attributes: an order of attributes by their difficulty counts for nothing."""
    found = [auroc(ranked(view.wrong[rows], signal[rows])) for rows in attribute_rows(view) if enough(view.wrong[rows])]
    return float(np.mean(found)) if found else None


def attribute_rows(view: View) -> list[Flags]:
    return [view.attribute == name for name in dict.fromkeys(view.attribute.tolist())]


def enough(wrong: Flags) -> bool:
    return min(int(wrong.sum()), int((~wrong).sum())) >= FEWEST


def by_attribute(view: View, signals: Mapping[str, Values]) -> Figures:
    """AUROC of every signal within each attribute that has enough of both kinds, and counts of all."""
    found: Figures = {}
    for rows in attribute_rows(view):
        part = view.where(rows)
        found[str(part.attribute[0])] = counts(part) | (
            {"auroc": {name: finite_auroc(part.wrong, signal[rows]) for name, signal in signals.items()}}
            if enough(part.wrong)
            else {}
        )
    return found


def finite_auroc(wrong: Flags, signal: Values) -> float | None:
    rows = np.isfinite(signal)
    return auroc(ranked(wrong[rows], signal[rows])) if 0 < wrong[rows].sum() < rows.sum() else None


def unknown_places(view: View, country: View, invented: View, fits: Mapping[str, Values]) -> Figures:
    """Answers about invented places against right answers about countries, by fits on countries alone; the risks of the
    latter are those for countries outside of the fit."""
    wrong = np.concatenate(
        [np.zeros(int((~country.wrong).sum()), dtype=bool), np.ones(len(invented.wrong), dtype=bool)]
    )
    risks = {name: risk(view, view.kind == "country", view.kind == "invented") for name, risk in METHODS.items()}
    found: Figures = {}
    for name, own in (invented.signals | risks).items():
        known = (country.signals | dict(fits))[name][~country.wrong]
        both = np.concatenate([known, own])
        found[name] = {"auroc": finite_auroc(wrong, both)}
        if name in risks:
            found[name] |= {"mean risk": float(own.mean()), "above 0.5": float((own > 0.5).mean())}
    return counts(invented) | {"signals": found}


def flags(view: View, signals: Mapping[str, Values]) -> Figures:
    """Precision and recall of flagging the answers with the highest signal."""
    return {name: at_rates(view.wrong, signals[name]) for name in FLAGGING}


def spans(view: View) -> Figures:
    """As `flags` for words: those that the question has not. The words of a wrong answer count as wrong."""
    words = [new_words(question.text, text) for question, text in zip(view.questions, view.texts, strict=True)]
    wrong = np.repeat(view.wrong, [len(each) for each in words])
    found: dict[str, list[float]] = {}
    for score, each in zip(view.scores, words, strict=True):
        for name, values in word_signals(score, each).items():
            found.setdefault(name, []).extend(values)
    return {
        "words": len(wrong),
        "wrong": int(wrong.sum()),
        "signals": {
            name: {"auroc": auroc(ranked(wrong, np.array(values))), "rates": at_rates(wrong, np.array(values))}
            for name, values in found.items()
        },
    }


def at_rates(wrong: Flags, signal: Values, rates: Sequence[float] = RATES) -> Figures:
    order = np.argsort(-signal, kind="stable")
    found = {}
    for rate in rates:
        flagged = wrong[order[: max(1, round(rate * len(order)))]]
        found[f"{rate:.0%}"] = {"precision": float(flagged.mean()), "recall": float(flagged.sum() / wrong.sum())}
    return found
