"""The whole evaluation: train what is missing, score what is not scored, and write the report.

`python -m evals` takes some hours on two CPU cores, nearly all of it training; an interrupted run resumes.
`--quick` asks an eighth of the questions about the committed checkpoint alone, in a few minutes, and writes to
evals/runs/quick.
"""

from __future__ import annotations

import argparse
import os
import platform
from importlib.metadata import version
from pathlib import Path

import torch

from evals.report.aggregate import Results
from evals.report.at_hand import AtHand
from evals.report.page import report, tables
from evals.report.plots import plots
from evals.results import RESULTS, seed_figures, write
from evals.run import run
from evals.train import KINDS, RUNS, SEEDS, Subject, show

QUICK_SHARE = 0.125
PACKAGES = ("torch", "scikit-learn", "scipy", "numpy", "transformers")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m evals", description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", choices=SEEDS, default=SEEDS)
    parser.add_argument("--runs", type=Path, default=RUNS, help="where models and scores are kept")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where figures and the report go")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; two processes side by side gain more")
    parser.add_argument(
        "--quick", action="store_true", help="the committed checkpoint alone, few questions, no training"
    )
    parser.add_argument("--trained", action="store_true", help="train nothing: only what is there already")
    parser.add_argument("--report", action="store_true", help="ask no model: only the report, from the figures' files")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    seeds, runs, results, share = arguments.seeds, arguments.runs, arguments.results, 1.0
    if arguments.quick:
        seeds, share, results, runs = (0,), QUICK_SHARE, runs / "quick", runs / "quick"
    for seed in () if arguments.report else seeds:
        subject = Subject(seed, runs)
        if not (arguments.quick or arguments.trained):
            for kind in KINDS:
                subject.train(kind, show(f"seed {seed} {kind}"))
        scored = run(subject, share=share)
        if scored.tables:
            print(f"written: {write(seed_figures(scored), results)}", flush=True)
    found = Results.load(results)
    plots(found, results)
    at_hand = AtHand.load(results)
    (results / "REPORT.md").write_text(report(found, at_hand, COMMANDS, machine()))
    (results / "TABLES.md").write_text(tables(found, at_hand))
    print(f"written: {results / 'REPORT.md'}")


def machine() -> str:
    """The machine on which the figures were computed, without names."""
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return f"Machine: {os.cpu_count()} CPU cores, {platform.machine()}; Python {platform.python_version()}, {packages}."


COMMANDS = """\
```sh
make eval                           # train what is missing (hours), score, report
make eval ARGS="--seeds 0 1"        # some seeds only
make eval ARGS="--trained"          # train nothing
make eval ARGS="--report"           # ask no model: the report anew, from evals/results/*.json
make eval ARGS="--quick"            # the committed checkpoint, an eighth of the questions: minutes
.venv/bin/python -m evals.transfer       # transfer, closed form and published scores of the models at hand: minutes
.venv/bin/python -m evals.closed_form    # the closed form's settings, on the models at hand
.venv/bin/python -m evals.train --seeds 3 4 --kinds twin    # only train, for instance beside another process
```"""


if __name__ == "__main__":
    main()
