"""Writes the figures inside sentences of our pages from result files: `python -m scripts.quoted`.

A quotation is a sentence with {} for each figure. Its page has it once, with any figures and any line breaks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from statistics import mean
from typing import Any, NamedTuple

from scripts.readme import ENTROPY, LOADS, PROBE, REAL, ROOT

RESULTS = ROOT / "evals" / "results"
SEVERAL = ROOT / "demo" / "several.json"
SERVED = "last feed-forward, 16 words, max"
"""The closed form as the engine computes it, but for the limit of 64 tokens."""
ATTRIBUTION = "attribution, first value token, added to the logit"
SEEDS = range(5)


class Quotation(NamedTuple):
    page: str
    sentence: str
    figures: Sequence[float]


def quotations() -> list[Quotation]:
    return [*of_the_readme(), *of_how_sure(), *of_real_models()]


def of_the_readme() -> list[Quotation]:
    found = json.loads(SEVERAL.read_text())["chemistry"]
    auroc, risk = found["several"]["auroc"], found["median risk"]
    made_up = (
        "have a risk of {}, in the median. Asked about countries and elements that do not exist, it answers all the "
        "same, with {}."
    )
    several = "an AUROC of {} by entropy, {} by epistemic uncertainty, which every token carries, and {} by the risk"
    return [
        Quotation("README.md", made_up, [risk["single"], risk["invented"]]),
        Quotation("README.md", several, [auroc[name] for name in ("max_entropy", "max_epistemic", "risk")]),
    ]


def of_how_sure() -> list[Quotation]:
    figures = json.loads(REAL.read_text())["figures"]
    answers = figures["answers"]["country"]
    countries, elements, invented = (figures[name]["signals"] for name in ("countries", "elements", "invented"))
    probe, unseen = countries[PROBE], figures["transfer"]["by method"][PROBE]["unseen"]
    sampled = countries["10 samples: disagreement"]
    seeds = [json.loads((RESULTS / f"seed-{seed}.json").read_text())["models"] for seed in SEEDS]
    unknown = [seed["base"]["separation"]["unknown"]["signals"]["variance, mean"]["matched"] for seed in seeds]
    growth = [seed["grown"]["provenance"]["signals"][ATTRIBUTION]["value"] for seed in seeds]
    closed = json.loads((RESULTS / "closed-form.json").read_text())
    by_world = [row[SERVED]["unknown"] for name, row in closed.items() if name.endswith("base")]
    wrong = [row[SERVED]["wrong"] for name, row in closed.items() if name.endswith("base")]
    twins = [
        (row[SERVED]["unknown"], closed[name.replace("twin", "base")][SERVED]["unknown"])
        for name, row in closed.items()
        if name.endswith("twin")
    ]
    transfer = [one["transfer"] for one in json.loads((RESULTS / "transfer.json").read_text())["seeds"].values()]
    kinds = [auroc(one["kinds of facts"]["methods"][PROBE]["unseen"]) for one in transfer]
    quoted: list[tuple[str, list[Any]]] = [
        ("`max_entropy`, beside it `mean_variance` | {} and {} |", [countries[ENTROPY], countries["variance, mean"]]),
        ("| {}, an error of the probability of {} to {} |", [probe, probe["ece"], unseen["ece"]]),
        ("| `risk`, with care | {} |", [unseen]),
        (
            "the highest entropy of the answer finds wrong answers with {}, and answers about invented places with {}. "
            "Ten sampled answers and their agreement, at ten times the cost, find less ({}).",
            [countries[ENTROPY], invented[ENTROPY], sampled],
        ),
        ("where it counts | {} to {} on made-up worlds, not shown on real ones |", [min(wrong), max(wrong)]),
        (
            "tells several known answers from none where the entropy is equal: {} on made-up worlds.",
            [mean(map(auroc, unknown))],
        ),
        (
            "the closed form, does that about as well there ({} to {} by world). On the real model it is weak by "
            "itself ({}),",
            [min(by_world), max(by_world), countries["closed form, max"]],
        ),
        ("tells which growth stage an answer comes from, with {} on a synthetic world.", [mean(growth)]),
        (
            "On attributes that the fit lacked, the probe falls from {} to {}. On chemical elements, after a fit on "
            "countries, it orders answers with {}, and its probability is off by {}: the plain probability of the "
            "answer (`Σ ln p`) does better there ({}). A calibration that lacks a whole kind of questions can be worse "
            "than chance ({} in one of the made-up worlds).",
            [probe, unseen, elements[PROBE], elements[PROBE]["ece"], elements["sequence probability"], min(kinds)],
        ),
        ("Within an attribute the same probe has {}.", [probe["within"]]),
        ("right on {} % of these questions", [100 * (1 - answers["wrong"] / answers["answers"])]),
        (
            "is as good as that of parameter tokens, or better ({} against {}, and {} against {}, on two seeds).",
            [figure for pair in twins for figure in pair],
        ),
    ]
    return [Quotation("docs/how-sure.md", sentence, [auroc(one) for one in figures]) for sentence, figures in quoted]


def of_real_models() -> list[Quotation]:
    loads = list(json.loads((LOADS / "real.json").read_text())["SmolLM2-135M"]["loads"].values())

    def rates(side: str, of: str = "vLLM") -> list[float]:
        """Output tokens a second by load, relative to another side."""
        ratios = [load["ratios"] for load in loads]
        return [one[side]["output_throughput"] / one[of]["output_throughput"] for one in ratios]

    logprobs = rates("vLLM, logprobs 5")
    quoted = [
        (
            "On SmolLM2-135M this server with uncertainty makes {}, {} and {} times the output tokens per second of "
            "vLLM's own server",
            rates("ours"),
        ),
        ("vLLM with `logprobs: 5` makes {} to {}.", [min(logprobs), max(logprobs)]),
        (
            "and takes longer to start: then {}, {} and {} times what vLLM makes compiled.",
            rates("ours, compiled", "vLLM, compiled"),
        ),
        ("Uncertainty on against off: {}, {} and {} (", rates("ours", "ours, uncertainty off")),
    ]
    return [Quotation("docs/real-models.md", sentence, figures) for sentence, figures in quoted]


def auroc(figure: Any) -> float:
    """The value of a result that has an AUROC, with or without an interval, or is a number."""
    while isinstance(figure, dict):
        figure = figure["auroc" if "auroc" in figure else "value"]
    return float(figure)


def filled(page: str, sentence: str, figures: Sequence[float]) -> str:
    """The page with these figures in the sentence, which must be there exactly once."""
    parts = [r"\s+".join(map(re.escape, re.split(r"\s+", part))) for part in sentence.split("{}")]
    pattern = re.compile("".join(f"({part})(\\d+(?:\\.\\d+)?)" for part in parts[:-1]) + f"({parts[-1]})")
    (found,) = pattern.finditer(page)
    values = [f"{figure:.0f}" if figure > 10 else f"{figure:.2f}" for figure in figures]
    assert len(values) == len(parts) - 1, sentence
    texts = [text for i, value in enumerate(values) for text in (found[2 * i + 1], value)]
    return page[: found.start()] + "".join([*texts, found[found.re.groups]]) + page[found.end() :]


def figured(pages: dict[str, str], quoted: Sequence[Quotation]) -> dict[str, str]:
    """The pages, by name, with the figures of the result files."""
    for page, sentence, figures in quoted:
        pages[page] = filled(pages[page], sentence, figures)
    return pages


def read(quoted: Sequence[Quotation]) -> dict[str, str]:
    return {name: (ROOT / name).read_text() for name in dict.fromkeys(one.page for one in quoted)}


def main() -> None:
    quoted = quotations()
    for name, text in figured(read(quoted), quoted).items():
        (ROOT / name).write_text(text)


if __name__ == "__main__":
    main()
