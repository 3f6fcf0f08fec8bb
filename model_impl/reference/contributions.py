"""Which parameter tokens made a position's output: w_i^2 ||v_i||^2 of each, the squared length of what it adds to the
output y = sum_i w_i v_i of its Pattention."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F

from model_impl.config import PROJECTIONS, TokenformerConfig
from model_impl.reference.model import Pattention, ReferenceTokenformer
from model_impl.reference.pattention import token_weights


@dataclass(frozen=True)
class Place:
    """Where a parameter token lies: `index` in its projection's tensors; its stage by name."""

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


@torch.no_grad()
def watch(
    model: ReferenceTokenformer,
    input_ids: torch.Tensor,
    stage: int,
    note: Callable[[torch.Tensor, torch.Tensor], None],
) -> torch.Tensor:
    """The logits for input_ids [B, T]; `note` is told every Pattention's weights [B, T, n] and ||v||^2 [n] in turn.

    Threads need models of their own, see `with_weights`: the watched one calls back whoever runs it.
    """

    def record(layer: Pattention, inputs: tuple[torch.Tensor, int], _: torch.Tensor) -> None:
        groups = layer.config.norm_groups(layer.projection, inputs[1])
        used = groups[-1].stop
        scores = F.linear(inputs[0], layer.key_param_tokens[:used])
        weights = token_weights(scores, groups, layer.config.norm_activation_type)
        note(weights, layer.value_param_tokens[:used].square().sum(dim=-1))

    hooks = [module.register_forward_hook(record) for module in model.modules() if isinstance(module, Pattention)]
    try:
        logits: torch.Tensor = model(input_ids, stage)
    finally:
        for hook in hooks:
            hook.remove()
    return logits


class PositionTrace(NamedTuple):
    """Of one position: weights and contributions [N], tokens as in `places`, and the logits [V] that follow it."""

    weights: torch.Tensor
    contributions: torch.Tensor
    logits: torch.Tensor


def at_position(model: ReferenceTokenformer, ids: list[int], position: int, stage: int = -1) -> PositionTrace:
    weights: list[torch.Tensor] = []
    squares: list[torch.Tensor] = []

    def note(own: torch.Tensor, value_squares: torch.Tensor) -> None:
        weights.append(own[0, position])
        squares.append(value_squares)

    logits = watch(model, torch.tensor([ids[: position + 1]]), stage, note)
    w = torch.cat(weights)
    return PositionTrace(w, w.square() * torch.cat(squares), logits[0, position])


class Strongest(NamedTuple):
    """The K tokens that contribute most to every position, numbered as in `places`; both are [B, T, K]."""

    tokens: torch.Tensor
    contributions: torch.Tensor


def strongest(model: ReferenceTokenformer, input_ids: torch.Tensor, count: int, stage: int = -1) -> Strongest:
    """input_ids [B, T]; K is `count`, or N if that is smaller. Never holds more than one layer's contributions."""
    found: list[torch.Tensor] = []
    numbers: list[torch.Tensor] = []
    start = 0

    def note(weights: torch.Tensor, value_squares: torch.Tensor) -> None:
        nonlocal start
        contributions = weights.square() * value_squares
        top = contributions.topk(min(count, contributions.shape[-1]), dim=-1)
        found.append(top.values)
        numbers.append(top.indices + start)
        start += contributions.shape[-1]

    watch(model, input_ids, stage, note)
    candidates = torch.cat(found, dim=-1)
    top = candidates.topk(min(count, candidates.shape[-1]), dim=-1)
    return Strongest(torch.cat(numbers, dim=-1).gather(-1, top.indices), top.values)
