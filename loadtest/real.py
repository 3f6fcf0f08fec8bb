"""The cost of uncertainty on a model that is no Tokenformer, against vLLM's own server.

    python -m loadtest.real [--rounds 7]

The model is that of `make real`, SmolLM2-135M-Instruct. vLLM's side is its unmodified server, worker and sampler.
"""

from __future__ import annotations

from loadtest.bench import Load
from loadtest.setups import Setup
from loadtest.sides import Side, main
from tests.support.paths import ROOT

MODEL = ROOT / "demo" / "runs" / "smollm2"
FLAGS = ("--max-model-len", "2048")
EAGER = (*FLAGS, "--enforce-eager")
SIDES = [
    Side("vLLM", Setup(MODEL, EAGER, stock=True)),
    Side("vLLM, logprobs 5", Setup(MODEL, EAGER, stock=True), {"logprobs": True, "top_logprobs": 5}),
    Side("vLLM, compiled", Setup(MODEL, FLAGS, stock=True)),
    Side("ours, uncertainty off", Setup(MODEL, EAGER), {"uncertainty": False}),
    Side("ours", Setup(MODEL, EAGER)),
    Side("ours, compiled", Setup(MODEL, (*FLAGS, "--no-enforce-eager"))),
]
LOADS = {f"{clients} at a time": Load(2 * clients + 2, 32, 48, clients) for clients in (1, 4, 16)}

if __name__ == "__main__":
    main(__doc__.splitlines()[0], "real", {"SmolLM2-135M": (SIDES, LOADS)}, rounds=7)
