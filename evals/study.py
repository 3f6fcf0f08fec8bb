"""The study of ensembles: rate, number of members and projections, and the twin's dropout, at the first value token.

The task is the one that entropy cannot do: unknown against ambiguous-but-known facts. Questions and right answers are
cut before the value, so that every setting judges the same positions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from transformers import PreTrainedTokenizerFast

from evals.answers import BATCH, Logits, padded
from evals.members import Members, disagreement, dropout_members, token_members
from evals.questions import Item
from evals.signals import Values
from evals.twin import Twin
from model_impl.config import PROJECTIONS
from model_impl.reference.model import ReferenceTokenformer

RATES = (0.01, 0.02, 0.03, 0.05, 0.10, 0.15)
FEWER_RATES = (0.01, 0.03, 0.05, 0.10)
PART_RATES = (0.03, 0.10)
MANY_RATE = 0.03
"""The rate of the ensembles of 32 members."""

FEW, SOME, MANY = (2, 4, 8), (2, 4, 8, 16), (2, 4, 8, 16, 32)
"""Numbers of members; those of one setting are the first of the same members."""

PARTS: Mapping[str, tuple[str, ...]] = {
    "all": PROJECTIONS,
    "output, ffn": ("output", "ffn"),
    "q/k/v": ("query", "key", "value"),
    "output": ("output",),
    "ffn": ("ffn",),
}
QUESTIONS = 120
"""The largest number of questions per kind of fact."""


@dataclass(frozen=True)
class Setting:
    """The masked projections, the rate, and the numbers of members to try."""

    masked: str
    rate: float
    members: Members
    counts: tuple[int, ...]


def settings(model: ReferenceTokenformer) -> list[Setting]:
    if isinstance(model, Twin):
        return [
            Setting(name, rate, dropout_members(model, rate, dropped), counts(rate) if rates == RATES else SOME)
            for name, dropped, rates in (("hidden units", "hidden", RATES), ("inputs", "inputs", FEWER_RATES))
            for rate in rates
        ]
    whole = [
        Setting(name, rate, token_members(model, rate, PARTS[name]), counts(rate))
        for name, rates in (("all", RATES), ("output, ffn", FEWER_RATES))
        for rate in rates
    ]
    parts = [
        Setting(name, rate, token_members(model, rate, PARTS[name]), FEW)
        for name in ("q/k/v", "output", "ffn")
        for rate in PART_RATES
    ]
    return whole + parts


def counts(rate: float) -> tuple[int, ...]:
    return MANY if rate == MANY_RATE else SOME


def study_items(items: Sequence[Item]) -> list[Item]:
    chosen = []
    for kind in ("ambiguous", "unknown"):
        chosen += [item for item in items if item.world == "A" and item.fact.kind == kind and not item.rare][:QUESTIONS]
    return chosen


def study(
    model: ReferenceTokenformer, stage: int, tokenizer: PreTrainedTokenizerFast, items: Sequence[Item]
) -> dict[str, Values]:
    """`masked/rate/m` -> epistemic uncertainty of every item at the first value token [nats], and `entropy`, the
    plain model's there."""
    forward = partial(model.forward, stage=stage)
    prompts = [item.prompt(tokenizer) for item in items]
    rows = [prompt.ids[: prompt.value] for prompt in prompts]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    batches = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
    place = torch.tensor([i for batch in batches for i in batch]).argsort()

    def over_batches(compute: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """`compute` gets ids, the last position of each prompt, and the last position of each row."""
        parts = []
        for batch in batches:
            start = torch.tensor([prompts[i].start - 1 for i in batch])
            last = torch.tensor([len(rows[i]) - 1 for i in batch])
            parts.append(compute(padded([rows[i] for i in batch]), start, last))
        return torch.cat(parts, dim=-1)[..., place]

    def entropy(ids: torch.Tensor, _: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return torch.special.entr(forward(ids)[torch.arange(len(ids)), last].softmax(dim=-1)).sum(dim=-1)

    found = {"entropy": over_batches(entropy).double().numpy()}
    for setting in settings(model):
        epistemic = partial(first_epistemic, forward, setting)
        for count, values in zip(setting.counts, over_batches(epistemic).double().numpy(), strict=True):
            found[f"{setting.masked}/{setting.rate}/{count}"] = values
    return found


def first_epistemic(
    forward: Logits, setting: Setting, ids: torch.Tensor, start: torch.Tensor, last: torch.Tensor
) -> torch.Tensor:
    """[counts, B]"""
    return disagreement(forward, setting.members, setting.counts, ids, start, torch.arange(len(ids)), last)[..., 0]
