"""The report's plots, as SVG."""

from __future__ import annotations

from pathlib import Path
from statistics import mean
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from evals.report.aggregate import Results
from evals.study import MANY, MANY_RATE, RATES, SOME

SETTINGS = (
    ("base", "all", "all parameter tokens"),
    ("base", "output, ffn", "output and ffn tokens"),
    ("twin", "hidden units", "twin: hidden units"),
    ("twin", "inputs", "twin: inputs"),
)


def plots(results: Results, directory: Path) -> None:
    for name, draw in (("study", study), ("calibration", calibration), ("exposure", exposure)):
        with rc_context({"svg.hashsalt": "evals"}):  # the same figures give the same file
            draw(results).savefig(directory / f"{name}.svg", metadata={"Date": None})


def study(results: Results) -> Figure:
    """AUROC at matched entropy against the rate (16 members) and against the number of members (3 %)."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for model, masked, label in SETTINGS:
        line(left, results, model, label, {rate * 100: f"{masked}/{rate}/{SOME[-1]}" for rate in RATES})
        line(right, results, model, label, {float(m): f"{masked}/{MANY_RATE}/{m}" for m in MANY})
    left.set(
        xlabel="masked [%], 16 members",
        ylabel="AUROC at matched entropy",
        xscale="log",
        xticks=[r * 100 for r in RATES],
    )
    left.get_xaxis().set_major_formatter("{x:.0f}")
    left.minorticks_off()
    right.set(xlabel=f"members, {MANY_RATE:.0%} masked", xscale="log", xticks=MANY)
    right.get_xaxis().set_major_formatter("{x:.0f}")
    right.minorticks_off()
    if left.lines:
        left.legend(fontsize=8)
    return figure


def line(axes: Axes, results: Results, model: str, label: str, settings: dict[float, str]) -> None:
    """Mean and range over seeds at every x."""
    found = {x: list(results.values(model, "study", name, "matched").values()) for x, name in settings.items()}
    found = {x: values for x, values in found.items() if values}
    if not found:
        return
    [drawn] = axes.plot(list(found), [mean(values) for values in found.values()], marker="o", markersize=3, label=label)
    axes.fill_between(
        list(found), [*map(min, found.values())], [*map(max, found.values())], alpha=0.15, color=drawn.get_color()
    )


def calibration(results: Results) -> Figure:
    """Reliability of all seeds before and after, and the share of wrong answers among those kept."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    risks = ("1 - probability of the answer (before)", "calibrated (probe)", "calibrated (probe) + ensemble")
    for number, risk in enumerate(risks):
        for seed, found in calibrations(results, risk).items():
            name = {"label": risk} if seed == next(iter(results.seeds)) else {}
            bins, curve = found["reliability"], found["risk_coverage"]
            left.plot(bins["risk"], bins["wrong"], ".-", color=f"C{number}", alpha=0.6, **name)
            kept = [(point + 1) / len(curve) for point in range(len(curve))]
            right.plot(kept, curve, color=f"C{number}", alpha=0.6)
    left.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
    left.set(xlabel="risk (mean of the bin)", ylabel="share of wrong answers")
    right.set(xlabel="share of answers kept", ylabel="share of wrong answers among them")
    left.legend(fontsize=8)
    return figure


def calibrations(results: Results, risk: str) -> dict[int, dict[str, Any]]:
    return {seed: found["models"]["base"]["calibration"]["all"][risk] for seed, found in results.seeds.items()}


def exposure(results: Results) -> Figure:
    """Accuracy, entropy and epistemic uncertainty of known facts by how often texts mention the person."""
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axes = figure.subplots(1, 3)
    columns = ("right", "entropy, first value token", "ensemble epistemic, first value token")
    for seed, found in results.seeds.items():
        levels = found["models"]["base"]["exposure"]["levels"]
        if len(levels) < 2:
            continue
        for one, column in zip(axes, columns, strict=True):
            one.plot(
                [row["exposure"] for row in levels],
                [row[column] for row in levels],
                "o-",
                markersize=3,
                label=f"seed {seed}",
            )
    for one, label in zip(axes, ("right", "median entropy [nats]", "median epistemic [nats]"), strict=True):
        one.set(xlabel="epochs that mention the person", ylabel=label, xscale="log")
    if axes[0].lines:
        axes[0].legend(fontsize=8)
    return figure
