"""The processor time around an engine: a server that makes tokens up is asked by the benchmark's client.

The API process and the client spend it on requests, on messages that carry the tokens of a step, and on tokens. Runs
with answers of two lengths, one and several at a time, separate them. The benchmark's start is a fourth term.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from loadtest import bench
from loadtest.api_layer import FLAGS
from loadtest.capacity_model import Work
from loadtest.processes import ServerProcesses
from loadtest.setups import Setup
from tests.support.demo_server import DEMO
from tests.support.servers import Server

SETUP = Setup(DEMO, FLAGS)
LOADS = tuple(
    bench.Load(requests, 32, output, at_a_time, bench.TEXT)
    for requests, output, at_a_time in ((16, 4, 1), (160, 4, 1), (12, 64, 1), (48, 64, 4), (256, 4, 16), (96, 64, 16))
)
ALONE = LOADS[1]
"""Requests that wait for no other one."""


@dataclass(frozen=True)
class Run:
    """Seconds of one load."""

    api: float
    """Processor time, as the client's."""
    client: float
    first_token: float
    """The median time to it."""


def measure(server: Server) -> list[Run]:
    """One run of every load."""
    target, processes = bench.Target(server.url, server.name, DEMO), ServerProcesses(server.process.pid)
    return [_run(target, load, processes) for load in LOADS]


def _run(target: bench.Target, load: bench.Load, processes: ServerProcesses) -> Run:
    before, began = processes.cpu_seconds()["api"], time.process_time()
    result = bench.run(target, load, ["--disable-tqdm"])
    client = time.process_time() - began
    return Run(processes.cpu_seconds()["api"] - before, client, result["p50_ttft_ms"] / 1000)


def works(rounds: Sequence[Sequence[Run]]) -> dict[str, Work]:
    """The costs of a request, a message and a token to each process: least squares, none of them below 0."""
    amounts = [[load.requests, messages(load), load.requests * load.output, 1] for load in LOADS] * len(rounds)
    spent = {name: [getattr(run, name) for found in rounds for run in found] for name in ("api", "client")}
    separated = {name: nnls(np.array(amounts), np.array(seconds))[0] for name, seconds in spent.items()}
    return {name: Work(*map(float, terms[:3])) for name, terms in separated.items()}


def lag(rounds: Sequence[Sequence[Run]], works: Mapping[str, Work]) -> float:
    """A lone request's time to the first token in which no process works on it. The first step takes none."""
    first_token = statistics.median(found[LOADS.index(ALONE)].first_token for found in rounds)
    return max(first_token - sum(work.request + work.of_step(1) for work in works.values()), 0.0)


def messages(load: bench.Load) -> float:
    """The steps of a run whose requests stay together."""
    return load.requests * load.output / load.concurrency
