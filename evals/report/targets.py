"""The targets that were set before any measurement, each with its result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

from evals.report.aggregate import Results, spread
from evals.view import ENSEMBLE, ONE_PASS


@dataclass(frozen=True)
class Target:
    """A figure of the Tokenformer at `path`, `signal`, `after`; chosen from `signals` where there are several.

    `most`: the figure must not exceed the limit, rather than reach it.
    """

    name: str
    limit: float
    signals: Sequence[str]
    path: tuple[str, ...]
    after: tuple[str, ...] = ()
    model: str = "base"
    most: bool = False


ERRORS = 0.98
ECE = 0.02
CALIBRATED = ("calibrated (probe)", "calibrated (probe) + ensemble")
PROBES = ("probe on logits (held-out shapes)", "probe on logits and ensemble (held-out shapes)")
SHARES = (
    "share, answer (served)",
    "share, first value token",
    "mean log share, answer",
    "mean log share, first value token",
    "attribution, first value token, added to the logit",
    "attribution, first value token, share",
)


def all_targets() -> list[Target]:
    found = []
    for scope in ("all", "one answer", "all, without rare people", "one answer, without rare people"):
        path = ("detection", scope, "signals")
        found.append(Target(f"errors, {scope}, one pass, no labels", 0.97, ONE_PASS, path, ("auroc",)))
        found.append(Target(f"errors, {scope}, ensemble, no labels", 0.97, tuple(ENSEMBLE), path, ("auroc",)))
        found += [Target(f"errors, {scope}, calibrated", ERRORS, [name], path, ("auroc",)) for name in CALIBRATED]
    path = ("detection", "known people", "signals")
    found.append(Target("wrong against right, known people, no labels", 0.90, ONE_PASS, path, ("auroc",)))
    found += [Target("wrong against right, known people, calibrated", 0.90, [n], path, ("auroc",)) for n in CALIBRATED]
    path = ("separation", "unknown", "signals")
    found.append(Target("unknown against ambiguous, one pass, no labels", 0.75, ONE_PASS, path, ("matched",)))
    found.append(Target("unknown against ambiguous, ensemble, no labels", 0.85, tuple(ENSEMBLE), path, ("matched",)))
    found += [
        Target("unknown against ambiguous, fitted, held-out shapes", 0.85, [n], path, ("matched",)) for n in PROBES
    ]
    for scope in ("all", "one answer"):
        for risk in ("calibrated (isotonic)", *CALIBRATED):
            name = f"calibration error, {scope}"
            found.append(Target(name, ECE, [risk], ("calibration", scope), ("ece",), most=True))
    path = ("provenance", "signals")
    found.append(Target("provenance, one number from one pass", 0.90, SHARES, path, model="grown"))
    for name in ("fitted: log shares of layers and projections", "log p(answer): grown minus base"):
        found.append(Target("provenance", 0.90, [name], path, model="grown"))
    return found


def targets(results: Results) -> list[list[str]]:
    """Rows of the table: target, limit, signal, result on the held-out seeds, and whether it meets the limit."""
    return [row(results, target) for target in all_targets()]


def row(results: Results, target: Target) -> list[str]:
    signal = target.signals[0]
    if len(target.signals) > 1:
        signal = results.development.best(target.signals, target.model, *target.path, after=target.after)
    path = (*target.path, signal, *target.after)
    values = results.held_out.values(target.model, *path)
    others = [spread(part.values(target.model, *path)) for part in (results, results[[0]])]
    limit = f"{'≤ ' if target.most else ''}{target.limit:.2f}"
    if not values:
        return [target.name, limit, signal, "-", "not measured", *others]
    value = mean(values.values())
    met = value <= target.limit if target.most else value >= target.limit
    return [target.name, limit, signal, spread(values), verdict(met), *others]


def verdict(met: bool) -> str:
    return "yes" if met else "**no**"
