"""The cost of each kind of uncertainty that a request may ask for.

python -m loadtest.uncertainty [demo] [150M] [--rounds 9]
"""

from __future__ import annotations

from typing import Any

from loadtest import machine
from loadtest.bench import Load
from loadtest.setups import Setup
from loadtest.shapes import SHAPES
from loadtest.sides import Loads, Side, main
from tests.support.demo_server import DEMO

KINDS: dict[str, Any] = {
    "off": False,
    "summary": True,
    "tokens": {"tokens": True},
    "ensemble of 16": {"ensemble": 16},
}


def sides(setup: Setup) -> list[Side]:
    return [Side(name, setup, {"uncertainty": kind}) for name, kind in KINDS.items()]


def loads(answers: int, tokens: int) -> Loads:
    """The number of answers and their tokens for one client; 16 clients get eight times as many."""
    return {"1 at a time": Load(answers, 32, tokens, 1), "16 at a time": Load(8 * answers, 32, tokens, 16)}


if __name__ == "__main__":
    shape = Setup(SHAPES["150M"].checkpoint(), ("--dtype", machine.dtype()))
    parts = {"demo": (sides(Setup(DEMO)), loads(8, 64)), "150M": (sides(shape), loads(2, 32))}
    main(__doc__.splitlines()[0], "uncertainty", parts, rounds=9)
