"""Plots of a calibration's figures as SVG, the same bytes for the same figures."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

BLUE, GREY = "#0072b2", "#767676"  # of the Okabe-Ito colours: distinct for the colour-blind, and in print


def reliability_plot(figures: Mapping[str, Any]) -> bytes:
    """Share of wrong answers against mean risk, per bin; `figures` as `server.calibrate.figures.summary` gives them."""
    figure, axes = _axes("risk", "share of answers that are wrong")
    bins = figures["reliability"]
    risk, wrong = ([entry[name] for entry in bins] for name in ("risk", "wrong"))
    # A percentile interval need not hold the value itself.
    below = [max(0.0, entry["wrong"] - entry["low"]) for entry in bins]
    above = [max(0.0, entry["high"] - entry["wrong"]) for entry in bins]
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="perfectly calibrated")
    axes.errorbar(risk, wrong, yerr=[below, above], color=BLUE, fmt="o", markersize=4, capsize=2, label="this one")
    axes.legend(loc="upper left", frameon=False)
    return _svg(figure)


def risk_coverage_plot(figures: Mapping[str, Any]) -> bytes:
    """Share of wrong answers among the answers of lowest risk, against the share that is kept."""
    figure, axes = _axes("share of answers kept, lowest risk first", "share of them that is wrong")
    curve = figures["risk_coverage"]
    kept, wrong, low, high = ([point[name] for point in curve] for name in ("coverage", "wrong", "low", "high"))
    overall = wrong[-1]
    axes.plot([0, 1], [overall, overall], color=GREY, linestyle=":", linewidth=1, label="random order")
    perfect = [max(0.0, 1 - (1 - overall) / share) for share in kept]
    axes.plot(kept, perfect, color=GREY, linestyle="--", linewidth=1, label="perfect order")
    axes.fill_between(kept, low, high, color=BLUE, alpha=0.2, linewidth=0)
    axes.plot(kept, wrong, color=BLUE, label="by risk")
    axes.set_ylim(0, max(high) * 1.3)
    axes.legend(loc="upper left", frameon=False)
    return _svg(figure)


def _axes(x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5, 3.6), layout="constrained")
    axes = figure.add_subplot(xlabel=x, ylabel=y, xlim=(0, 1), ylim=(0, 1))
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _svg(figure: Figure) -> bytes:
    file = BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "tokenformer", "svg.fonttype": "none"}):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return file.getvalue()
