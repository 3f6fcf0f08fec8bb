"""The cost of the API layer: our server against vLLM's own on the demo checkpoint.

    python -m loadtest.against_vllm [--rounds 15]

vLLM's side is its unmodified server, worker and sampler, into which the installed package registers the model.
"""

from __future__ import annotations

from loadtest.bench import Load
from loadtest.setups import Setup
from loadtest.sides import Side, main
from tests.support.demo_server import DEMO

FLAGS = ("--dtype", "float32", "--enforce-eager")
SIDES = [
    Side("vLLM", Setup(DEMO, FLAGS, stock=True)),
    Side("ours, uncertainty off", Setup(DEMO, FLAGS), {"uncertainty": False}),
    Side("ours", Setup(DEMO, FLAGS)),
]
LOADS = {"1 at a time": Load(8, 32, 64, 1), "16 at a time": Load(64, 32, 64, 16)}

if __name__ == "__main__":
    main(__doc__.splitlines()[0], "against_vllm", {"demo": (SIDES, LOADS)}, rounds=15)
