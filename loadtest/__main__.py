"""Latency and throughput of a server under several kinds of load.

    make loadtest        (or python -m loadtest [--quick] [--out loadtest/results])
    python -m loadtest --url URL --model NAME --tokenizer DIR

Without --url, a server of the demo checkpoint is started. Writes loadtest.json, loadtest.md and loadtest.svg.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx

from loadtest import bench, machine, plots
from loadtest.processes import ServerProcesses
from loadtest.report import cumulative, markdown, write
from loadtest.scenarios import OBJECTIVES, Scenario, scenarios
from tests.support.demo_server import DEMO
from tests.support.servers import started

QUICK = 1 / 8
WARM_UP = ("--num-warmups", "16")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", help="address of a server that runs; without it one of the demo is started")
    parser.add_argument("--model", default="tokenformer-demo", help="its model (default: %(default)s)")
    parser.add_argument("--tokenizer", type=Path, default=DEMO, help="its tokenizer (default: the demo's)")
    parser.add_argument("--out", type=Path, default=machine.results(), help="directory for the results")
    parser.add_argument("--quick", action="store_true", help="an eighth of the requests")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        url = arguments.url
        if url is None:
            log = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "log"
            print("starting a server of the demo", flush=True)
            url = stack.enter_context(started(DEMO, log, ["--served-model-name", arguments.model])).url
        target = bench.Target(url, arguments.model, arguments.tokenizer)
        measured = measure(target, scenarios(QUICK if arguments.quick else 1.0))
    figures = {
        "objectives_ms": OBJECTIVES,
        "scenarios": [found for found, _ in measured],
        "command": shlex.join(["python", "-m", "loadtest", *sys.argv[1:]]),
        "machine": machine.describe(),
    }
    write(arguments.out / "loadtest.json", figures, markdown(figures))
    curves = plots.curves({found["name"]: cumulative(result) for found, result in measured})
    plots.save(curves, arguments.out / "loadtest.svg")
    print(markdown(figures))


def measure(target: bench.Target, wanted: Sequence[Scenario]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Each scenario's figures, and the benchmark's record of every request."""
    cards = httpx.get(f"{target.url}/v1/models", timeout=30).raise_for_status().json()["data"]
    models = [card["id"] for card in cards if card["id"].split(":")[0] == target.model]
    processes = ServerProcesses.listening(target.url)
    measured = []
    for scenario in wanted:
        if scenario.stages and len(models) < 2:
            print(f"== {scenario.name}: left out, the server has one stage only", flush=True)
            continue
        print(f"== {scenario.name}: {scenario.what}", flush=True)
        if processes:
            processes.forget_peaks()
        result = bench.run(target, scenario.load, [*scenario.options(models), *WARM_UP])
        figures = {
            "name": scenario.name,
            "what": scenario.what,
            **bench.summary(result),
            "good_requests_per_second": round(result["request_goodput"], 2),
            "peak_mib": processes.peak_mib() if processes else None,
            "bench": f"{scenario.load} {shlex.join([*scenario.options(models), *WARM_UP])}",
        }
        measured.append((figures, result))
    return measured


if __name__ == "__main__":
    main()
