"""A Tokenformer small enough to write in a test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from model_impl.checkpoint.reading import expected_tensors
from model_impl.config import GrowthStage, TokenformerConfig

TOKENS = {"query": 4, "key": 5, "value": 6, "output": 7, "ffn": 9}


def tiny_config(**changes: Any) -> TokenformerConfig:
    defaults: dict[str, Any] = {
        "vocab_size": 11,
        "padded_vocab_size": 16,
        "hidden_size": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 32,
        "partial_rotary_factor": 0.5,
        "eos_token_id": None,
        "growth_stages": [GrowthStage("base", TOKENS).to_dict()],
    }
    return TokenformerConfig(**(defaults | changes))


def tiny_weights(config: TokenformerConfig, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = expected_tensors(config).items()
    return {name: torch.randn(shape, generator=generator).to(getattr(torch, config.dtype)) for name, shape in shapes}


def official_keys(config: TokenformerConfig) -> dict[str, Any]:
    """The configuration under the official key names."""
    return {
        "num_layers": config.num_hidden_layers,
        "hidden_size": config.hidden_size,
        "num_attention_heads": config.num_attention_heads,
        "max_position_embeddings": config.max_position_embeddings,
        "pos_emb": "rotary",
        "rotary_pct": config.partial_rotary_factor,
        "norm": "layernorm" if config.affine_block_norms else "layernorm_nonparam",
        "final_norm": "layernorm",
        "no_weight_tying": not config.tie_word_embeddings,
        "norm_activation_type": config.norm_activation_type,
        "gpt_j_residual": False,
        "use_bias_in_attn_linear": False,
        "attention_config": [[["tokenformer"], config.num_hidden_layers]],
        "vocab_size": config.vocab_size,
    }


def write_source(source: Path, config: TokenformerConfig, weights: dict[str, torch.Tensor], **keys: Any) -> Path:
    """A torch file and an official config in the new directory `source`."""
    source.mkdir()
    torch.save(weights, source / "pytorch_model.bin")
    (source / "config.json").write_text(json.dumps(official_keys(config) | keys))
    return source


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name
