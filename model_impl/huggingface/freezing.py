"""Frozen rows of the tensors of parameter tokens: the earlier stages' tokens, which share them with the trained ones.

A gradient mask would not do: weight decay and the optimizer's momentum move rows that have no gradient. So the rows
that are trained become a parameter of their own, and the frozen ones a buffer, which no optimizer sees. The module
still reads one tensor, and the model's state dict still holds one under the official name.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from model_impl.reference.model import Pattention

TENSORS = ("key_param_tokens", "value_param_tokens")


class FrozenRows(nn.Module):
    """The parametrization of a tensor [n, d] by its last rows; the first ones are frozen."""

    frozen: torch.Tensor

    def __init__(self, frozen: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("frozen", frozen)

    def forward(self, trained: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.frozen, trained])

    def right_inverse(self, whole: torch.Tensor) -> torch.Tensor:
        return whole[len(self.frozen) :]


def freeze_rows(layer: Pattention, count: int) -> None:
    """Freeze the first `count` tokens of a Pattention; training may change the others."""
    for name in TENSORS:
        if parametrize.is_parametrized(layer, name):
            parametrize.remove_parametrizations(layer, name)
        if 0 < count < len(getattr(layer, name)):
            frozen = getattr(layer, name).detach()[:count].clone()
            parametrize.register_parametrization(layer, name, FrozenRows(frozen))
    layer.requires_grad_(count < len(layer.key_param_tokens))


def keep_official_names(model: nn.Module) -> None:
    """Let state dicts of the model, written and loaded, have whole tensors under official names, frozen or not."""
    model.register_state_dict_post_hook(_join)
    model.register_load_state_dict_pre_hook(_part)


def _join(model: nn.Module, state: dict[str, Any], prefix: str, metadata: dict[str, Any]) -> None:
    for official, trained, frozen, _ in _split_tensors(model, prefix):
        state[official] = torch.cat([state.pop(frozen), state.pop(trained)])


def _part(model: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    for official, trained, frozen, count in _split_tensors(model, prefix):
        if official in state:
            whole = state.pop(official)
            state[frozen], state[trained] = whole[:count], whole[count:]


def _split_tensors(model: nn.Module, prefix: str) -> Iterator[tuple[str, str, str, int]]:
    """The names of every tensor with frozen rows: official, trained rows, frozen rows, and the number of the last."""
    for path, layer in model.named_modules():
        for name in TENSORS:
            if isinstance(layer, Pattention) and parametrize.is_parametrized(layer, name):
                parts = f"{prefix}{path}.parametrizations.{name}"
                frozen = layer.get_buffer(f"parametrizations.{name}.0.frozen")
                yield f"{prefix}{path}.{name}", f"{parts}.original", f"{parts}.0.frozen", len(frozen)
