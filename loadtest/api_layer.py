"""The cost of the API layer per request and per token, ours and vLLM's own, without a model that would hide it.

    python -m loadtest.api_layer [--rounds 7]

Both are whole servers with vLLM's scheduler and their usual processes, but for a worker that makes up tokens
(`loadtest.no_model`). The measure is the CPU time of the API process: parsing, rendering, tokenising, the detokenizer,
logprobs and statistics, building the answer, HTTP. Answers of two lengths separate the cost of a token from that of a
request.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from loadtest import machine, plots
from loadtest.processes import ServerProcesses
from loadtest.report import provenance, write
from loadtest.setups import Setup
from loadtest.sides import Side, turned
from server.calibrate.markdown import table
from tests.support.demo_server import DEMO

FLAGS = ("--dtype", "float32", "--enforce-eager", "--worker-cls", "loadtest.no_model.NoModel")
STOCK, OURS = Setup(DEMO, FLAGS, stock=True), Setup(DEMO, FLAGS)
CONCURRENCY = 16
LENGTHS = {8: 160, 264: 32}
"""Tokens of an answer -> requests in one run."""


SIDES = (
    Side("vLLM", STOCK),
    Side("ours, uncertainty off", OURS, {"uncertainty": False}),
    Side("ours", OURS),
    Side("vLLM, logprobs", STOCK, {"logprobs": True}),
    Side("ours, tokens", OURS, {"uncertainty": {"tokens": True}}),
)
BASES = {"ours, tokens": "vLLM, logprobs"}
"""The side that a side is compared with, if not the first one: its answers show logprobs as well."""


@dataclass(frozen=True)
class Cost:
    """Microseconds of CPU time."""

    request: float
    token: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="default: %(default)s, after one that warms up")
    parser.add_argument("--out", type=Path, default=machine.results(), help="directory for the results")
    arguments = parser.parse_args()
    figures = {
        "rounds": arguments.rounds,
        "concurrency": CONCURRENCY,
        "lengths": list(LENGTHS),
        "sides": {side.name: {"server": str(side.setup), "body": dict(side.body)} for side in SIDES},
        "microseconds": compare(arguments.rounds),
        "command": f"python -m loadtest.api_layer --rounds {arguments.rounds}",
        "machine": machine.describe(),
    }
    text = markdown(figures)
    written = arguments.out / "api_layer.json"
    write(written, figures, text)
    plots.draw("api_layer", written)
    print(text)


def compare(rounds: int) -> dict[str, Any]:
    """Plain and streamed: every side's medians, and its ratios to its base in the same round."""
    os.environ["PYTHONPATH"] = str(Path(__file__).parents[1])  # where the servers find the worker
    with ExitStack() as stack:
        logs = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        urls = {}
        processes = {}
        for setup in (STOCK, OURS):
            server = stack.enter_context(setup.running(logs / f"{setup.stock}.log"))
            urls[setup], processes[setup] = server.url, ServerProcesses(server.process.pid)
        found: dict[str, dict[str, list[Cost]]] = {
            kind: {side.name: [] for side in SIDES} for kind in ("plain", "stream")
        }
        for number in range(rounds + 1):
            for kind, costs in found.items():
                for side in turned(SIDES, number):
                    cost = measure(urls[side.setup], processes[side.setup], side.body, stream=kind == "stream")
                    print(f"round {number} of {rounds}, {kind}, {side.name}: {cost}", flush=True)
                    if number:  # the first warms up
                        costs[side.name].append(cost)
    return {kind: {side: condense(side, costs) for side in costs} for kind, costs in found.items()}


def measure(url: str, processes: ServerProcesses, body: Mapping[str, Any], *, stream: bool) -> Cost:
    """The cost of a request and of a token, from answers of two lengths. Streams of a worker this fast have several
    tokens in a chunk, on either side: the cost is per token, not per chunk."""
    spent = []
    for length, requests in LENGTHS.items():
        before = processes.cpu_seconds()["api"]
        asyncio.run(ask(url, {**request(length), "stream": stream, **body}, requests))
        spent.append(1e6 * (processes.cpu_seconds()["api"] - before) / requests)
    short, long = LENGTHS
    token = (spent[1] - spent[0]) / (long - short)
    return Cost(spent[0] - short * token, token)


def request(tokens: int) -> dict[str, Any]:
    question = {"role": "user", "content": "What is the capital of Selkovia?"}
    return {"model": "measured", "messages": [question], "max_tokens": tokens, "ignore_eos": True, "temperature": 0}


async def ask(url: str, body: Mapping[str, Any], requests: int) -> None:
    """Request so many answers, `CONCURRENCY` at a time; raises for a failed one."""
    waiting = iter(range(requests))
    async with aiohttp.ClientSession(url, timeout=aiohttp.ClientTimeout(120)) as session:

        async def client() -> None:
            for _ in waiting:
                async with session.post("/v1/chat/completions", json=body) as response:
                    answer = await response.read()
                    if response.status != 200 or b'"finish_reason":"length"' not in answer:
                        raise RuntimeError(f"{response.status}: {answer[-500:].decode()}")

        await asyncio.gather(*(client() for _ in range(CONCURRENCY)))


def condense(side: str, costs: Mapping[str, Sequence[Cost]]) -> dict[str, Any]:
    base = BASES.get(side, SIDES[0].name)
    return {"base": base} | {
        name: {
            "median": round(statistics.median(getattr(cost, name) for cost in costs[side]), 1),
            "ratio": round(
                statistics.median(
                    getattr(cost, name) / getattr(other, name)
                    for cost, other in zip(costs[side], costs[base], strict=True)
                ),
                2,
            ),
            "all_rounds": [round(getattr(cost, name), 1) for cost in costs[side]],
        }
        for name in ("request", "token")
    }


def markdown(figures: Mapping[str, Any]) -> str:
    rows = (
        [
            side,
            kind,
            *(f"{found[name]['median']} ({found[name]['ratio']})" for name in ("request", "token")),
            found["base"],
        ]
        for kind, sides in figures["microseconds"].items()
        for side, found in sides.items()
    )
    columns = ("side", "answer", "us per request", "us per token", "ratio to")
    lines = [__doc__.splitlines()[0], "", table(columns, rows), ""]
    lines += [f"Medians of {figures['rounds']} rounds of the API process's processor time (median ratios).", ""]
    lines += [
        f"- {name}: `{side['server']}` with `{json.dumps(side['body'])}`" for name, side in figures["sides"].items()
    ]
    return "\n".join([*lines, *provenance(figures)]) + "\n"


if __name__ == "__main__":
    main()
