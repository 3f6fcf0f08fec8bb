"""The demo, whose facts are real, beside the synthetic worlds: the calibrations that ship with its checkpoint."""

from __future__ import annotations

from pathlib import Path

from evals.report.tables import with_interval
from server.calibrate.markdown import table
from server.uncertainty.calibration import find_calibrations, load_calibration

DEMO = Path(__file__).parents[2] / "demo" / "checkpoint"
ERRORS = 0.97


def shipped_table() -> str:
    """Their figures, of answers about countries and elements that they were not fitted on."""
    rows = []
    for file in find_calibrations(DEMO):
        calibration = load_calibration(file)
        found = [with_interval(calibration.figures[name]) for name in ("auroc", "ece", "brier", "prr")]
        met = "yes" if calibration.figures["auroc"]["value"] >= ERRORS else "**no**"
        rows.append([calibration.stage, calibration.method, f"{calibration.data['held_out']:,}", *found, met])
    head = ["stage", "method", "held-out answers", "AUROC of wrong answers", "ECE", "Brier", "PRR"]
    return table([*head, f"AUROC of {ERRORS:.2f} met"], rows)
