"""Which models that are no Tokenformer have the closed form of epistemic uncertainty, and where it is read.

Both processes ask: the engine to place its hooks, the API to say what a model has.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Parts(NamedTuple):
    """Names of modules: the down projection of a block's MLP within the block, and the norm after the last block."""

    down: str
    norm: str


_LLAMA = Parts("mlp.down_proj", "norm")
PARTS = {
    "LlamaForCausalLM": _LLAMA,
    "MistralForCausalLM": _LLAMA,
    "Qwen2ForCausalLM": _LLAMA,
    "Qwen3ForCausalLM": _LLAMA,
    "GemmaForCausalLM": _LLAMA,
    "Phi3ForCausalLM": _LLAMA,
    "SmolLM3ForCausalLM": _LLAMA,
    "PhiForCausalLM": Parts("mlp.fc2", "final_layernorm"),
    "GPTNeoXForCausalLM": Parts("mlp.dense_4h_to_h", "final_layer_norm"),
    "GPT2LMHeadModel": Parts("mlp.c_proj", "ln_f"),
    "Starcoder2ForCausalLM": Parts("mlp.c_proj", "norm"),
}
"""By architecture. In all of them the down projection adds to the residual stream directly, and the logits are a
product with the last norm's output. A norm after the MLP (Gemma 2, OLMo 2), factors on the residual stream (Granite)
and mixtures of experts are not among them."""


def counted_blocks(blocks: int) -> Sequence[int]:
    """The blocks, of so many, whose hidden units are counted: the fourth- and the third-last.

    On real facts these tell most (evals/results/REAL.md). The last two move logits so far that, in a sum, they
    drown the others.
    """
    return sorted({max(blocks - 4, 0), max(blocks - 3, 0)})


def reports_epistemic(architectures: Iterable[str]) -> bool:
    """Whether a model reports it, where one pipeline rank has all its blocks."""
    return any(name in PARTS for name in architectures)
