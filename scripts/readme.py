"""Writes the figures of README.md from result files, and its response from a server of the demo.

`python -m scripts.readme [URL]`; without URL the response stays. Figures stand between comments that name this file.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import httpx

from scripts.api_examples import written
from server.calibrate.markdown import table

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
REAL = ROOT / "evals" / "results" / "real.json"
DEMO = ROOT / "demo" / "checkpoint" / "calibration.json"
LOADS = ROOT / "loadtest" / "results" / "amd-avx512-bf16"

QUESTION = {
    "messages": [{"role": "user", "content": "What is the capital of Selkovia?"}],
    "uncertainty": {"spans": True},
}
ENTROPY, PROBE = "entropy, max", "calibrated (probe)"
SHOWN = ("risk", "max_entropy", "mean_variance", "max_epistemic", "spans")


def response(url: str) -> str:
    """The demo's answer, shortened."""
    (choice,) = httpx.post(f"{url}/v1/chat/completions", json=QUESTION, timeout=60).json()["choices"]
    uncertainty = {name: short(choice["uncertainty"][name]) for name in SHOWN}
    return f"```json\n{written({'content': choice['message']['content'], 'uncertainty': uncertainty})}\n```"


def short(value: Any) -> Any:
    """Without the digits that nobody reads."""
    if isinstance(value, float):
        return float(f"{value:.3g}")
    if isinstance(value, list):
        return [short(part) for part in value]
    return {name: short(part) for name, part in value.items()} if isinstance(value, dict) else value


def trust() -> str:
    """How well wrong answers are found."""
    figures, demo = json.loads(REAL.read_text())["figures"], json.loads(DEMO.read_text())["figures"]
    countries, elements, invented = (figures[name]["signals"] for name in ("countries", "elements", "invented"))
    unseen = figures["transfer"]["by method"][PROBE]["unseen"]
    found = {
        "real facts about countries, SmolLM2-135M": (countries[ENTROPY], countries[PROBE]),
        "the same, attributes that the fit lacks": (countries[ENTROPY], unseen),
        "chemical elements, after a fit on countries": (elements[ENTROPY], elements[PROBE]),
        "invented places against right answers": (invented[ENTROPY], invented[PROBE]),
        "the demo: countries and elements, real and invented": (demo["baselines"]["max_entropy"], demo),
    }
    rows = [
        [what, number(entropy["auroc"]), number(probe["auroc"]), number(probe.get("ece"))]
        for what, (entropy, probe) in found.items()
    ]
    figures_of = ["AUROC for wrong answers", "highest entropy", "calibrated risk", "calibration error"]
    sources = (
        "From [real facts](evals/results/REAL.md) and the [demo](demo/checkpoint/calibration.md), of whose answers one "
        "in twenty was given to it."
    )
    return f"{table(figures_of, rows)}\n\n{sources}"


def number(figure: Any) -> str:
    """With or without an interval."""
    value = figure["value"] if isinstance(figure, dict) else figure
    return "-" if value is None else f"{value:.2f}"


def costs() -> str:
    """Output tokens a second by kind of uncertainty, relative to none."""
    kinds = json.loads((LOADS / "uncertainty.json").read_text())
    loads = ("1 at a time", "16 at a time")
    header = ["", *(f"{part}, {load.split()[0]}" for part in kinds for load in loads)]
    rows = [
        [side, *(rate(kinds[part]["loads"][load], side) for part in kinds for load in loads)]
        for side in kinds["demo"]["sides"]
    ]
    real = json.loads((LOADS / "real.json").read_text())["SmolLM2-135M"]["loads"]
    ours, theirs = (" and ".join(rate(real[load], side) for load in loads) for side in ("ours", "vLLM, logprobs 5"))
    stock = json.loads((LOADS / "against_vllm.json").read_text())
    summary = {name: " and ".join(rate(part["loads"][load], "ours") for load in loads) for name, part in stock.items()}
    machine = kinds["demo"]["machine"]
    source = (
        "`python -m loadtest.uncertainty`, `loadtest.against_vllm` and `loadtest.real`, "
        f"{machine['processor']} with {machine['instructions']}"
    )
    relative = (
        f"Relative to vLLM's own server without logprobs, at 1 and 16 at a time: the 150M shape with the summary "
        f"{summary['150M']}, the demo {summary['demo']}; SmolLM2-135M {ours}, with vLLM's `logprobs: 5` there {theirs}."
    )
    return f"{table(header, rows)}\n\n{relative} ({source}.)"


def rate(load: Any, side: str) -> str:
    return f"{load['ratios'][side]['output_throughput']:.2f}"


def filled(page: str, name: str, content: str, by: str = "scripts/readme.py") -> str:
    """The page with `content` between the comments of this name, which say which file writes it."""
    pattern = re.compile(rf"(<!-- the {name}: {re.escape(by)} -->\n).*?(<!-- end -->)", re.DOTALL)
    assert pattern.search(page), name
    return pattern.sub(lambda found: f"{found[1]}{content}\n{found[2]}", page)


def figured(page: str) -> str:
    """The page with the figures of the result files."""
    return filled(filled(page, "trust", trust()), "costs", costs())


def main(url: str | None = None) -> None:
    page = figured(README.read_text())
    README.write_text(filled(page, "response", response(url.rstrip("/"))) if url else page)


if __name__ == "__main__":
    main(*sys.argv[1:])
