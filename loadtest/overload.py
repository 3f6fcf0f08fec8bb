"""Latency of accepted requests and of probes while ten times as many clients as the server accepts are asking.

    python -m loadtest.overload [--out FILE]

A server of the demo checkpoint, first with as many clients as it has room for, then with ten times as many, in turns.
Every client asks again as soon as it has an answer, or when `Retry-After` allows; each phase lasts some seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from loadtest import machine
from loadtest.soak import DEMO, milliseconds
from tests.support.servers import serving

SEQUENCES, TAKEN = 8, 16
FACTORS = (1, 10)
ROUNDS, SECONDS = 3, 15.0
PROBES = ("/livez", "/readyz", "/metrics")
BODY = {"model": "overload", "prompt": "Where does", "max_tokens": 64, "ignore_eos": True, "temperature": 0}


class Phase:
    """The answers to one number of clients."""

    def __init__(self) -> None:
        self.seconds: dict[int, list[float]] = {}
        """The time of every answer, by status."""
        self.probes: dict[str, list[float]] = {path: [] for path in PROBES}
        self.probe_statuses: Counter[int] = Counter()

    async def client(self, http: aiohttp.ClientSession, end: float) -> None:
        while time.monotonic() < end:
            began = time.perf_counter()
            async with http.post("/v1/completions", json=BODY) as answer:
                await answer.read()
                self.seconds.setdefault(answer.status, []).append(time.perf_counter() - began)
                pause = float(answer.headers.get("retry-after", 0))
            await asyncio.sleep(pause)

    async def probe(self, http: aiohttp.ClientSession, end: float) -> None:
        while time.monotonic() < end:
            for path, seconds in self.probes.items():
                began = time.perf_counter()
                async with http.get(path) as answer:
                    await answer.read()
                    self.probe_statuses[answer.status] += 1
                seconds.append(time.perf_counter() - began)
            await asyncio.sleep(0.2)


async def run(phase: Phase, url: str, clients: int) -> None:
    end = time.monotonic() + SECONDS
    connector = aiohttp.TCPConnector(limit=0)  # httpx would take more of the two cores than the server
    async with aiohttp.ClientSession(url, connector=connector) as http:
        await asyncio.gather(phase.probe(http, end), *(phase.client(http, end) for _ in range(clients)))


def quantiles(seconds: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(seconds, n=100)
    return {"count": len(seconds)} | {f"p{i}_ms": milliseconds(cuts[i - 1]) for i in (50, 95, 99)}


def describe(phase: Phase) -> dict[str, Any]:
    return {
        "answers": {str(status): quantiles(found) for status, found in sorted(phase.seconds.items())},
        "probes": {path: quantiles(found) for path, found in phase.probes.items()},
        "probe_statuses": dict(phase.probe_statuses),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=machine.results() / "overload.json", help="default: %(default)s")
    arguments = parser.parse_args()
    phases = {factor: Phase() for factor in FACTORS}
    memory = []
    with tempfile.TemporaryDirectory() as directory:
        flags = ["--served-model-name", "overload", "--max-num-seqs", SEQUENCES, "--max-num-queued-reqs", TAKEN]
        with serving(DEMO, Path(directory) / "log", flags, "overload") as server:
            server.wait_until_ready()
            asyncio.run(run(Phase(), server.url, TAKEN))  # warms up
            for _ in range(ROUNDS):
                for factor, phase in phases.items():
                    asyncio.run(run(phase, server.url, factor * TAKEN))
                memory.append(round(psutil.Process(server.process.pid).memory_info().rss / 2**20, 1))
    found = {
        "clients_at_1x": TAKEN,
        "sequences_at_once": SEQUENCES,
        "tokens": BODY["max_tokens"],
        "phases": {f"{factor}x": describe(phase) for factor, phase in phases.items()},
        "api_mib_after_each_round": memory,
        "command": "python -m loadtest.overload",
        "machine": machine.describe(),
    }
    text = json.dumps(found, indent=2)
    print(text)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
