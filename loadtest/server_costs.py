"""The processor time of a server beside its model: a server that makes tokens up is asked by the benchmark's client.

Runs with answers of several lengths, one and several at a time, separate the costs of a request, of the message that
carries the tokens of a step, and of a token. A run's own costs (the benchmark's start) are a fourth term.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

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
PROMPT = 32
LOADS = (
    bench.Load(96, PROMPT, 4, 1, bench.TEXT),
    bench.Load(8, PROMPT, 128, 1, bench.TEXT),
    bench.Load(32, PROMPT, 96, 4, bench.TEXT),
    bench.Load(256, PROMPT, 8, 16, bench.TEXT),
    bench.Load(48, PROMPT, 128, 16, bench.TEXT),
)
PROCESSES = ("transport", "api", "client")

Spent = Mapping[str, float]
"""Seconds by process; transport is what the engine's process does on other threads than the model's."""


def spend(server: Server) -> list[Spent]:
    """The processor seconds of one run of every load."""
    target, processes = bench.Target(server.url, server.name, DEMO), ServerProcesses(server.process.pid)
    return [_spend(target, load, processes) for load in LOADS]


def _spend(target: bench.Target, load: bench.Load, processes: ServerProcesses) -> Spent:
    before = {"api": processes.cpu_seconds()["api"], "transport": processes.side_thread_seconds()}
    began = time.process_time()
    bench.run(target, load, ["--disable-tqdm"])
    client = time.process_time() - began
    api, transport = processes.cpu_seconds()["api"], processes.side_thread_seconds()
    return {"api": api - before["api"], "transport": transport - before["transport"], "client": client}


def separate(rounds: Sequence[Sequence[Spent]]) -> dict[str, Work]:
    """What a request, a message and a token cost each process: least squares, none of them below 0."""
    amounts = [[load.requests, messages(load), load.requests * load.output, 1] for load in LOADS]
    works = {}
    for process in PROCESSES:
        seconds = [spent[process] for found in rounds for spent in found]
        request, step, token, _ = nnls(np.array(amounts * len(rounds)), np.array(seconds))[0]
        works[process] = Work(float(request), float(step), float(token))
    return works


def messages(load: bench.Load) -> float:
    """The steps of a run whose requests stay together."""
    return load.requests * load.output / load.concurrency
