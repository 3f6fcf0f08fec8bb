"""Writes into docs/performance.md what the result files have reached: `python -m scripts.performance`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.readme import LOADS, ROOT, filled
from server.calibrate.markdown import table

PAGE = ROOT / "docs" / "performance.md"
AVX2 = LOADS.with_name("amd-avx2")
BATCHES = ("1", "16")


@dataclass(frozen=True)
class Target:
    """A limit and the figures that are held to it, by what was measured."""

    what: str
    limit: float
    figures: Mapping[str, float]
    source: str
    most: bool = False
    """Whether the limit is the greatest value; else it is the least."""

    def row(self) -> list[str]:
        met = sum(value <= self.limit if self.most else value >= self.limit for value in self.figures.values())
        verdict = {0: "no", len(self.figures): "yes"}.get(met, f"{met} of {len(self.figures)}")
        reached = ", ".join(f"{name} {value:.2f}" for name, value in self.figures.items())
        return [self.what, f"{'at most' if self.most else 'at least'} {self.limit:g}", reached, verdict, self.source]


def results(name: str, directory: Path = LOADS) -> Any:
    return json.loads((directory / f"{name}.json").read_text())


def link(name: str, directory: Path = LOADS) -> str:
    return f"[{name}](../{directory.relative_to(ROOT)}/{name}.md)"


def ratios(part: Any, side: str, metric: str, name: str, batches: tuple[str, ...] = BATCHES) -> dict[str, float]:
    loads = part["loads"]
    return {f"{name} at {batch}": loads[f"{batch} at a time"]["ratios"][side][metric] for batch in batches}


def targets() -> Iterator[Target]:
    kinds, stock = results("uncertainty"), results("against_vllm")
    reached = {k: v for name in kinds for k, v in ratios(kinds[name], "summary", "output_throughput", name).items()}
    yield Target("output tok/s with the summary, relative to off", 0.99, reached, link("uncertainty"))
    for name, limit in (("150M", 0.97), ("demo", 0.95)):
        reached = ratios(stock[name], "ours", "output_throughput", name)
        yield Target(
            f"output tok/s with the summary, relative to vLLM's server, {name}", limit, reached, link("against_vllm")
        )
    reached = {k: v for name in stock for k, v in ratios(stock[name], "ours", "p50_ttft_ms", name, ("16",)).items()}
    yield Target("TTFT p50 with the summary, relative to vLLM's server", 1.05, reached, link("against_vllm"), most=True)
    reached = {f"{row['subject']} at {row['batch']}": row["ratio"] for row in results("closed_form")["rows"]}
    yield Target(
        "output tok/s with epistemic uncertainty and growth, relative to without", 0.98, reached, link("closed_form")
    )
    yield api_layer()
    seconds = results("ready")["seconds"]["ours"]
    reached = {"median": seconds["median"], "without caches": seconds["first"]}
    yield Target("seconds until the demo is ready", 20, reached, link("ready"), most=True)
    yield from twins("", LOADS)
    yield from twins(", AVX2", AVX2)
    roofline = results("roofline")["results"]
    source = f"[roofline](../{LOADS.relative_to(ROOT)}/roofline.json)"
    reached = {name: found["decode"]["of_bandwidth_limit"] for name, found in roofline.items()}
    yield Target("decode at 1, as a share of the bandwidth limit", 0.7, reached, source)
    reached = {
        name: min(each["of_gemm_rate"] for each in found["prefill"].values()) for name, found in roofline.items()
    }
    yield Target("prefill of 256 to 2,000 tokens, as a share of the GEMM rate", 0.6, reached, source)
    reached = {name: line["explained"] for name, line in results("sizes")["lines"].items()}
    yield Target(
        "a step's time is linear in parameter tokens and in requests: share explained", 0.99, reached, link("sizes")
    )


def api_layer() -> Target:
    spent = results("api_layer")["microseconds"]
    reached = {
        f"{way}, per {unit}": spent[way]["ours, uncertainty off"][unit]["ratio"]
        for way in ("plain", "stream")
        for unit in ("request", "token")
    }
    return Target(
        "processor time of the API, uncertainty off, relative to vLLM's", 1.0, reached, link("api_layer"), True
    )


def twins(where: str, directory: Path) -> Iterator[Target]:
    """A Tokenformer relative to a GPT-NeoX of equal size, eager, both on vLLM's server."""
    found = {name: part for name, part in results("against_neox", directory).items() if name.startswith("eager")}
    for what, metric, most in (("output tok/s", "output_throughput", False), ("TTFT p99", "p99_ttft_ms", True)):
        reached = {
            key: value
            for name, part in found.items()
            for key, value in ratios(part, "Tokenformer", metric, name[6:], ("1", "4", "16")).items()
        }
        yield Target(f"{what} relative to a GPT-NeoX twin{where}", 1.0, reached, link("against_neox", directory), most)


def shares() -> str:
    """Where the time of a step goes, by PyTorch's profiler."""
    columns = {
        "blocks but for attention": ("blocks of few rows",),
        "other GEMMs": ("GEMMs",),
        "row operation": ("row operation",),
        "attention": ("attention",),
        "the rest": ("layer norms", "rotary", "the rest"),
    }
    rows = []
    for model, found in results("roofline")["results"].items():
        for step, spent in found["profile"].items():
            each = [sum(spent[name] for name in names) / spent["sum"] for names in columns.values()]
            rows.append([f"{step}, {model}", *(f"{share:.0%}" if share else "" for share in each)])
    return table(["step", *columns], sorted(rows))


def figured(page: str) -> str:
    """The page with the figures of the result files."""
    reached = table(["what", "target", "reached", "met", "from"], [target.row() for target in targets()])
    for name, content in (("targets", reached), ("shares", shares())):
        page = filled(page, name, content, "scripts/performance.py")
    return page


if __name__ == "__main__":
    PAGE.write_text(figured(PAGE.read_text()))
