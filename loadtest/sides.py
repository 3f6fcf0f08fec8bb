"""Comparisons: the same load to several sides in turns, so that disturbances of the machine meet all of them."""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loadtest import bench, machine, plots
from loadtest.processes import ServerProcesses
from loadtest.report import provenance, write
from loadtest.setups import Setup
from server.calibrate.markdown import table

METRICS = {
    "output_throughput": "output tok/s",
    "p50_ttft_ms": "TTFT p50 ms",
    "p99_ttft_ms": "TTFT p99 ms",
    "p50_tpot_ms": "TPOT p50 ms",
    "p50_itl_ms": "ITL p50 ms",
    "p99_itl_ms": "ITL p99 ms",
    "p50_e2el_ms": "E2EL p50 ms",
}
"""The benchmark's figures that are kept, by its own names."""
CPU = {"api": "API CPU ms/token", "engine": "engine CPU ms/token"}

SETTLE_SECONDS = 2.0
"""Pause before a run: vLLM's worker polls for a second after its last step, on a core that the next server needs."""

Loads = Mapping[str, bench.Load]
Row = Mapping[str, float]
"""The metrics of one run."""


@dataclass(frozen=True)
class Side:
    """One side of a comparison: a server and the body of its requests. Sides with equal setups share a server."""

    name: str
    setup: Setup
    body: Mapping[str, Any] = field(default_factory=dict)


def main(description: str, name: str, comparisons: Mapping[str, tuple[Sequence[Side], Loads]], rounds: int) -> None:
    """The command line of a comparison: measures, and writes NAME.json, NAME.md and NAME.svg."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("parts", nargs="*", choices=[*comparisons, []], metavar="PART", help=", ".join(comparisons))
    parser.add_argument("--rounds", type=int, default=rounds, help="default: %(default)s, after one that warms up")
    parser.add_argument("--out", type=Path, default=machine.results(), help="directory for the results")
    arguments = parser.parse_args()
    written = arguments.out / f"{name}.json"
    figures = json.loads(written.read_text()) if arguments.parts and written.exists() else {}
    for part in arguments.parts or comparisons:
        figures[part] = {
            **compare(*comparisons[part], arguments.rounds),
            "command": f"python -m loadtest.{name} {shlex.quote(part)} --rounds {arguments.rounds}",
            "machine": machine.describe(),
        }
        write(written, figures, markdown(description, figures))
        plots.draw(name, written)
    print(markdown(description, figures))


def compare(sides: Sequence[Side], loads: Loads, rounds: int) -> dict[str, Any]:
    """Each load's medians by side, and the medians of the ratios to the first side in the same round.

    All servers run throughout: an idle one takes no CPU time.
    """
    rows: dict[str, dict[str, list[Row]]] = {name: {side.name: [] for side in sides} for name in loads}
    with ExitStack() as stack:
        logs = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = {}
        for setup in dict.fromkeys(side.setup for side in sides):
            print(f"starting {setup}", flush=True)
            servers[setup] = stack.enter_context(setup.running(logs / f"{len(servers)}.log"))
        for number in range(rounds + 1):
            for name, load in loads.items():
                for side in turned(sides, number):
                    server = servers[side.setup]
                    target = bench.Target(server.url, server.name, side.setup.checkpoint, side.body)
                    row = measure(target, load, ServerProcesses(server.process.pid))
                    rate = f"{row['output_throughput']:.1f} tok/s"
                    print(f"round {number} of {rounds}, {name}, {side.name}: {rate}", flush=True)
                    if number:  # the first warms up
                        rows[name][side.name].append(row)
    return {
        "rounds": rounds,
        "sides": {side.name: {"server": str(side.setup), "body": dict(side.body)} for side in sides},
        "loads": {name: {"bench": str(loads[name])} | condense(found) for name, found in rows.items()},
    }


def turned(sides: Sequence[Side], number: int) -> list[Side]:
    """Every side comes first in turn."""
    first = number % len(sides)
    return [*sides[first:], *sides[:first]]


def measure(target: bench.Target, load: bench.Load, processes: ServerProcesses) -> Row:
    """One run."""
    time.sleep(SETTLE_SECONDS)
    before = processes.cpu_seconds()
    result = bench.run(target, load, ["--disable-tqdm"])
    spent = {role: seconds - before[role] for role, seconds in processes.cpu_seconds().items()}
    per_token = {f"{role}_cpu_ms": 1000 * spent[role] / result["total_output_tokens"] for role in CPU}
    return {**{name: result[name] for name in METRICS}, **per_token}


def condense(rows: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    """Medians, ratios and all rounds of what was measured, by side."""
    first = next(iter(rows))
    ratios = {
        name: [{key: row[key] / base[key] for key in row} for row, base in zip(found, rows[first], strict=True)]
        for name, found in rows.items()
    }
    return {
        "medians": {name: medians(found) for name, found in rows.items()},
        "ratios": {name: medians(found) for name, found in ratios.items()},
        "all_rounds": {name: [rounded(row) for row in found] for name, found in rows.items()},
    }


def medians(rows: Sequence[Row]) -> Row:
    return rounded({name: statistics.median(row[name] for row in rows) for name in rows[0]})


def rounded(row: Row) -> Row:
    return {name: float(f"{value:.4g}") for name, value in row.items()}


def markdown(title: str, figures: Mapping[str, Any]) -> str:
    """A table for every part: medians, and in brackets the ratio to the first side."""
    lines = [title]
    columns = {**METRICS, **{f"{role}_cpu_ms": label for role, label in CPU.items()}}
    for part, found in figures.items():
        lines += ["", f"## {part}", ""]
        rows = (
            [load, side, *(f"{row[key]:g} ({measured['ratios'][side][key]:.3f})" for key in columns)]
            for load, measured in found["loads"].items()
            for side, row in measured["medians"].items()
        )
        lines.append(table(["load", "side", *columns.values()], rows))
        lines += ["", f"Medians of {found['rounds']} rounds (median ratios to the first side).", ""]
        lines += [f"- {name}: `{side['server']}`{sent(side['body'])}" for name, side in found["sides"].items()]
        lines += [f"- {name}: `{load['bench']}`" for name, load in found["loads"].items()]
        lines += provenance(found)
    return "\n".join(lines) + "\n"


def sent(body: Mapping[str, Any]) -> str:
    return f" with `{json.dumps(body)}`" if body else ""
