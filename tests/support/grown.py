"""Grown checkpoints for tests, whose stages all give different answers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from model_impl.checkpoint.grow import grown_tensors, new_stage
from model_impl.checkpoint.writing import write_checkpoint
from model_impl.config import PROJECTIONS, GrowthStage, TokenformerConfig
from model_impl.reference.model import ReferenceTokenformer
from tests.conformance.models import random_weights

VOCABULARY = 99

BASE = dict(zip(PROJECTIONS, (23, 24, 25, 31, 47), strict=True))
ADDED = (
    dict(zip(PROJECTIONS, (9, 12, 8, 17, 30), strict=True)),
    dict(zip(PROJECTIONS, (6, 0, 15, 3, 21), strict=True)),
)


def word_tokenizer() -> dict[str, bytes]:
    """One word per id, so that any ids can be shown as text."""
    tokenizer = Tokenizer(models.WordLevel({f"w{i}": i for i in range(VOCABULARY)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    settings = '{"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "w0"}'
    return {"tokenizer.json": tokenizer.to_str().encode(), "tokenizer_config.json": settings.encode()}


def grown_checkpoint(
    directory: Path,
    stages: int = 2,
    *,
    norm: str = "grouped",
    base_seed: int = 0,
    growth_seed: int = 0,
    files: Mapping[str, bytes] | None = None,
    **changes: Any,
) -> ReferenceTokenformer:
    """Write a tiny checkpoint of 1 to 3 stages, `base`, `grown-1` and `grown-2`, all of random tokens.

    Checkpoints of one `base_seed` have the same base, whatever they grew by: their deltas are siblings. `changes` are
    of the configuration, `files` lie beside the weights. Returns the reference model; `model(ids, stage)` is a stage's.
    """
    defaults: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "padded_vocab_size": 128,
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "partial_rotary_factor": 0.5,
        "max_position_embeddings": 128,
        "eos_token_id": None,
        "growth_stages": [GrowthStage("base", BASE).to_dict()],
    }
    config = TokenformerConfig(**(defaults | changes))
    dtype = getattr(torch, config.dtype)
    weights = {name: tensor.to(dtype) for name, tensor in random_weights(config, base_seed).items()}
    for tokens in ADDED[: stages - 1]:
        stage = new_stage(config, tokens, None, norm, "random")
        weights = dict(grown_tensors(weights.items(), config, stage, "random", growth_seed))
        config = config.with_stages([*config.stages, stage])
    write_checkpoint(directory, config, weights.items(), files or {})
    model = ReferenceTokenformer(config)
    model.load_state_dict(weights)
    return model.eval().requires_grad_(False)
