"""The capacity of one replica by a simulation from measured costs, and what many users cost.

    python -m loadtest.capacity [--rounds 2]

Measured are the steps of engines without a server (`loadtest.engine_steps`), and a server without a model
(`loadtest.server_costs`), and how cores slow each other (`loadtest.crowd`). The simulation (`loadtest.capacity_model`)
puts them together. In the same rounds whole servers are asked as in `loadtest.batch`, to hold the prediction against
them; nothing of that goes into it.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from loadtest import batch, bench, crowd, machine, server_costs
from loadtest.capacity_model import Limits, Replica, Work, output_rate, sustained_rate
from loadtest.capacity_report import markdown
from loadtest.engine_steps import EngineProcess
from loadtest.processes import ServerProcesses
from loadtest.report import write
from loadtest.shapes import SHAPES
from loadtest.sides import measure
from tests.support.demo_server import DEMO

ROWS = (1, 4, 16, 64)
PROMPT, NEW, TIMED = 32, 25, 16
"""Tokens of the batches whose steps are timed, and how many of these steps count: the last ones. The engine sends some
numbers with every 16th token of a request only."""
PROMPTS = (32, 128, 448)
"""Tokens of the prompts whose prefill is timed."""
TRIES, ENOUGH_SECONDS = 5, 1.0
"""Small models are timed so often in each round, unless that takes too long."""
LIMITS = Limits(first_token=1.0, further_token=0.1)
QUESTION, ANSWERS = 128, (32, 128)
"""Tokens of the users' prompts and of their answers."""
USERS, PER_HOUR = 1_000_000, 10
"""Users, and the questions of each of them in the busiest hour."""


class Subject:
    """A model: its engine, and a whole server with its loads where the prediction is checked."""

    def __init__(self, name: str, checkpoint: Path, stack: ExitStack, logs: Path) -> None:
        print(f"starting {name}", flush=True)
        self.name, self.checkpoint = name, checkpoint
        self.engine = stack.enter_context(EngineProcess(checkpoint))
        setup = batch.setups().get(name)
        self.server = stack.enter_context(setup.running(logs / name)) if setup else None
        self.loads = batch.loads(batch.TOKENS[name]) if setup else {}

    def measure(self) -> Round:
        """The engine and the server in turns, as the machine's speed changes."""
        first = {prompt: self.typical(lambda times: times[0], 1, prompt, 2) for prompt in PROMPTS}
        decode, rates = {}, {}
        for rows in ROWS:
            decode[rows] = self.typical(lambda times: statistics.mean(times[-TIMED:]), rows, PROMPT, NEW)
            if load := self.loads.get(f"{rows} at a time"):
                rates[rows] = self.ask(load)
        return Round(decode, {prompt: max(time - decode[1], 0.0) for prompt, time in first.items()}, rates)

    def typical(self, figure: Callable[[Sequence[float]], float], rows: int, prompt: int, new: int) -> float:
        """The median of a figure of several batches' times between messages."""
        found: list[float] = []
        began = time.monotonic()
        while len(found) < TRIES and (not found or time.monotonic() < began + ENOUGH_SECONDS):
            found.append(figure(self.engine.messages(rows, prompt, new)))
        return statistics.median(found)

    def ask(self, load: bench.Load) -> float:
        assert self.server
        target = bench.Target(self.server.url, self.server.name, self.checkpoint)
        rate = measure(target, load, ServerProcesses(self.server.process.pid))["output_throughput"]
        print(f"{self.name}, {load.concurrency} at a time: {rate:.1f} tok/s", flush=True)
        return rate


@dataclass(frozen=True)
class Around:
    """The costs that are the same for all models; see Replica."""

    api: Work
    client: Work
    lag: float
    crowded: float


