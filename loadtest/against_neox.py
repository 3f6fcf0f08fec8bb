"""A Tokenformer against ordinary transformers of the same depth, width, heads, vocabulary and weights per block.

    python -m loadtest.against_neox [eager-float32] [compiled-bfloat16] ... [--rounds 3]

All on vLLM's own server with the same settings. GPT-NeoX runs through vLLM's Transformers backend, as vLLM has no
implementation of its own; so a GPT-2 stands beside it, which has one and differs by learned positions in place of
rotary embeddings. Weights are random, as time does not depend on them.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from loadtest.bench import TEXT, Load
from loadtest.setups import Setup
from loadtest.shapes import RUNS, SHAPES, WORDS, Shape, tokenizer_files
from loadtest.sides import Side, main
from model_impl.checkpoint.writing import all_or_nothing

LOADS = {f"{size} at a time": Load(max(2 * size, 16), 64, 32, size, TEXT) for size in (1, 4, 16)}
MODES = {"eager": ("--enforce-eager",), "compiled": ()}
DTYPES = ("float32", "bfloat16")


def gpt2(shape: Shape) -> Path:
    """The directory of its checkpoint, float32; written if it is not there."""
    path = RUNS / f"{shape.name}-gpt2"
    if not path.exists():
        config = GPT2Config(
            vocab_size=WORDS,
            n_embd=shape.width,
            n_layer=shape.layers,
            n_head=shape.heads,
            n_inner=shape.tokens - 2 * shape.width,
            n_positions=2048,
            activation_function="gelu",
            bos_token_id=0,
            eos_token_id=0,
            dtype=torch.float32,
        )
        torch.manual_seed(0)
        with all_or_nothing(path) as partial:
            GPT2LMHeadModel(config).save_pretrained(partial)
            for name, content in tokenizer_files().items():
                (partial / name).write_bytes(content)
    return path


def sides(shape: Shape, flags: tuple[str, ...]) -> list[Side]:
    models = {"GPT-NeoX": shape.neox(), "GPT-2": gpt2(shape), "Tokenformer": shape.checkpoint()}
    return [Side(name, Setup(path, flags, stock=True)) for name, path in models.items()]


if __name__ == "__main__":
    parts = {
        f"{mode}-{dtype}": (sides(SHAPES["150M"], (*MODES[mode], "--dtype", dtype)), LOADS)
        for mode, dtype in product(MODES, DTYPES)
    }
    main(__doc__.splitlines()[0], "against_neox", parts, rounds=3)
