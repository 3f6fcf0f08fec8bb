"""The golden cases of tests/golden: numbers of the official implementation (see the README there)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from model_impl.checkpoint.official_config import config_from_official
from model_impl.config import PROJECTIONS, GrowthStage, TokenformerConfig
from tests.support.paths import ROOT

GOLDEN = ROOT / "tests" / "golden"
CASES = sorted(path.name for path in GOLDEN.iterdir() if path.is_dir())
GROWN_CASES = [name for name in CASES if "_grown_" in name]
TOLERANCE = 1e-3 if torch.cuda.is_available() else 1e-4
"""Absolute, on float32 logits and layer outputs; a float64 derivation is at most 3.3e-5 away. A GPU sums in other
orders."""

PROMPT_TOKENS = 16
"""How many of `greedy_ids` are the prompt; the rest are greedy."""


@dataclass(frozen=True)
class GoldenCase:
    """`weights` by official name; `io` as the README of the golden cases describes it; `config` has one stage."""

    name: str
    official: dict[str, Any]
    config: TokenformerConfig
    weights: dict[str, torch.Tensor]
    io: dict[str, torch.Tensor]

    @property
    def path(self) -> Path:
        return GOLDEN / self.name

    def staged_config(self) -> TokenformerConfig:
        """The configuration of a grown case with its two stages, normalised jointly as the official code does."""
        old = self.official["grown_from"]["old_counts"]
        keys = {"query": "qkv", "key": "qkv", "value": "qkv", "output": "proj", "ffn": "ffn"}
        base = {projection: old[keys[projection]] for projection in PROJECTIONS}
        added = {projection: self.config.token_count(projection) - base[projection] for projection in PROJECTIONS}
        config = load_case(self.name).config
        config.growth_stages = [GrowthStage("base", base).to_dict(), GrowthStage("grown", added).to_dict()]
        return config


def load_case(name: str) -> GoldenCase:
    official = json.loads((GOLDEN / name / "config.json").read_text())
    weights = load_file(GOLDEN / name / "model.safetensors")
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    config = config_from_official(official, shapes, "float32")
    return GoldenCase(name, official, config, weights, load_file(GOLDEN / name / "io.safetensors"))
