"""The results of load tests as plots. Plots of comparisons come from their JSON: bars and lines are medians, dots are
rounds.

    python -m loadtest.plots [loadtest/results]

redraws all comparisons in the directory.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from loadtest import machine

Figures = Mapping[str, Any]

BLUE, ORANGE, GREY = (
    "#0072b2",
    "#e69f00",
    "#767676",
)  # the palette of Okabe and Ito: distinct for the colour-blind, and in print
WIDTH, PANEL, BAR = 9.0, 3.2, 0.3
"""Inches: of a figure, of the height of a panel, and of that of a bar."""
TARGETS = {"decode": 0.7, "prefill": 0.6, "ready": 20}
"""As docs/performance.md has them: shares, and seconds."""
LATENCIES = {"ttft": "time to first token [ms]", "tpot": "time per output token [ms]"}


def draw(name: str, written: Path) -> None:
    """Draw the results of the comparison `name` as an SVG beside them."""
    save(PLOTS[name](json.loads(written.read_text())), written.with_suffix(".svg"))


def save(figure: Figure, path: Path) -> None:
    with rc_context({"svg.hashsalt": "loadtest", "svg.fonttype": "none"}):  # the same figures give the same file
        figure.savefig(path, metadata={"Date": None})


def sides(figures: Figures) -> Figure:
    """Output tok/s as a share of the first side's: a row for every part, a panel for every load."""
    rate = "output_throughput"
    heights = [1 + BAR * len(part["sides"]) for part in figures.values()]
    figure = Figure((WIDTH, sum(heights)), layout="constrained")
    rows = figure.subfigures(len(figures), 1, squeeze=False, height_ratios=heights)[:, 0]
    for row, (name, part) in zip(rows, figures.items(), strict=True):
        first = next(iter(part["sides"]))
        row.suptitle(f"{name}: output tok/s ({first} = 1)", fontsize="medium")
        panels = row.subplots(1, len(part["loads"]), squeeze=False, sharex=True, sharey=True)[0]
        for panel, (load, found) in zip(panels, part["loads"].items(), strict=True):
            rates = {side: [run[rate] for run in runs] for side, runs in found["all_rounds"].items()}
            bars(panel, {side: ratios[rate] for side, ratios in found["ratios"].items()}, of_first(rates), mark=1)
            panel.set_xlabel(load)
    return figure


def batch(figures: Figures) -> Figure:
    """Throughput and latency against the number of concurrent requests, a row for every part."""
    metrics = {"output_throughput": "output tok/s of all", "p50_tpot_ms": "TPOT p50 [ms]"}
    figure = Figure((WIDTH, PANEL * len(figures)), layout="constrained")
    rows = figure.subplots(len(figures), len(metrics), squeeze=False)
    for row, (name, part) in zip(rows, figures.items(), strict=True):
        loads = {int(load.split()[0]): found for load, found in part["loads"].items()}  # "16 at a time"
        [side] = part["sides"]
        for panel, (metric, label) in zip(row, metrics.items(), strict=True):
            medians = {size: found["medians"][side][metric] for size, found in loads.items()}
            rounds = {size: [run[metric] for run in found["all_rounds"][side]] for size, found in loads.items()}
            points(panel, medians, rounds)
            panel.plot(list(medians), list(medians.values()), color=BLUE, linewidth=1)
            panel.set(title=name, xlabel="requests at a time", ylabel=label, xscale="log", xticks=list(medians))
            panel.set_xticklabels(list(map(str, medians)))
            panel.minorticks_off()
    return figure


def sizes(figures: Figures) -> Figure:
    """Milliseconds of a step against the sizes of model and batch, with the fitted lines."""
    figure = Figure((WIDTH, PANEL), layout="constrained")
    panels = figure.subplots(1, len(figures["ms_per_step"]))
    for panel, (name, found) in zip(panels, figures["ms_per_step"].items(), strict=True):
        medians = {int(count): milliseconds for count, milliseconds in found.items()}
        rounds = figures["rounds"]
        points(panel, medians, {count: rounds.get(f"{count} {name.split()[-1]}", ()) for count in medians})
        if fitted := figures["lines"].get(name):
            ends = (0, max(medians))
            line = [fitted["ms_at_0"] + fitted["ms_per_1000"] * x / 1000 for x in ends]
            panel.plot(ends, line, color=GREY, linestyle="--", linewidth=1)
            panel.set_title(f"the line explains {fitted['explained']:.2%}", fontsize="medium")
        panel.set(xlabel=name, xlim=(0, None))
    panels[0].set_ylabel("ms per step")
    return figure


def stages(figures: Figures) -> Figure:
    """Output tok/s as a share of the first side's."""
    rates = figures["all_rounds"]
    first = next(iter(rates))
    figure = Figure((WIDTH, 1 + BAR * len(rates)), layout="constrained")
    panel = figure.subplots()
    bars(panel, figures[f"of {first}"], of_first(rates), mark=1)
    panel.set_xlabel(f"output tok/s ({first} = 1)")
    return figure


