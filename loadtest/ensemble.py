"""The cost of an ensemble by the length of the prompt, and what the streams of others notice of ensembles.

    python -m loadtest.ensemble [demo] [150M] [--rounds N] [--out DIRECTORY]

A request is timed without an ensemble, then with one, both with a prompt that the cache does not hold. Then some
clients stream answers without pause while others ask for answers, first without an ensemble, then with one, in turns.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from loadtest import machine
from loadtest.processes import ServerProcesses
from loadtest.report import provenance, write
from loadtest.setups import MODEL, Setup
from loadtest.shapes import SHAPES
from server.calibrate.markdown import table
from tests.support.demo_server import DEMO
from tests.support.servers import Server

MEMBERS, ANSWER = 16, 32
WITHOUT, WITH = False, {"ensemble": MEMBERS}
PAIRS = 3
"""Pairs of requests, without and with an ensemble, of a length in a round."""
STREAMS, ASKERS, SECONDS = (1, 8, 16), 2, 20.0
WORDS = 1000
"""Prompts are drawn from so many token ids, which all of the models have."""


@dataclass(frozen=True)
class Subject:
    setup: Setup
    lengths: Sequence[int]
    """Tokens of the prompts."""


SUBJECTS = {
    "demo": Subject(Setup(DEMO), (50, 200, 450)),
    # The shape has 2,048 positions.
    "150M": Subject(Setup(SHAPES["150M"].checkpoint(), ("--dtype", machine.dtype())), (100, 500, 1000, 1900)),
}


def body(tokens: int, uncertainty: object) -> dict[str, Any]:
    """A completion of a new prompt of so many tokens."""
    prompt = [random.randrange(1, WORDS) for _ in range(tokens)]
    fixed = {"model": MODEL, "max_tokens": ANSWER, "ignore_eos": True, "temperature": 0}
    return {**fixed, "prompt": prompt, "uncertainty": uncertainty}


async def answer(http: aiohttp.ClientSession, asked: dict[str, Any]) -> dict[str, Any]:
    async with http.post("/v1/completions", json=asked) as response:
        found: dict[str, Any] = await response.json()
        response.raise_for_status()
        return found


@dataclass
class Phase:
    """Observations of the streams and the askers under one kind of load."""

    gaps: list[float] = field(default_factory=list)
    """Seconds between two chunks of a stream."""
    answers: int = 0
    """Answers of askers."""

    async def stream(self, http: aiohttp.ClientSession, end: float) -> None:
        asked = body(32, WITHOUT) | {"max_tokens": 2 * ANSWER, "stream": True}
        while time.monotonic() < end:
            async with http.post("/v1/completions", json=asked) as response:
                response.raise_for_status()
                last = None
                async for line in response.content:
                    if line.startswith(b"data: {"):
                        now = time.perf_counter()
                        if last is not None:
                            self.gaps.append(now - last)
                        last = now

    async def ask(self, http: aiohttp.ClientSession, end: float, uncertainty: object) -> None:
        while time.monotonic() < end:
            await answer(http, body(32, uncertainty))
            self.answers += 1

    async def run(self, url: str, streams: int, uncertainty: object) -> None:
        end = time.monotonic() + SECONDS
        async with aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(limit=0)) as http:
            clients = [self.stream(http, end) for _ in range(streams)]
            await asyncio.gather(*clients, *(self.ask(http, end, uncertainty) for _ in range(ASKERS)))

    def figures(self) -> dict[str, float]:
        cuts = statistics.quantiles(self.gaps, n=100)
        return {"chunks": len(self.gaps), "p50_itl_ms": 1000 * cuts[49], "p99_itl_ms": 1000 * cuts[98]} | {
            "answers": self.answers
        }


async def by_length(server: Server, lengths: Sequence[int], rounds: int) -> list[dict[str, float]]:
    """Measures what an ensemble adds to a request: time, and CPU time of the server, which other work disturbs less."""
    found: dict[int, list[dict[str, float]]] = {length: [] for length in lengths}
    processes = ServerProcesses(server.process.pid)
    async with aiohttp.ClientSession(server.url, timeout=aiohttp.ClientTimeout(600)) as http:
        for number in range(PAIRS * rounds + 1):
            for length, rows in found.items():
                times = []
                for uncertainty in (WITHOUT, WITH):
                    await asyncio.sleep(0.5)
                    cpu, began = sum(processes.cpu_seconds().values()), time.perf_counter()
                    response = await answer(http, body(length, uncertainty))
                    taken = time.perf_counter() - began
                    times.append((1000 * taken, 1000 * (sum(processes.cpu_seconds().values()) - cpu)))
                (without, without_cpu), (total, total_cpu) = times
                tokens = response["choices"][0]["uncertainty"]["ensemble_tokens"]
                row = {
                    "without_ms": without,
                    "ensemble_ms": total - without,
                    "ensemble_cpu_ms": total_cpu - without_cpu,
                }
                if number:  # the first warms up
                    rows.append(row | {"tokens_per_member": tokens / MEMBERS})
    return [
        {"prompt": length} | {name: statistics.median(row[name] for row in rows) for name in rows[0]}
        for length, rows in found.items()
    ]


def beside_streams(url: str, rounds: int) -> list[dict[str, float]]:
    found = []
    for streams in STREAMS:
        phases = {kind: Phase() for kind in ("without", "with")}
        for _ in range(rounds):
            for kind, uncertainty in (("without", WITHOUT), ("with", WITH)):
                asyncio.run(phases[kind].run(url, streams, uncertainty))
        figures = {kind: phase.figures() for kind, phase in phases.items()}
        ratios = {
            f"{p}_ratio": figures["with"][f"{p}_itl_ms"] / figures["without"][f"{p}_itl_ms"] for p in ("p50", "p99")
        }
        flat = {f"{kind}_{name}": value for kind, own in figures.items() for name, value in own.items()}
        found.append({"streams": streams, **flat, **ratios})
    return found


def rounded(rows: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    return [{name: float(f"{value:.4g}") for name, value in row.items()} for row in rows]


def markdown(figures: Mapping[str, Any]) -> str:
    lines = [__doc__.splitlines()[0]]
    for name, found in figures.items():
        lines += ["", f"## {name}", ""]
        for rows in (found["by_length"], found["beside_streams"]):
            lines += [table(list(rows[0]), [[f"{value:g}" for value in row.values()] for row in rows]), ""]
        lines += [
            f"Ensembles of {MEMBERS}, answers of {ANSWER} tokens. `ensemble_ms`: what the ensemble adds to a request."
        ]
        lines += [f"Below: {ASKERS} clients ask beside the streams, whose inter-token latency (ITL) is shown."]
        lines += provenance(found)
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[*SUBJECTS, []], metavar="PART", help=", ".join(SUBJECTS))
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=machine.results(), help="directory for the results")
    arguments = parser.parse_args()
    written = arguments.out / "ensemble.json"
    figures = json.loads(written.read_text()) if arguments.parts and written.exists() else {}
    for part in arguments.parts or SUBJECTS:
        subject = SUBJECTS[part]
        with tempfile.TemporaryDirectory() as directory, subject.setup.running(Path(directory) / "log") as server:
            costs = asyncio.run(by_length(server, subject.lengths, arguments.rounds))
            noticed = beside_streams(server.url, arguments.rounds)
        figures[part] = {
            "by_length": rounded(costs),
            "beside_streams": rounded(noticed),
            "server": str(subject.setup),
            "command": f"python -m loadtest.ensemble {part} --rounds {arguments.rounds}",
            "machine": machine.describe(),
        }
        write(written, figures, markdown(figures))
    print(markdown(figures))


if __name__ == "__main__":
    main()
