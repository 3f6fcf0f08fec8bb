"""What a calibration's own figures say against it, and how many labels would tell."""

from __future__ import annotations

import math

from server.uncertainty.calibration import Calibration

LEAST_GAIN = 0.01
"""The smallest gain in AUROC over a single signal that is worth telling from none."""

MOST_ECE = 0.05


def cautions(calibration: Calibration) -> list[str]:
    """One line each; needs the calibration's `data` and `figures`.

    Widths of intervals and the error that chance makes shrink with the root of the number of labels. So where n labels
    give an interval that reaches b to either side, n (b / d)^2 tell a difference of d from none.
    """
    found = single_signal(calibration), calibration_error(calibration), unseen_topics(calibration)
    return [line for line in found if line]


def single_signal(calibration: Calibration) -> str | None:
    """The signal that comes closest to the risk, if it is as good within the interval of their difference."""
    baselines = calibration.figures["baselines"].items()
    others = {name: found["added"]["auroc"] for name, found in baselines if [name] != list(calibration.features)}
    name = min(others, key=lambda name: others[name]["value"])
    added = others[name]
    if added["low"] > 0:
        return None
    reach, gain = (added["high"] - added["low"]) / 2, max(added["value"], LEAST_GAIN)
    return (
        f"{name} alone orders the answers as well: the risk adds {added['value']:+.3f} [{added['low']:+.3f}, "
        f"{added['high']:+.3f}] AUROC; {enough(calibration.data['labels'], reach / gain, f'a gain of {gain:.3f}')}"
    )


def calibration_error(calibration: Calibration) -> str | None:
    error, chance = (calibration.figures[name] for name in ("ece", "ece_by_chance"))
    if error["value"] <= MOST_ECE:
        return None
    told = f"ECE {error['value']:.3f} is above {MOST_ECE}; chance alone makes up to {chance['high']:.3f}"
    return f"{told}; {enough(calibration.data['labels'], chance['high'] / MOST_ECE, f'an error of {MOST_ECE}')}"


def unseen_topics(calibration: Calibration) -> str | None:
    """The calibration error on topics that the fit has not seen, where it is small on those that it has."""
    figures = calibration.figures
    if "transfer" not in figures:
        return None
    found = figures["transfer"]["methods"][calibration.method]
    if found["seen"]["ece"] > MOST_ECE or found["unseen"]["ece"] <= max(MOST_ECE, figures["ece_by_chance"]["high"]):
        return None
    return (
        f"on topics that the fit has not seen, ECE is {found['unseen']['ece']:.3f} and AUROC "
        f"{found['unseen']['auroc']['value']:.3f}, against {found['seen']['ece']:.3f} and "
        f"{found['seen']['auroc']['value']:.3f}: label every topic that will be asked about"
    )


def enough(labels: int, ratio: float, what: str) -> str:
    """Whether so many labels tell `what`, of which chance is `ratio` times as large, or how many would."""
    if ratio <= 1:
        return f"these {labels:,} labels are enough to tell {what}"
    return f"about {rounded_up(labels * ratio**2):,} labels would tell {what}"


def rounded_up(number: float) -> int:
    """To two digits."""
    unit: int = 10 ** max(0, math.floor(math.log10(number)) - 1)
    return math.ceil(number / unit) * unit
