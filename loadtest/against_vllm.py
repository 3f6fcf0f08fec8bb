"""The cost of the API layer and of the summary: our server against vLLM's own.

    python -m loadtest.against_vllm [demo] [150M] [--rounds 15]

vLLM's side is its unmodified server, worker and sampler, into which the installed package registers the model.
"""

from __future__ import annotations

from pathlib import Path

from loadtest import machine
from loadtest.setups import Setup
from loadtest.shapes import SHAPES
from loadtest.sides import Side, main
from loadtest.uncertainty import loads
from tests.support.demo_server import DEMO


def sides(checkpoint: Path, dtype: str) -> list[Side]:
    flags = ("--dtype", dtype, "--enforce-eager")
    return [
        Side("vLLM", Setup(checkpoint, flags, stock=True)),
        Side("ours, uncertainty off", Setup(checkpoint, flags), {"uncertainty": False}),
        Side("ours", Setup(checkpoint, flags)),
    ]


if __name__ == "__main__":
    shape = SHAPES["150M"].checkpoint()
    parts = {"demo": (sides(DEMO, "float32"), loads(8, 64)), "150M": (sides(shape, machine.dtype()), loads(2, 32))}
    main(__doc__.splitlines()[0], "against_vllm", parts, rounds=15)
