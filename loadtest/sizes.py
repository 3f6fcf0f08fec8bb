"""The growth of a step's cost with the parameter tokens, the active requests, and the growth stages held.

    python -m loadtest.sizes [--rounds 5] [--out loadtest/results/sizes.json]

Random models of four layers, 768 wide, float32, in one process; every round measures all of them, one after the other.
Medians, and for what should be linear the straight line through them (least squares) with the share of the variance
that it explains.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from loadtest import machine, plots
from loadtest.in_process import generate, start, take_openmp
from loadtest.report import provenance, write
from loadtest.shapes import Shape
from server.calibrate.markdown import table

TOKENS = (768, 1536, 3072, 6144)
"""Parameter tokens of every projection."""
MIDDLE = 3072
"""Parameter tokens of every projection where stages or requests vary."""
STAGES = (1, 2, 4, 8)
"""Growth stages, each with a norm of its own, into which the same tokens are divided."""
REQUESTS = (1, 2, 4, 8, 16, 32, 64)
SHORT, LONG = 8, 24
"""New tokens of two runs, whose difference is pure decode."""


def shape(tokens: int, stages: int = 1) -> Shape:
    return Shape(f"sizes-{tokens}", 4, 768, 12, tokens, tokens, stages)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s, after one that warms up")
    parser.add_argument("--out", type=Path, default=machine.results() / "sizes.json")
    arguments = parser.parse_args()
    take_openmp()
    shapes = {f"{n} tokens": shape(n) for n in TOKENS} | {f"{s} stages": shape(MIDDLE, s) for s in STAGES[1:]}
    engines = {name: start(own.checkpoint(), kv_cache_memory_bytes=1 << 28) for name, own in shapes.items()}
    middle = f"{MIDDLE} tokens"
    runs = {name: (engine, 1) for name, engine in engines.items()}
    runs |= {f"{count} requests": (engines[middle], count) for count in REQUESTS[1:]}
    found: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(arguments.rounds + 1):
        for name, (engine, batch) in runs.items():
            milliseconds = 1000 * step_seconds(engine, batch)
            if number:  # the first warms up
                found[name].append(milliseconds)
    medians = {name: round(statistics.median(values), 2) for name, values in found.items()}
    tokens = {n: medians[f"{n} tokens"] for n in TOKENS}
    requests = {1: medians[middle]} | {count: medians[f"{count} requests"] for count in REQUESTS[1:]}
    report = {
        "ms_per_step": {
            "parameter tokens": tokens,
            "growth stages": {1: medians[middle]} | {count: medians[f"{count} stages"] for count in STAGES[1:]},
            "active requests": requests,
        },
        "lines": {"parameter tokens": line(tokens), "active requests": line(requests)},
        "rounds": {name: [round(value, 2) for value in values] for name, values in found.items()},
        "command": "python -m loadtest.sizes",
        "machine": machine.describe(),
    }
    write(arguments.out, report, markdown(report))
    plots.draw("sizes", arguments.out)
    print(markdown(report))


def step_seconds(engine: Any, batch: int) -> float:
    return (generate(engine, batch, 16, LONG, logprobs=0) - generate(engine, batch, 16, SHORT, logprobs=0)) / (
        LONG - SHORT
    )


def line(points: Mapping[int, float]) -> dict[str, float]:
    x, y = np.array(list(points)), np.array(list(points.values()))
    slope, intercept = np.polyfit(x, y, 1)
    explained = 1 - ((y - slope * x - intercept) ** 2).sum() / ((y - y.mean()) ** 2).sum()
    return {"ms_at_0": round(intercept, 3), "ms_per_1000": round(1000 * slope, 3), "explained": round(explained, 4)}


def markdown(report: Mapping[str, Any]) -> str:
    lines = ["Milliseconds of a decode step, entropy and variance on, by what the model and the batch hold."]
    for name, points in report["ms_per_step"].items():
        lines += ["", f"## {name}", "", table([name, "ms per step"], [[str(x), f"{y:g}"] for x, y in points.items()])]
        if fit := report["lines"].get(name):
            per, explained = fit["ms_per_1000"], fit["explained"]
            lines += ["", f"{fit['ms_at_0']:g} ms and {per:g} ms per 1,000: explains {explained:.2%} of the variance."]
    return "\n".join([*lines, *provenance(report)]) + "\n"


if __name__ == "__main__":
    main()
