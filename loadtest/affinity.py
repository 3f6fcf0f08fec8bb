"""The second turn of a conversation at the replica that answered the first, and at another one.

    python -m loadtest.affinity [--rounds 5]

Two servers of the 150M shape, each with a prefix cache of its own. Measured are the time to the first token and, by
vLLM's counters, the prompt tokens that the replica computed, in conversations of several lengths.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from loadtest import batch, machine
from loadtest.prompts import prompts
from loadtest.report import provenance, write
from server.calibrate.markdown import table
from tests.support.servers import Server

LENGTHS = (128, 512, 1024)
"""Tokens of the first question."""
ANSWER, NEXT = 32, 32
"""Tokens of every answer, and of the second question."""
COUNTERS = ("vllm:prefix_cache_queries", "vllm:prefix_cache_hits")
"""vLLM's counters of prompt tokens: all of them, and those that were in the cache."""
REPLICAS = ("the same", "another")


@dataclass(frozen=True)
class Turn:
    ms: float
    """Milliseconds to the first token."""
    prompt: int
    computed: int
    """Prompt tokens that were not in the cache."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s, after one that warms up")
    parser.add_argument("--out", type=Path, default=machine.results(), help="directory for the results")
    arguments = parser.parse_args()
    setup = batch.setups()["150M"]
    texts = iter(prompts(setup.checkpoint, (arguments.rounds + 1) * len(LENGTHS), max(LENGTHS)))
    with ExitStack() as stack:
        logs = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = [stack.enter_context(setup.running(logs / name.replace(" ", "-"))) for name in REPLICAS]
        rounds = [
            {length: second_turn(servers, next(texts), length) for length in LENGTHS}
            for _ in range(arguments.rounds + 1)  # the first warms up
        ]
    figures = {
        "server": str(setup),
        "turns": {length: condense([found[length] for found in rounds[1:]]) for length in LENGTHS},
        "command": f"python -m loadtest.affinity --rounds {arguments.rounds}",
        "machine": machine.describe(),
    }
    write(arguments.out / "affinity.json", figures, markdown(figures))
    print(markdown(figures))


def second_turn(servers: Sequence[Server], text: str, length: int) -> dict[str, Turn]:
    """A conversation of which the first server answers the first question, and each of them the second."""
    question, further = text.split()[:length], text.split()[:NEXT]
    first, *_ = servers
    answer, _ = ask(first, " ".join(question))
    conversation = " ".join([*question, *answer.split(), *further])
    turns = {}
    for name, server in zip(REPLICAS, servers, strict=True):
        before = counted(server)
        _, seconds = ask(server, conversation)
        asked, hits = (after - then for after, then in zip(counted(server), before, strict=True))
        turns[name] = Turn(1000 * seconds, asked, asked - hits)
    return turns


def ask(server: Server, prompt: str) -> tuple[str, float]:
    """The answer, and the seconds to its first token."""
    body = {"model": server.name, "prompt": prompt, "max_tokens": ANSWER, "ignore_eos": True, "temperature": 0}
    began, first, text = time.perf_counter(), 0.0, ""
    with httpx.stream("POST", f"{server.url}/v1/completions", json=body | {"stream": True}, timeout=300) as answer:
        answer.raise_for_status()
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                first = first or time.perf_counter() - began
                text += json.loads(line.removeprefix("data: "))["choices"][0]["text"]
    return text, first


def counted(server: Server) -> list[int]:
    families = text_string_to_metric_families(httpx.get(f"{server.url}/metrics", timeout=30).text)
    sums = {family.name: sum(s.value for s in family.samples if s.name.endswith("_total")) for family in families}
    return [int(sums[name]) for name in COUNTERS]


def condense(rounds: Sequence[Mapping[str, Turn]]) -> dict[str, Any]:
    """Medians by replica, and every round."""
    return {
        name: {
            "ms": round(statistics.median(found[name].ms for found in rounds), 1),
            "prompt": rounds[0][name].prompt,
            "computed": statistics.median_low(found[name].computed for found in rounds),
            "rounds": [asdict(found[name]) for found in rounds],
        }
        for name in REPLICAS
    }


def markdown(figures: Mapping[str, Any]) -> str:
    lines = [__doc__.splitlines()[0], "", turns(figures), ""]
    lines += [f"Medians of {len(next(iter(figures['turns'].values()))[REPLICAS[0]]['rounds'])} rounds.", ""]
    lines += [f"Two of `{figures['server']}`.", *provenance(figures)]
    return "\n".join(lines) + "\n"


def turns(figures: Mapping[str, Any]) -> str:
    head = ["prompt of the second turn", *(f"{name}: {what}" for name in REPLICAS for what in ("computed", "TTFT ms"))]
    rows = [
        [found[REPLICAS[0]]["prompt"], *(found[name][what] for name in REPLICAS for what in ("computed", "ms"))]
        for found in figures["turns"].values()
    ]
    return table(head, rows)


if __name__ == "__main__":
    main()
