"""The tasks of the benchmark: from a view of one model's answers to figures, as JSON."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import spearmanr

from evals.fitted import PROBE_STRENGTH, folds_of, logistic, predicted, splits_by
from evals.matching import (
    Flags,
    Values,
    interval,
    matched_auroc,
    matching_weights,
    resample_counts,
    weighted_auroc,
)
from evals.score import Table
from evals.view import REFERENCE, View
from server.calibrate.figures import brier, chance_eces, ece, prr, ranked, reliability, risk_coverage

Figures = dict[str, Any]

FEWEST = 20
"""The smallest number of answers of each kind for a comparison."""

BUDGET = 0.2
"""The share of answers that may be flagged."""


def detection(view: View) -> Figures | None:
    """How well every signal orders wrong answers above right ones; None where there are too few of either."""
    wrong = view.wrong
    if min(wrong.sum(), (~wrong).sum()) < FEWEST:
        return None
    signals = view.unlabelled() | view.fitted(wrong)
    weights = resample_counts(view.people)
    drawn = {name: weighted_auroc(wrong, signal, weights) for name, signal in signals.items()}
    return {
        "answers": len(wrong),
        "wrong": int(wrong.sum()),
        "signals": {
            name: {
                "auroc": interval(values),
                "prr": prr(ranked(wrong, signals[name])),
                "above_reference": interval(values - drawn[REFERENCE]),
            }
            for name, values in drawn.items()
        },
    }


def separation(view: View, positive: Flags) -> Figures | None:
    """How well every signal orders `positive` above the others at matched entropy of the first value token.

    Fitted ones twice: held-out people, and held-out people and shapes, where the ambiguous facts that are judged have a
    number of values that no fact of the fit has.
    """
    entropy = view.column("entropy_first")
    weights = resample_counts(view.people)
    matched = matching_weights(positive, entropy, weights[:1])[0]
    if matched[positive].sum() < FEWEST:
        return None
    folds = folds_of(view.people)
    shapes = np.array([len(item.fact.distribution) - 2 for item in view.items])
    by_shape = np.where(positive, folds, shapes)
    signals = view.unlabelled()
    for name, by in (("", folds), (" (held-out shapes)", by_shape)):
        signals |= {
            f"{probe}{name}": predicted(logistic(strength), inputs, positive, splits_by(by, view.people))
            for probe, (inputs, strength) in probes(view).items()
        }
    return {
        "positive": int(positive.sum()),
        "others": int((~positive).sum()),
        "matched": float(matched[positive].sum()),
        "signals": {
            name: {
                "plain": float(weighted_auroc(positive, signal, weights[:1])[0]),
                "matched": interval(matched_auroc(positive, signal, entropy, weights)),
            }
            for name, signal in signals.items()
        },
    }


def probes(view: View) -> dict[str, tuple[Values, float]]:
    """The features that a fitted separation may read, with the strength of its fit."""
    vectors = view.table.vectors
    logits = np.hstack([vectors["top_log_probs"], np.stack([view.column(f"{n}_first") for n in FIRST], axis=1)])
    found = {
        "probe on logits": (logits, 1.0),
        "probe on logits and ensemble": (np.hstack([logits, view.ensemble]), 1.0),
        "probe on hidden states": (vectors["hidden"], PROBE_STRENGTH),
    }
    if "internals" in vectors:
        found["probe on Pattention internals"] = (view.internals, PROBE_STRENGTH)
    return found


FIRST = ("entropy", "variance", "margin", "self_certainty", "logsumexp")
"""Signals that exist at a single position."""


def style_separation(view: View, style: Table) -> Figures:
    """Unknown people's first value token against style positions of known people, at matched entropy."""
    names = [f"{name}_first" for name in (*FIRST, "top_surprisal", "epistemic", "logtoku")]
    asked = view.where((view.kind == "unknown") & (view.world == "A"))
    positive = np.array([True] * len(asked.items) + [False] * len(style.answers))
    joined = {name: np.concatenate([asked.column(name), style.signals[name]]) for name in names}
    weights = resample_counts([*asked.people, *style.answers])
    entropy = joined["entropy_first"]
    return {
        "matched": float(matching_weights(positive, entropy, weights[:1])[0][positive].sum()),
        "style_entropy": float(np.median(style.signals["entropy_first"])),
        "style_epistemic": float(np.median(style.signals["epistemic_first"])),
        "signals": {
            name.removesuffix("_first"): interval(matched_auroc(positive, signal, entropy, weights))
            for name, signal in joined.items()
        },
    }


