"""The speed of a core while all others work: they share caches and heat, or two of them are halves of one."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

LINE = {"choices": [{"index": i, "delta": {"content": f"token {i}"}, "entropy": i / 7} for i in range(20)]}
REPEATS = 500
"""Repetitions of the timed work, which take some tens of milliseconds."""
ENDLESS = """import json, os, sys
line, parent = json.loads(sys.argv[1]), os.getppid()
while os.getppid() == parent:
    json.loads(json.dumps(line))
"""


def speed(tries: int = 9) -> float:
    """The median of the ratios of the time alone to the time in the crowd, in turns."""
    with crowd() as processes:
        ratios = []
        for _ in range(tries):
            alone = seconds()
            send(processes, signal.SIGCONT)
            crowded = seconds()
            send(processes, signal.SIGSTOP)
            ratios.append(alone / crowded)
    return statistics.median(ratios)


@contextmanager
def crowd() -> Iterator[list[subprocess.Popen[bytes]]]:
    """A process for every other core, each of which works when it is let."""
    with ExitStack() as stack:
        processes = []
        for _ in range(len(os.sched_getaffinity(0)) - 1):
            process = stack.enter_context(subprocess.Popen([sys.executable, "-c", ENDLESS, json.dumps(LINE)]))
            stack.callback(process.kill)
            processes.append(process)
        time.sleep(0.5)  # their imports
        send(processes, signal.SIGSTOP)
        yield processes


def send(processes: list[subprocess.Popen[bytes]], number: int) -> None:
    for process in processes:
        process.send_signal(number)


def seconds() -> float:
    """The time of a piece of work that is like the API's."""
    began = time.perf_counter()
    for _ in range(REPEATS):
        json.loads(json.dumps(LINE))
    return time.perf_counter() - began
