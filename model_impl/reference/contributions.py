"""The contributions of parameter tokens to a position: w_i^2 ||v_i||^2, the squared length of the part that token i
adds to the output y = sum_i w_i v_i of its Pattention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch

from model_impl.config import PROJECTIONS, TokenformerConfig
from model_impl.reference.model import ReferenceTokenformer
from model_impl.reference.watch import Seen, watching


@dataclass(frozen=True)
class Place:
    """The place of a parameter token: its `index` in its projection's tensors, its stage by name."""

    layer: int
    projection: str
    index: int
    stage: str


def places(config: TokenformerConfig, stage: int = -1) -> list[Place]:
    """All N parameter tokens of the model as it was at `stage`: layer after layer, projections as in `PROJECTIONS`."""
    stages = config.stages[: range(len(config.stages))[stage] + 1]
    names = {p: [step.name for step in stages for _ in range(step.tokens[p])] for p in PROJECTIONS}
    return [
        Place(layer, projection, index, name)
        for layer in range(config.num_hidden_layers)
        for projection in PROJECTIONS
        for index, name in enumerate(names[projection])
    ]


class PositionTrace(NamedTuple):
    """The weights and contributions [N] at one position, tokens as in `places`, and the logits [V] that follow it."""

    weights: torch.Tensor
    contributions: torch.Tensor
    logits: torch.Tensor


@torch.no_grad()
def at_position(model: ReferenceTokenformer, ids: list[int], position: int, stage: int = -1) -> PositionTrace:
    weights: list[torch.Tensor] = []
    contributions: list[torch.Tensor] = []

    def note(seen: Seen) -> None:
        weights.append(seen.weights[0, position])
        contributions.append(seen.contributions[0, position])

    with watching(model, note):
        logits = model(torch.tensor([ids[: position + 1]]), stage)
    return PositionTrace(torch.cat(weights), torch.cat(contributions), logits[0, position])


class Strongest(NamedTuple):
    """The K tokens that contribute most to every position, numbered as in `places`; both are [B, T, K]."""

    tokens: torch.Tensor
    contributions: torch.Tensor


@torch.no_grad()
def strongest(model: ReferenceTokenformer, input_ids: torch.Tensor, count: int, stage: int = -1) -> Strongest:
    """input_ids [B, T]; K is `count`, or N if that is smaller. Never holds more than one layer's contributions."""
    found: list[torch.Tensor] = []
    numbers: list[torch.Tensor] = []
    start = 0

    def note(seen: Seen) -> None:
        nonlocal start
        contributions = seen.contributions
        top = contributions.topk(min(count, contributions.shape[-1]), dim=-1)
        found.append(top.values)
        numbers.append(top.indices + start)
        start += contributions.shape[-1]

    with watching(model, note):
        model(input_ids, stage)
    candidates = torch.cat(found, dim=-1)
    top = candidates.topk(min(count, candidates.shape[-1]), dim=-1)
    return Strongest(torch.cat(numbers, dim=-1).gather(-1, top.indices), top.values)