def calibration(view: View) -> Figures:
    """The model's own probability of being wrong, and fitted ones for people outside the fit."""
    wrong = view.wrong
    fitted = view.fitted(wrong)
    risks = {
        "1 - probability of the answer (before)": 1 - np.exp(-view.column("sequence_probability")),
        "1 - max probability (before)": 1 - np.exp(-view.column("max_probability")),
    } | {name: fitted[name] for name in CALIBRATED}
    found = {}
    for name, risk in risks.items():
        answers = ranked(wrong, risk)
        mean_risk, share, _ = reliability(answers)
        found[name] = {
            "ece": ece(answers),
            "ece_by_chance": float(chance_eces(risk).mean()),
            "brier": brier(answers),
            "reliability": {"risk": mean_risk.tolist(), "wrong": share.tolist()},
            "risk_coverage": risk_coverage(answers).tolist(),
        }
    return found


CALIBRATED = ("calibrated (logistic)", "calibrated (isotonic)", "calibrated (probe)", "calibrated (probe) + ensemble")


def value_tokens(view: View) -> Figures | None:
    """How well the first and the last token of a value tell right from wrong, where the value has several tokens."""
    several = view.where(view.column("value_tokens") >= 2)
    wrong = several.wrong
    if min(wrong.sum(), (~wrong).sum()) < FEWEST:
        return None
    weights = resample_counts(several.people)
    return {
        "answers": len(wrong),
        "wrong": int(wrong.sum()),
        "median_entropy_first_wrong": float(np.median(several.column("entropy_first")[wrong])),
        "median_entropy_last_wrong": float(np.median(several.column("entropy_last")[wrong])),
        "signals": {
            name: interval(weighted_auroc(wrong, several.column(name), weights))
            for name in ("entropy_first", "entropy_last", "entropy_max")
        },
    }


def exclusive(view: View, than: str = "entropy, max of value") -> Figures:
    """Wrong answers that each signal flags within the budget and entropy does not, and the reverse."""
    wrong, signals = view.wrong, view.unlabelled() | view.fitted(view.wrong)
    flagged = {name: flags(signal) for name, signal in signals.items()}
    return {
        name: {
            "caught": int((wrong & flag).sum()),
            "only_this": int((wrong & flag & ~flagged[than]).sum()),
            "only_entropy": int((wrong & ~flag & flagged[than]).sum()),
        }
        for name, flag in flagged.items()
    } | {"wrong": int(wrong.sum()), "flagged": int(flagged[than].sum())}


def flags(signal: Values) -> Flags:
    """The BUDGET share of answers with the highest signal; of equal ones the first."""
    chosen = np.zeros(len(signal), dtype=bool)
    chosen[np.argsort(-signal, kind="stable")[: round(BUDGET * len(signal))]] = True
    return chosen


def exposure(view: View) -> Figures:
    """Over known facts: how often texts mention the person, against accuracy and signals."""
    known = view.where((view.kind == "known") & (view.world == "A"))
    count = np.array([item.exposure for item in known.items])
    signals = known.unlabelled()
    rows = []
    for level in np.unique(count):
        at = count == level
        medians = {name: float(np.median(signals[name][at])) for name in EXPOSURE_SIGNALS}
        rows.append(
            {"exposure": int(level), "answers": int(at.sum()), "right": float(1 - known.wrong[at].mean())} | medians
        )
    several = len(rows) > 1
    return {
        "levels": rows,
        "spearman": {n: float(spearmanr(count, s).statistic) for n, s in signals.items()} if several else {},
    }


EXPOSURE_SIGNALS = ("max probability", "entropy, first value token", "ensemble epistemic, first value token")


