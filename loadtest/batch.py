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


def setups() -> dict[str, Setup]:
    return {"demo": Setup(DEMO), "150M": Setup(SHAPES["150M"].checkpoint(), ("--dtype", "float32"))}


TOKENS = {"demo": 4096, "150M": 96}

if __name__ == "__main__":
    parts = {name: ([Side("ours", setup)], loads(TOKENS[name])) for name, setup in setups().items()}
    main(__doc__.splitlines()[0], "batch", parts, rounds=3)
