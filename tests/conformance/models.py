"""Random models with the features that the golden cases lack."""

from __future__ import annotations

from typing import Any

import torch

from model_impl.checkpoint.reading import expected_tensors
from model_impl.config import PROJECTIONS, TokenformerConfig

PROMPT_LENGTH = 40


def stage(name: str, counts: tuple[int, ...], norm_group: int = 0, tau: float | None = None) -> dict[str, Any]:
    taus = None if tau is None else dict.fromkeys(PROJECTIONS, tau)
    tokens = dict(zip(PROJECTIONS, counts, strict=True))
    return {"name": name, "tokens": tokens, "tau": taus, "norm_group": norm_group}


ODD, MORE = (23, 24, 25, 31, 47), (15, 0, 17, 11, 19)

VARIANTS: dict[str, dict[str, Any]] = {
    "untied head, affine norms, full rotary": {
        "tie_word_embeddings": False,
        "affine_block_norms": True,
        "partial_rotary_factor": 1.0,
    },
    "odd head dimension, another rotary base and eps": {
        "hidden_size": 27,
        "num_attention_heads": 3,
        "partial_rotary_factor": 0.5,
        "rope_theta": 500.0,
        "layer_norm_eps": 1e-3,
    },
    "grown jointly, tau kept": {"growth_stages": [stage("base", ODD), stage("grown", MORE, tau=4.5)]},
    "grown in groups, GELU first": {
        "norm_activation_type": "gelu_l2_norm",
        "growth_stages": [stage("base", ODD), stage("a", MORE, 1), stage("b", MORE, 1), stage("c", ODD, 2, tau=3.0)],
    },
    "a vocabulary of seven words": {"vocab_size": 7},
    "grown in groups, softmax": {
        "norm_activation_type": "softmax",
        "growth_stages": [stage("base", ODD), stage("grown", MORE, 1)],
    },
}


def variant_config(name: str) -> TokenformerConfig:
    defaults: dict[str, Any] = {
        "vocab_size": 99,
        "padded_vocab_size": 128,
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 64,
        "partial_rotary_factor": 0.5,
        "eos_token_id": None,
        "growth_stages": [stage("base", ODD)],
    }
    return TokenformerConfig(**(defaults | VARIANTS[name]))


VALUE_SCALES = {"l2_norm_gelu": 0.6, "gelu_l2_norm": 0.3, "softmax": 0.2}
"""The scale of the values by activation: the larger its weights, the smaller the values."""


def random_weights(config: TokenformerConfig, seed: int = 0) -> dict[str, torch.Tensor]:
    """Scaled so that every part of a block moves the logits, but no rounding error grows to the tests' tolerance."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in expected_tensors(config).items():
        random = torch.randn(shape, generator=generator)
        if name.endswith("norm.weight"):
            random = 1 + 0.3 * random
        elif name.endswith("key_param_tokens"):
            random /= config.hidden_size**0.5
        elif name.endswith(("word_embeddings.weight", "norm.bias")):
            random *= 0.3
        elif name.endswith("value_param_tokens"):
            random *= VALUE_SCALES[config.norm_activation_type]
        weights[name] = random
    return weights


def random_prompts(config: TokenformerConfig, count: int = 2, length: int = PROMPT_LENGTH) -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    prompts: list[list[int]] = torch.randint(config.vocab_size, (count, length), generator=generator).tolist()
    return prompts
