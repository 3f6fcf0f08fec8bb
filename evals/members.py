"""Ensembles from one model: parameter tokens masked in a Tokenformer, hidden units or inputs dropped in its twin.

The twin's members are the control of `model_impl.reference.ensemble`: fixed masks by the same hash, at the same rates
and positions, and likewise without scaling up the rest (Monte Carlo dropout, Gal and Ghahramani 2016, fixed masks).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Literal

import torch
from torch import nn

from evals.answers import Logits
from evals.twin import Linear, Mlp, Twin
from model_impl.reference.ensemble import decompose, masked, token_mask
from model_impl.reference.model import ReferenceTokenformer

Members = Callable[[int, torch.Tensor], AbstractContextManager[None]]
"""Within `members(k, rows)` the model is member number k at the positions `rows`, bool [B, T]."""

Dropped = Literal["hidden", "inputs"]


def token_members(model: ReferenceTokenformer, rate: float, projections: Sequence[str] | None = None) -> Members:
    """The members of a Tokenformer; `projections` default to those of its configuration."""
    return lambda member, rows: masked(model, member, rows, rate, projections)


def dropout_members(twin: Twin, rate: float, dropped: Dropped) -> Members:
    """`hidden`: the MLPs' hidden units. `inputs`: the inputs of all linear layers, the MLPs' first ones included."""
    return lambda member, rows: dropout(twin, member, rows, rate, dropped)


@contextmanager
def dropout(twin: Twin, member: int, rows: torch.Tensor, rate: float, dropped: Dropped) -> Iterator[None]:
    spared = ~rows[..., None]
    places = {name: m for name, m in twin.named_modules() if isinstance(m, Mlp | Linear)}
    hooks = []
    for name, module in places.items():
        layer, place = int(name.split(".")[1]) - 2, name.rpartition(".")[2]
        if dropped == "hidden" and isinstance(module, Mlp):
            module.keep = token_mask(member, layer, place, [len(module.keys)], rate) | spared
        elif dropped == "inputs":
            keep = token_mask(member, layer, place, [twin.config.hidden_size], rate) | spared
            hooks.append(module.register_forward_pre_hook(input_mask(keep)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for module in places.values():
            if isinstance(module, Mlp):
                module.keep = None


def input_mask(keep: torch.Tensor) -> Callable[[nn.Module, tuple[torch.Tensor, int]], tuple[torch.Tensor, int]]:
    return lambda module, inputs: (inputs[0] * keep, *inputs[1:])  # type: ignore[return-value]


@torch.no_grad()
def disagreement(
    model: Logits,
    members: Members,
    counts: Sequence[int],
    ids: torch.Tensor,
    starts: torch.Tensor,
    rows: torch.Tensor,
    columns: torch.Tensor,
) -> torch.Tensor:
    """Epistemic and aleatoric uncertainty of the next token at positions (rows, columns) of ids [B, T], in nats.

    Members differ from the positions `starts` [B] on, the last of each prompt. float32 [len(counts), N, 2]: for
    ensembles of the first 1..m members, for every m in `counts` (increasing).
    """
    answers = torch.arange(ids.shape[1]) >= starts[:, None]
    mean_probabilities, mean_entropy, found = torch.zeros(()), torch.zeros(()), []
    for member in range(counts[-1]):
        with members(member, answers):
            probabilities = model(ids)[rows, columns].softmax(dim=-1)
        mean_probabilities = mean_probabilities + probabilities
        mean_entropy = mean_entropy + torch.special.entr(probabilities).sum(dim=-1)
        if member + 1 in counts:
            found.append(decompose(mean_probabilities / (member + 1), mean_entropy / (member + 1)))
    return torch.stack(found)
