"""A calibration's figures as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from server.calibrate.cautions import cautions
from server.calibrate.figures import ORDERING
from server.calibrate.markdown import table
from server.uncertainty.calibration import Abstention, Calibration
from server.uncertainty.reason import Population

NAMES = {
    "auroc": "AUROC (a wrong answer has the higher risk)",
    "auprc": "AUPRC (finding wrong answers)",
    "prr": "PRR (prediction rejection ratio)",
    "ece": "ECE (15 bins of equal size)",
    "brier": "Brier score",
}

HEAD = [key.upper() for key in ORDERING]

RELIABILITY_PLOT = "{}-reliability.svg"
COVERAGE_PLOT = "{}-risk-coverage.svg"
"""Names of the plots beside the report, from its own without the suffix."""


def report(calibration: Calibration, stem: str) -> str:
    """Markdown; needs the calibration's `data` and `figures`. `stem` names its file, without the suffix."""
    data, figures = calibration.data, calibration.figures
    curve = [[f"{p['coverage']:.0%}", f"{p['wrong']:.3f}", ends(p)] for p in figures["risk_coverage"][1::2]]
    bins = [[f"{b['risk']:.3f}", f"{b['wrong']:.3f}", ends(b), str(b["answers"])] for b in figures["reliability"]]
    orders = {**figures["baselines"], **figures["methods"]}
    alone = [["risk", *(interval(figures[key]) for key in ORDERING)]]
    alone += [[name, *(interval(found[key]) for key in ORDERING)] for name, found in orders.items()]
    added = [[name, *(difference(found["added"][key]) for key in ORDERING)] for name, found in orders.items()]
    parts = [
        f"# Calibration {calibration.name}",
        f"Method {calibration.method}, for growth stage `{calibration.stage}` of the checkpoint with fingerprint "
        f"`{calibration.checkpoint}`.",
        f"Fitted on {data['fitted_on']} of {data['labels']} labelled answers, {data['wrong']} of which are wrong "
        f"(SHA-256 of the data: `{data['sha256']}`). All figures are of the {data['held_out']} answers held out, with "
        "95 % bootstrap intervals (that of ECE lies too high: resampling adds to it what chance does). Answers to one "
        "question, or of one group, are never on both sides, and are drawn together.",
        *(f"**Caution:** {line}." for line in cautions(calibration)),
        *kinds(calibration.population),
        table(["figure", "value"], ([NAMES[key], interval(figures[key])] for key in NAMES)),
        "## Against single statistics and other methods\n\nHow well each orders the same answers; the methods were "
        "fitted on the same ones.",
        table(["", *HEAD], alone),
        "What this calibration adds to each: differences on the same resamples.",
        table(["beyond", *HEAD], added),
        calibration_errors(calibration),
        *transferred(calibration),
        *groups(figures),
        "## Reliability\n\nBins of nearly equal size, from the lowest risk up.",
        f"![Reliability diagram]({RELIABILITY_PLOT.format(stem)})",
        table(["mean risk", "share wrong", "interval", "answers"], bins),
        "## Risk and coverage\n\nShare of wrong answers among those of lowest risk.",
        f"![Risk-coverage curve]({COVERAGE_PLOT.format(stem)})",
        table(["answers kept", "share wrong", "interval"], curve),
        "## Abstaining",
        abstaining(calibration.abstain),
    ]
    return "\n\n".join(parts) + "\n"


def kinds(population: Population | None) -> list[str]:
    """The kinds of answers that it was fitted on, for which alone it gives a risk."""
    if population is None:
        return []
    forms, ends, units = (
        ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
        for counts in (population["forms"], population["finish_reasons"], population["units"])
    )
    return [
        f"Labels by form of the answer: {forms}; by its finish reason: {ends}; by what they are about: {units}. Other "
        "kinds of answers get no risk."
    ]


def calibration_errors(calibration: Calibration) -> str:
    errors = {calibration.method: calibration.figures["ece"]["value"]}
    errors |= {name: found["ece"] for name, found in calibration.figures["methods"].items()}
    chance = calibration.figures["ece_by_chance"]
    return (
        f"ECE by method: {', '.join(f'{name} {error:.3f}' for name, error in errors.items())}. A perfectly calibrated "
        f"risk of these answers would have {chance['value']:.3f} {ends(chance)}, by the chance of finite bins."
    )


def transferred(calibration: Calibration) -> list[str]:
    """Figures on topics that a fit has not seen; empty for labels of less than two topics."""
    if "transfer" not in calibration.figures:
        return []
    found = calibration.figures["transfer"]
    rows = [
        [name, *(interval(part[how]["auroc"]) for how in HOW), difference(part["lost"]), *errors_of(part)]
        for name, part in found["methods"].items()
    ]
    topics = [
        [part["topic"] or "(none)", part["answers"], *(f"{part[key]:.3f}" for key in ("wrong", *HOW))]
        for part in found["topics"]
    ]
    left = f" Not judged, because the other topics have too few labels: {', '.join(found['left_out'])}."
    return [
        "## On topics that the fit has not seen\n\nThe same fits without the labels of the topics that they judge, on "
        f"{found['answers']} of the held-out answers. Seen: the fit has other answers of the topic."
        + (left if found["left_out"] else ""),
        table(["method", "AUROC, seen", "unseen", "lost", "ECE, seen", "unseen"], rows),
        f"Topic by topic, the mean risk by {calibration.method}:",
        table(["topic", "answers", "share wrong", "mean risk, seen", "unseen"], topics),
    ]


HOW = ("seen", "unseen")


def errors_of(part: Mapping[str, Any]) -> list[str]:
    return [f"{part[how]['ece']:.3f}" for how in HOW]


def groups(figures: Mapping[str, Any]) -> list[str]:
    """The gain of each group of a probe's features; empty for other methods."""
    if "groups" not in figures:
        return []
    pair, *others = figures["groups"].items()
    rows = [["the pair", *(interval(pair[1][key]) for key in ORDERING)]]
    rows += [[f"+ {group}", *(difference(found[key]) for key in ORDERING)] for group, found in others]
    return [
        "## What each group of features adds\n\nTo a probe that reads highest entropy and lowest max-probability only; "
        "differences on the same resamples.",
        table(["", *HEAD], rows),
    ]


def abstaining(abstain: Abstention | None) -> str:
    if abstain is None:
        return "No error rate was asked for (`--abstain`)."
    return (
        f"Flagging answers with a risk above {abstain['above']:.4f} keeps the expected share of answers that are wrong "
        f"and not flagged, among all answers, at {abstain['error_rate']:.0%} or below: conformal risk control on the "
        "answers held out. It holds for questions like these, asked of this model as these were."
    )


def interval(figure: Mapping[str, Any]) -> str:
    return f"{figure['value']:.3f} {ends(figure)}"


def difference(figure: Mapping[str, Any]) -> str:
    return f"{figure['value']:+.3f} [{figure['low']:+.3f}, {figure['high']:+.3f}]"


def ends(figure: Mapping[str, Any]) -> str:
    return f"[{figure['low']:.3f}, {figure['high']:.3f}]"
