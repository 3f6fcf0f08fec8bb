"""A calibration's figures as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from server.calibration import Calibration

NAMES = {
    "auroc": "AUROC (a wrong answer has the higher risk)",
    "auprc": "AUPRC (finding wrong answers)",
    "prr": "PRR (prediction rejection ratio)",
    "ece": "ECE (15 bins of equal size)",
    "brier": "Brier score",
}


def report(calibration: Calibration) -> str:
    """Markdown; needs the calibration's `data` and `figures`."""
    data, figures = calibration.data, calibration.figures
    curve = [[f"{point['coverage']:.0%}", f"{point['wrong']:.3f}"] for point in figures["risk_coverage"]]
    bins = [[f"{b['risk']:.3f}", f"{b['wrong']:.3f}", str(b["answers"])] for b in figures["reliability"]]
    ordering = ("auroc", "auprc", "prr")
    rows = [["risk", *(interval(figures[name]) for name in ordering)]]
    rows += [[name, *(interval(found[key]) for key in ordering)] for name, found in figures["baselines"].items()]
    parts = [
        f"# Calibration {calibration.name}",
        f"Method {calibration.method}, for growth stage `{calibration.stage}` of the checkpoint with fingerprint "
        f"`{calibration.checkpoint}`.",
        f"Fitted on {data['fitted_on']} of {data['labels']} labelled answers, {data['wrong']} of which are wrong "
        f"(SHA-256 of the data: `{data['sha256']}`). All figures are of the {data['held_out']} answers held out, with "
        "95 % bootstrap intervals (that of ECE lies too high: resampling adds to it what chance does). Answers to one "
        "question are never on both sides.",
        table(["figure", "value"], ([NAMES[key], interval(figures[key])] for key in NAMES)),
        "## Against single statistics\n\nHow well each orders the same answers by itself.",
        table(["", "AUROC", "AUPRC", "PRR"], rows),
        "## Reliability\n\nBins of nearly equal size, from the lowest risk up.",
        table(["mean risk", "share wrong", "answers"], bins),
        "## Risk and coverage\n\nShare of wrong answers among those of lowest risk.",
        table(["answers kept", "share wrong"], curve),
        "## Abstaining",
        abstaining(calibration.abstain),
    ]
    return "\n\n".join(parts) + "\n"


def abstaining(abstain: Mapping[str, float] | None) -> str:
    if abstain is None:
        return "No error rate was asked for (`--abstain`)."
    return (
        f"Flagging answers with a risk above {abstain['above']:.4f} keeps the expected share of answers that are wrong "
        f"and not flagged, among all answers, at {abstain['error_rate']:.0%} or below: conformal risk control on the "
        "answers held out. It holds for questions like these, asked of this model as these were."
    )


def interval(figure: Mapping[str, Any]) -> str:
    return f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