def provenance(view: View) -> Figures:
    """Which of two stages an answer comes from: right answers about known facts of world B (the grown stage's) against
    those of world A."""
    right = view.where((view.kind == "known") & ~view.wrong)
    later = right.world == "B"
    weights = resample_counts(right.people)
    signals = shares(right)
    logs = log_shares(right.table.vectors["contributions"]).reshape(len(later), -1)
    signals["fitted: log shares of layers and projections"] = predicted(
        logistic(), logs, later, splits_by(folds_of(right.people))
    )
    return {
        "answers_b": int(later.sum()),
        "answers_a": int((~later).sum()),
        "signals": {name: interval(weighted_auroc(later, signal, weights)) for name, signal in signals.items()},
    }


ATTRIBUTION = "attribution, first value token"


def shares(view: View) -> dict[str, Values]:
    """Candidates for one number: the grown stage's part, of contributions [n, L, 5, 2]."""
    answer, first = (view.table.vectors[name].astype(np.float64) for name in ("answer_contributions", "contributions"))
    found = {
        "share, answer (served)": answer[..., 1].sum(axis=(1, 2)) / answer.sum(axis=(1, 2, 3)),
        "share, first value token": first[..., 1].sum(axis=(1, 2)) / first.sum(axis=(1, 2, 3)),
        "mean log share, answer": log_shares(answer).mean(axis=(1, 2)),
        "mean log share, first value token": log_shares(first).mean(axis=(1, 2)),
    }
    for layer in range(first.shape[1]):
        found[f"mean log share, first value token, layer {layer}"] = log_shares(first)[:, layer].mean(axis=1)
    for number, projection in enumerate(("query", "key", "value", "output", "ffn")):
        found[f"mean log share, first value token, {projection}"] = log_shares(first)[:, :, number].mean(axis=1)
    found[f"{ATTRIBUTION}, added to the logit"] = view.column("attribution")
    found[f"{ATTRIBUTION}, share"] = view.column("attribution_share")
    found["log p(answer): grown minus base"] = view.column("stage_gain")
    found["entropy, first value token"] = view.column("entropy_first")
    return found


def log_shares(contributions: np.ndarray) -> Values:
    """ln(new / old) of contributions [..., 2]: float64 [...]."""
    found: Values = np.log(contributions[..., 1].astype(np.float64)) - np.log(contributions[..., 0])
    return found


def cells(view: View, style: Table | None) -> list[Figures]:
    """The model's answers to every kind of question."""
    rows = []
    for world in ("A", "B"):
        for kind in ("known", "ambiguous", "never_stated", "unknown"):
            for rare in (False, True):
                rare_rows = np.array([item.rare for item in view.items])
                part = view.where((view.world == world) & (view.kind == kind) & (rare_rows == rare))
                if part.items:
                    rows.append({"world": world, "kind": kind, "rare": rare} | cell(part))
    if style:
        medians = {name: float(np.median(style.signals[f"{name}_first"])) for name in ("entropy", "epistemic")}
        rows.append({"world": "A", "kind": "style position", "rare": False, "answers": len(style.answers)} | medians)
    return rows


def cell(part: View) -> Figures:
    asked = np.array([item.fact.person.asked for item in part.items])
    held = np.array([item.held_out_wording for item in part.items])
    by = {"asked": asked, "not_asked": ~asked, "trained_wording": ~held, "held_out_wording": held}
    right = {f"right_{name}": float(1 - part.wrong[rows].mean()) for name, rows in by.items() if rows.any()}
    medians = {name: float(np.median(part.column(f"{name}_first"))) for name in ("entropy", "epistemic")}
    return {"answers": len(part.items), "right": float(1 - part.wrong.mean())} | right | medians


def study_figures(study: dict[str, Values], positive: Flags, people: list[str]) -> Figures:
    """AUROC at matched entropy of every setting of the ensemble."""
    weights, entropy = resample_counts(people), study["entropy"]
    return {
        name: {
            "matched": interval(matched_auroc(positive, signal, entropy, weights)),
            "median_unknown": float(np.median(signal[positive])),
            "median_ambiguous": float(np.median(signal[~positive])),
        }
        for name, signal in study.items()
    }
