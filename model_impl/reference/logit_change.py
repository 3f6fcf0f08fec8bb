"""The distance between the logits of two checkpoints, measured on a small probe."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch

from model_impl.checkpoint.reading import load_config, tensor_shapes
from model_impl.reference.model import load_reference

PROBE_POSITIONS = 64
PROBE_PARAMETERS = 500_000_000
"""Larger models are not probed: the reference holds all of a model in float32, here 2 GB."""


@dataclass(frozen=True)
class LogitChange:
    """The largest absolute difference of any logit over `positions` of one random sequence, in float32."""

    largest: float
    positions: int

    def __str__(self) -> str:
        return f"logits move by at most {self.largest:.1e} (float32, {self.positions} random positions)"


def logit_change(before: Path, after: Path, seed: int = 0) -> LogitChange | None:
    """Compare two checkpoint directories of the same vocabulary; None if they are too large for a probe."""
    if sum(map(math.prod, tensor_shapes(after).values())) > PROBE_PARAMETERS:
        return None
    config = load_config(before)
    positions = min(PROBE_POSITIONS, config.max_position_embeddings)
    ids = torch.randint(config.vocab_size, (1, positions), generator=torch.Generator().manual_seed(seed))
    largest = (_logits(after, ids) - _logits(before, ids)).abs().max().item()
    return LogitChange(largest, positions)


@torch.no_grad()
def _logits(checkpoint: Path, ids: torch.Tensor) -> torch.Tensor:
    logits: torch.Tensor = load_reference(checkpoint)(ids)
    return logits
