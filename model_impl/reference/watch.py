"""One hook that shows the inside of every Pattention while the reference model runs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F

from model_impl.config import PROJECTIONS
from model_impl.reference.model import Pattention, ReferenceTokenformer
from model_impl.reference.pattention import token_weights


class Seen(NamedTuple):
    """One run of a Pattention, y = sum_i w_i v_i, with the n parameter tokens of its stage."""

    layer: Pattention
    stages: int
    """The number of growth stages that take part."""
    x: torch.Tensor
    """[..., d]"""
    scores: torch.Tensor
    """s = x K^T, [..., n]."""
    weights: torch.Tensor
    """w, [..., n]."""

    @property
    def values(self) -> torch.Tensor:
        """v, [n, d]."""
        return self.layer.value_param_tokens[: self.weights.shape[-1]]

    @property
    def contributions(self) -> torch.Tensor:
        """w_i^2 ||v_i||^2 [..., n]: the squared length of the part of y that each token adds."""
        return self.weights.square() * self.values.square().sum(dim=-1)

    def by_stage(self, tokens: torch.Tensor, dim: int = -1) -> tuple[torch.Tensor, ...]:
        """Split a tensor with n tokens along `dim` into the growth stages."""
        counts = [stage.tokens[self.layer.projection] for stage in self.layer.config.stages[: self.stages]]
        parts: tuple[torch.Tensor, ...] = tokens.split(counts, dim)
        return parts


@contextmanager
def watching(
    model: ReferenceTokenformer, note: Callable[[Seen], None], projections: Collection[str] = PROJECTIONS
) -> Iterator[None]:
    """Within the block, `note` gets every run of the Pattentions of `projections`, in the order of the model.

    Threads need models of their own, see `with_weights`: `note` is called by every thread that runs this model.
    """

    def record(layer: Pattention, inputs: tuple[torch.Tensor, int], _: torch.Tensor) -> None:
        x, stage = inputs
        groups = layer.config.norm_groups(layer.projection, stage)
        scores = F.linear(x, layer.key_param_tokens[: groups[-1].stop])
        weights = token_weights(scores, groups, layer.config.norm_activation_type)
        note(Seen(layer, range(len(layer.config.stages))[stage] + 1, x, scores, weights))

    layers = [m for m in model.modules() if isinstance(m, Pattention) and m.projection in projections]
    hooks = [layer.register_forward_hook(record) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
