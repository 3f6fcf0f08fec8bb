"""Servers on a GPU: ours with uncertainty off, its summary and every token's, beside a GPT-NeoX of the same size.

    python -m loadtest.gpu_speed [--seconds 150] [--out FILE]

Random weights of the released sizes in bfloat16, with CUDA graphs and eager, each behind a server of its own; all
servers of a size start at the same time. GPT-NeoX is served by vLLM's own server as it comes, which takes the model
runner V2; ours takes V1. Sizes and modes follow each other, the most telling first, until time is up. After each the
file is written anew.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from loadtest import bench, machine
from loadtest.gpu_roofline import BATCHES, ORDER, rehearsed
from loadtest.processes import ServerProcesses
from loadtest.setups import Setup
from loadtest.shapes import GPU_SHAPES, Shape
from loadtest.sides import Side, measure, rounded
from tests.support.servers import Server

ENGINE: tuple[str, ...] = (
    "--dtype",
    "bfloat16",
    "--max-num-seqs",
    str(BATCHES[-1]),
    "--kv-cache-memory-bytes",
    str(16 << 30),
)
ENGINE += ("--gpu-memory-utilization", "0.2")  # servers lie beside each other
SMALL = ("--dtype", "bfloat16", "--kv-cache-memory-bytes", str(1 << 28), "--max-num-seqs", "64")

GRAPHS = json.dumps({"cudagraph_capture_sizes": list(BATCHES)})
MODES = {"CUDA graphs": ("--compilation-config", GRAPHS), "eager": ("--enforce-eager",)}
KINDS: dict[str, Any] = {"off": False, "summary": True, "tokens": {"tokens": True}}


@dataclass(frozen=True)
class Case:
    """A size served in one mode, by us and as a GPT-NeoX."""

    shape: Shape
    mode: str
    engine: tuple[str, ...]

    def sides(self) -> list[Side]:
        flags = MODES[self.mode]
        ours = Setup(self.shape.checkpoint(torch.bfloat16), flags, engine=self.engine)
        neox = Setup(self.shape.neox(weights=False), (*flags, "--load-format", "dummy"), True, self.engine)
        return [*(Side(name, ours, {"uncertainty": kind}) for name, kind in KINDS.items()), Side("GPT-NeoX", neox)]


def load(size: int, tokens: int) -> bench.Load:
    return bench.Load(max(size, 4), 64, tokens, size, bench.TEXT)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=150, help="begin nothing after so many; default: %(default)s")
    parser.add_argument("--rehearse", action="store_true", help="a tiny model, to see that all of it runs")
    parser.add_argument("--out", type=Path, default=machine.results() / "gpu.speed.json")
    arguments = parser.parse_args()
    until = time.monotonic() + arguments.seconds
    cases = [Case(GPU_SHAPES[name], mode, ENGINE) for mode in MODES for name in ORDER]
    sizes: tuple[int, ...] = BATCHES
    tokens = 64
    if arguments.rehearse:
        cases, sizes, tokens = [Case(rehearsed(), "eager", SMALL)], (1, 4), 8
    report: dict[str, Any] = {
        "machine": machine.describe(),
        "command": f"python -m loadtest.gpu_speed --seconds {arguments.seconds:g}",
        "loads": {f"{size} at a time": str(load(size, tokens)) for size in sizes},
        "cases": {},
    }
    for case in cases:
        found: dict[str, Any] = {}
        report["cases"][f"{case.shape.name} {case.mode}"] = found
        with ExitStack() as stack:
            servers = started(case, stack)
            for size in sizes:
                for side in case.sides():
                    if time.monotonic() > until:
                        return
                    row = asked(side, servers[side.setup], load(size, tokens))
                    found[f"{size} at a time, {side.name}"] = row
                    arguments.out.parent.mkdir(parents=True, exist_ok=True)
                    arguments.out.write_text(json.dumps(report, indent=1) + "\n")
                    print(case.shape.name, case.mode, size, side.name, row["output_throughput"], "tok/s", flush=True)


def started(case: Case, stack: ExitStack) -> dict[Setup, Server]:
    """Servers that are ready and warmed up."""
    logs = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    setups = list(dict.fromkeys(side.setup for side in case.sides()))
    servers = {
        setup: stack.enter_context(setup.starting(logs / f"{number}.log")) for number, setup in enumerate(setups)
    }
    for setup, server in servers.items():
        server.wait_until_ready()
        asked(Side("warm-up", setup), server, load(8, 8))
    return servers


def asked(side: Side, server: Server, load: bench.Load) -> dict[str, float]:
    target = bench.Target(server.url, server.name, side.setup.checkpoint, side.body)
    return dict(rounded(measure(target, load, ServerProcesses(server.process.pid))))


if __name__ == "__main__":
    main()
