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

from evals.aggregate import Results
from evals.plots import plots
from evals.report import report
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
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    seeds, runs, results, share = arguments.seeds, arguments.runs, arguments.results, 1.0
    if arguments.quick:
        seeds, share, results, runs = (0,), QUICK_SHARE, runs / "quick", runs / "quick"
    for seed in seeds:
        subject = Subject(seed, runs)
        if not (arguments.quick or arguments.trained):
            for kind in KINDS:
                subject.train(kind, show(f"seed {seed} {kind}"))
        scored = run(subject, share=share)
        if scored.tables:
            print(f"written: {write(seed_figures(scored), results)}", flush=True)
    found = Results.load(results)
    plots(found, results)
    (results / "REPORT.md").write_text(report(found, COMMANDS, machine()))
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
make eval ARGS="--quick"            # the committed checkpoint, an eighth of the questions: minutes
.venv/bin/python -m evals.train --seeds 3 4 --kinds twin    # only train, for instance beside another process
```"""


if __name__ == "__main__":
    main()
