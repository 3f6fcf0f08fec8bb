"""Results as files and tables, and the quantiles that are plotted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from server.calibrate.markdown import table

SHOWN = ("ttft", "tpot", "itl", "e2el")
POINTS = 101
COLUMNS = (
    "scenario",
    "requests/s",
    "within objectives",
    "output tok/s",
    *(f"{name.upper()} ms" for name in SHOWN),
    "API MiB",
    "engine MiB",
)


def write(path: Path, figures: Mapping[str, Any], text: str) -> None:
    """Write the figures to `path` as JSON, and `text`, their tables, beside it as Markdown."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(figures, indent=2) + "\n")
    path.with_suffix(".md").write_text(text)


def markdown(figures: Mapping[str, Any]) -> str:
    """Latencies are the 50th, 90th and 99th percentile."""
    lines = [table(COLUMNS, map(_row, figures["scenarios"])), ""]
    lines += [f"- {found['name']}: {found['what']}" for found in figures["scenarios"]]
    objectives = " and ".join(f"{name.upper()} at most {most} ms" for name, most in figures["objectives_ms"].items())
    lines += ["", f"Latencies are percentiles 50 / 90 / 99; the objectives are {objectives}.", *provenance(figures)]
    return "\n".join(lines) + "\n"


def provenance(figures: Mapping[str, Any]) -> list[str]:
    """The command that made the figures, and its machine."""
    machine = ", ".join(f"{name} {value}" for name, value in figures["machine"].items())
    return ["", f"`{figures['command']}`, on: {machine}."]


def _row(found: Mapping[str, Any]) -> list[object]:
    rate = found["requests_per_second"]
    latencies = (" / ".join(f"{value:.0f}" for value in found["milliseconds"][name].values()) for name in SHOWN)
    memory = found["peak_mib"] or {"api": "-", "engine": "-"}
    good = f"{found['good_requests_per_second'] / rate:.0%}"
    return [found["name"], rate, good, found["output_tokens_per_second"], *latencies, memory["api"], memory["engine"]]


def cumulative(result: Mapping[str, Any]) -> dict[str, list[float]]:
    """Quantiles of the latencies of every request, in milliseconds."""
    ends = zip(result["latencies"], result["ttfts"], result["output_lens"], strict=True)
    samples = {"ttft": result["ttfts"], "tpot": [(end - first) / max(n - 1, 1) for end, first, n in ends]}
    return {name: (1000 * np.quantile(found, np.linspace(0, 1, POINTS))).tolist() for name, found in samples.items()}
