"""Latency and throughput against the number of concurrent requests.

python -m loadtest.batch [demo] [150M] [--rounds 3]
"""

from __future__ import annotations

from loadtest.bench import TEXT, Load
from loadtest.setups import Setup
from loadtest.shapes import SHAPES
from loadtest.sides import Loads, Side, main
from tests.support.demo_server import DEMO

BATCHES = (1, 4, 16, 64)


def loads(tokens: int) -> Loads:
    """The tokens that each run generates, about; a run has at least two batches of 32 for every request."""
    return {f"{size} at a time": Load(max(tokens // 32, 2 * size), 32, 32, size, TEXT) for size in BATCHES}


if __name__ == "__main__":
    sides = {"demo": Setup(DEMO), "150M": Setup(SHAPES["150M"].checkpoint(), ("--dtype", "float32"))}
    parts = {"demo": ([Side("ours", sides["demo"])], loads(4096)), "150M": ([Side("ours", sides["150M"])], loads(96))}
    main(__doc__.splitlines()[0], "batch", parts, rounds=3)