def roofline(figures: Figures) -> Figure:
    """Decode as a share of the bandwidth's limit, and prefill of the GEMM rate; the target is dashed."""
    results = figures["results"]
    figure = Figure((WIDTH, PANEL), layout="constrained")
    left, right = figure.subplots(1, 2)
    bars(left, {name: found["decode"]["of_bandwidth_limit"] for name, found in results.items()}, {}, TARGETS["decode"])
    for place, found in enumerate(results.values()):
        left.plot(found["decode"]["of_onednn"], place, "D", color=ORANGE)
    left.set(title="decode: share of the bandwidth's limit", xlim=(0, 1))
    left.set_xlabel("diamonds: share of oneDNN's product with one row")
    for name, found in results.items():
        shares = {int(length): prefill["of_gemm_rate"] for length, prefill in found["prefill"].items()}
        right.plot(list(shares), list(shares.values()), "o-", label=name)
    right.axhline(TARGETS["prefill"], color=GREY, linestyle="--", linewidth=1)
    right.set(title="prefill: share of the GEMM rate", xlabel="prompt tokens", ylim=(0, 1), xlim=(0, None))
    right.legend(frameon=False, loc="lower right")
    right.spines[["top", "right"]].set_visible(False)
    return figure


def api_layer(figures: Figures) -> Figure:
    """Microseconds of the API process: a row for every kind of answer, a panel for requests and one for tokens."""
    kinds = figures["microseconds"]
    count = len(figures["sides"])
    figure = Figure((WIDTH, len(kinds) * (1 + BAR * count)), layout="constrained")
    units = ("request", "token")
    rows = figure.subplots(len(kinds), len(units), squeeze=False, sharex="col", sharey=True)
    for row, (kind, found) in zip(rows, kinds.items(), strict=True):
        for panel, unit in zip(row, units, strict=True):
            costs = {side: cost[unit] for side, cost in found.items()}
            medians = {side: cost["median"] for side, cost in costs.items()}
            bars(panel, medians, {side: cost["all_rounds"] for side, cost in costs.items()})
            panel.set_xlabel(f"{kind}: µs per {unit}")
    return figure


def ready(figures: Figures) -> Figure:
    """Seconds of every side with warm caches; the target is dashed."""
    found = figures["seconds"]
    figure = Figure((WIDTH, 1 + BAR * len(found)), layout="constrained")
    panel = figure.subplots()
    medians = {side: times["median"] for side, times in found.items()}
    bars(panel, medians, {side: times["all_rounds"] for side, times in found.items()}, TARGETS["ready"])
    panel.set_xlabel("seconds from the start of the process until it is ready")
    return figure


def curves(scenarios: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """The cumulative share of a scenario's requests by latency, from equidistant quantiles."""
    figure = Figure((WIDTH, 3.6), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for panel, (name, label) in zip(panels, LATENCIES.items(), strict=True):
        for scenario, quantiles in scenarios.items():
            panel.plot(quantiles[name], np.linspace(0, 1, len(quantiles[name])), label=scenario)
        panel.set(xlabel=label, xscale="log", ylim=(0, 1))
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("share of requests")
    panels[1].legend(frameon=False)
    return figure


def of_first(rates: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """Each round's ratio to the first side in the same round."""
    first = next(iter(rates.values()))
    return {name: [rate / base for rate, base in zip(found, first, strict=True)] for name, found in rates.items()}


def bars(
    panel: Axes,
    medians: Mapping[str, float],
    rounds: Mapping[str, Sequence[float]],
    mark: float | None = None,
) -> None:
    """One for every name, with its figure at the margin."""
    panel.barh(range(len(medians)), list(medians.values()), height=0.6, color=BLUE, alpha=0.3)
    for place, (name, median) in enumerate(medians.items()):
        panel.plot(rounds.get(name, ()), [place] * len(rounds.get(name, ())), "o", color=BLUE, markersize=3)
        panel.text(1.02, place, f"{float(f'{median:.3g}'):g}", transform=panel.get_yaxis_transform(), va="center")
    if mark is not None:
        panel.axvline(mark, color=GREY, linestyle="--", linewidth=1)
    panel.set_yticks(range(len(medians)), list(medians))
    panel.set_ylim(len(medians) - 0.5, -0.5)  # the first is on top
    panel.spines[["top", "right"]].set_visible(False)


def points(panel: Axes, medians: Mapping[int, float], rounds: Mapping[int, Sequence[float]]) -> None:
    for x, values in rounds.items():
        panel.plot([x] * len(values), values, "o", color=BLUE, markersize=3, alpha=0.5)
    panel.plot(list(medians), list(medians.values()), "_", color=BLUE, markersize=12, markeredgewidth=2)
    panel.set_ylim(bottom=min(0, panel.get_ylim()[0]))
    panel.spines[["top", "right"]].set_visible(False)


PLOTS: Mapping[str, Callable[[Figures], Figure]] = {
    "against_neox": sides,
    "against_vllm": sides,
    "api_layer": api_layer,
    "batch": batch,
    "demo-stages": stages,
    "ready": ready,
    "real": sides,
    "roofline": roofline,
    "sizes": sizes,
    "stages": stages,
    "uncertainty": sides,
}
"""By the names of their JSON."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, nargs="?", default=machine.results(), help="default: %(default)s")
    results = parser.parse_args().results
    for name in PLOTS:
        if (written := results / f"{name}.json").exists():
            draw(name, written)


if __name__ == "__main__":
    main()