@dataclass(frozen=True)
class Round:
    decode: Mapping[int, float]
    """Rows -> seconds of a step."""
    prefill: Mapping[int, float]
    """Prompt tokens -> seconds that they add to a step."""
    rates: Mapping[int, float]
    """Requests at a time -> output tok/s of the whole server."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2, help="default: %(default)s, after one that warms up")
    parser.add_argument("--out", type=Path, default=machine.results(), help="directory for the results")
    arguments = parser.parse_args()
    batches = arguments.out / "batch.json"
    figures = {
        "server": str(server_costs.SETUP),
        **measured(arguments.rounds, json.loads(batches.read_text()) if batches.exists() else {}),
        "limits_seconds": asdict(LIMITS),
        "traffic": {"prompt": QUESTION, "users": USERS, "questions_per_hour": PER_HOUR},
        "command": f"python -m loadtest.capacity --rounds {arguments.rounds}",
        "machine": machine.describe(),
    }
    write(arguments.out / "capacity.json", figures, markdown(figures))
    print(markdown(figures))


def measured(rounds: int, batches: Mapping[str, Any]) -> dict[str, Any]:
    """The costs beside the model, and the figures of every model; `batches` are results of `loadtest.batch`."""
    os.environ["PYTHONPATH"] = str(Path(__file__).parents[1])  # where the server without a model finds its worker
    checkpoints = {"demo": DEMO} | {name: shape.checkpoint() for name, shape in SHAPES.items()}
    with ExitStack() as stack:
        logs = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        print("starting a server without a model", flush=True)
        modelless = stack.enter_context(server_costs.SETUP.running(logs / "none"))
        subjects = [Subject(name, checkpoint, stack, logs) for name, checkpoint in checkpoints.items()]
        costs, found, speeds = [], [], []
        for number in range(rounds + 1):
            print(f"round {number} of {rounds}", flush=True)
            speeds.append(crowd.speed())
            costs.append(server_costs.measure(modelless))
            found.append([subject.measure() for subject in subjects])
    costs, found = costs[1:], found[1:]  # the first round warms up
    works = server_costs.works(costs)
    around = Around(works["api"], works["client"], server_costs.lag(costs, works), statistics.median(speeds))
    models = {
        subject.name: describe(subject, own, around, batches.get(subject.name, {}).get("loads", {}))
        for subject, own in zip(subjects, zip(*found, strict=True), strict=True)
    }
    microseconds = {name: {k: round(1e6 * v, 1) for k, v in asdict(work).items()} for name, work in works.items()}
    return {
        "microseconds": microseconds,
        "lag_ms": round(1000 * around.lag, 2),
        "crowded": round(around.crowded, 3),
        "models": models,
    }


def describe(
    subject: Subject,
    rounds: Sequence[Round],
    around: Around,
    batches: Mapping[str, Any],
) -> dict[str, Any]:
    def replica_of(decode: Mapping[int, float], prefill: Mapping[int, float]) -> Replica:
        cores = len(os.sched_getaffinity(0))
        return Replica(decode, prefill, subject.engine.threads, **vars(around), cores=cores)

    decode, prefill = medians([found.decode for found in rounds]), medians([found.prefill for found in rounds])
    replica = replica_of(decode, prefill)
    replicas = [replica_of(found.decode, found.prefill) for found in rounds]
    return {
        "threads": replica.threads,
        "cores": replica.cores,
        "decode_ms": milliseconds(decode),
        "prefill_ms": milliseconds(prefill),
        "checks": {
            name: check(replicas, load, [found.rates[load.concurrency] for found in rounds], batches.get(name))
            for name, load in subject.loads.items()
        },
        "capacity": {answer: capacity(replica, answer) for answer in ANSWERS},
        "rounds": [asdict(found) for found in rounds],
    }


def medians(rounds: Sequence[Mapping[int, float]]) -> dict[int, float]:
    return {key: statistics.median(found[key] for found in rounds) for key in rounds[0]}


def milliseconds(seconds: Mapping[int, float]) -> dict[int, float]:
    return {key: round(1000 * value, 3) for key, value in seconds.items()}


def check(
    replicas: Sequence[Replica], load: bench.Load, rates: Sequence[float], batched: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Output tok/s as predicted and as measured in the same rounds, and as `loadtest.batch` found it another time."""
    predicted = [output_rate(one, load.prompt, load.output, load.requests, load.concurrency) for one in replicas]
    median = statistics.median(predicted)
    found = {
        "predicted": round(median, 1),
        "measured": round(statistics.median(rates), 1),
        "error": round(statistics.median(p / rate for p, rate in zip(predicted, rates, strict=True)) - 1, 3),
    }
    if batched:
        then = batched["medians"]["ours"]["output_throughput"]
        found |= {"batch": then, "error_of_batch": round(median / then - 1, 3)}
    return found


def capacity(replica: Replica, answer: int) -> dict[str, Any]:
    """One replica's rate, with clients elsewhere, and what all users take."""
    rate = sustained_rate(replace(replica, client=Work()), QUESTION, answer, LIMITS)
    replicas = math.ceil(USERS * PER_HOUR / 3600 / rate) if rate else None
    return {
        "requests_per_second": float(f"{rate:.3g}"),
        "per_core": float(f"{rate / replica.cores:.3g}"),
        "replicas": replicas,
        "cores": replicas and replicas * replica.cores,
        "users_per_core": rate and round(rate * 3600 / PER_HOUR / replica.cores),
    }


if __name__ == "__main__":
    main()
