"""The time until a server of the demo is ready, from the start of the process: ours, and vLLM's own.

    python -m loadtest.ready [--rounds 5]

Ours starts as by `make serve`, and is ready when /readyz says so for the first time; vLLM's has no such route and is
taken at its /health. It takes nearly all of the machine's memory unless it is told how much, so it gets the settings
of the other comparisons. One server runs at a time, the sides in turns. The first round finds no cache of vLLM's, which
keeps compiled code and facts about models; the others find the first round's cache.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loadtest import machine, plots
from loadtest.report import provenance, write
from loadtest.setups import Setup
from loadtest.sides import Side, turned
from server.calibrate.markdown import table
from tests.support.demo_server import DEMO

SIDES = (
    Side("ours", Setup(DEMO, engine=())),
    Side("vLLM, eager", Setup(DEMO, ("--enforce-eager",), stock=True)),
    Side("vLLM, compiled", Setup(DEMO, stock=True)),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s, after one without caches")
    parser.add_argument("--out", type=Path, default=machine.results(), help="directory for the results")
    arguments = parser.parse_args()
    figures = {
        "rounds": arguments.rounds,
        "sides": {side.name: {"server": str(side.setup), "path": path(side)} for side in SIDES},
        "seconds": {name: condense(found) for name, found in compare(arguments.rounds).items()},
        "command": f"python -m loadtest.ready --rounds {arguments.rounds}",
        "machine": machine.describe(),
    }
    written = arguments.out / "ready.json"
    write(written, figures, markdown(figures))
    plots.draw("ready", written)
    print(markdown(figures))


def compare(rounds: int) -> dict[str, list[float]]:
    """The seconds of every round, by side; the side without caches comes first."""
    found: dict[str, list[float]] = {side.name: [] for side in SIDES}
    with tempfile.TemporaryDirectory() as directory:
        os.environ["XDG_CACHE_HOME"] = directory
        for number in range(rounds + 1):
            for side in turned(SIDES, number):
                taken = seconds(side, Path(directory) / "log")
                print(f"round {number} of {rounds}, {side.name}: {taken:.1f} s", flush=True)
                found[side.name].append(taken)
    return found


def seconds(side: Side, log: Path) -> float:
    began = time.perf_counter()
    with side.setup.starting(log) as server:
        server.wait_until_ready(path(side))
        return time.perf_counter() - began


def path(side: Side) -> str:
    return "/health" if side.setup.stock else "/readyz"


def condense(found: Sequence[float]) -> dict[str, Any]:
    first, *rounds = (round(taken, 1) for taken in found)
    return {"first": first, "median": round(statistics.median(rounds), 1), "all_rounds": rounds}


def markdown(figures: Mapping[str, Any]) -> str:
    rows = (
        [name, found["median"], ", ".join(map(str, found["all_rounds"])), found["first"]]
        for name, found in figures["seconds"].items()
    )
    columns = ("side", "median s", "rounds", "without caches")
    lines = [__doc__.splitlines()[0], "", table(columns, rows), ""]
    lines += [f"Medians of {figures['rounds']} rounds, after one that found no cache of vLLM's.", ""]
    lines += [f"- {name}: `{side['server']}`, until `{side['path']}`" for name, side in figures["sides"].items()]
    return "\n".join([*lines, *provenance(figures)]) + "\n"


if __name__ == "__main__":
    main()
