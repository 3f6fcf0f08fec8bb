"""What asking for uncertainty adds to one answer's latency, from a server that runs.

    make serve &
    python -m loadtest.uncertainty http://127.0.0.1:8000 [--out loadtest/results/uncertainty.json]

One request at a time, the kinds in turns; the ratio of the medians is the result. Every request has a cache salt of its
own, so that no kind finds more of its prompt in the KV cache than another.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import uuid
from pathlib import Path
from typing import Any

import httpx

from loadtest import machine

QUESTION = "Where does Darian Gorsek live?"
KINDS: dict[str, Any] = {
    "off": False,
    "summary": True,
    "tokens": {"tokens": True},
    "spans": {"spans": True},
    "internals": {"internals": True},
    "ensemble of 8": {"ensemble": 8},
    "ensemble of 16": {"ensemble": 16},
    "ensemble of 64": {"ensemble": 64},
}
BASE = "summary"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url", help="address of a server")
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    with httpx.Client(base_url=arguments.url, timeout=60) as client:
        for kind in KINDS.values():
            ask(client, kind)
        rounds = [{name: ask(client, kind) for name, kind in KINDS.items()} for _ in range(arguments.rounds)]
    medians = {name: statistics.median(made[name][0] for made in rounds) for name in KINDS}
    results = {
        "question": QUESTION,
        "answer_tokens": rounds[0]["off"][1],
        "rounds": arguments.rounds,
        "milliseconds": {name: round(1000 * value, 1) for name, value in medians.items()},
        f"of {BASE}": {name: round(value / medians[BASE], 2) for name, value in medians.items()},
        "machine": machine.describe(),
    }
    text = json.dumps(results, indent=2)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")


def ask(client: httpx.Client, uncertainty: Any) -> tuple[float, int]:
    """Seconds to the whole answer, and its tokens."""
    body = {
        "messages": [{"role": "user", "content": QUESTION}],
        "uncertainty": uncertainty,
        "cache_salt": uuid.uuid4().hex,
    }
    began = time.perf_counter()
    response = client.post("/v1/chat/completions", json=body).raise_for_status()
    seconds = time.perf_counter() - began
    return seconds, response.json()["usage"]["completion_tokens"]


if __name__ == "__main__":
    main()
