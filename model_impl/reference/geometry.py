"""How crowded the parameter tokens of a Pattention are: their directions, beside random ones.

n > d directions in d dimensions cannot all be orthogonal. How far they interfere is what superposition is about
(Elhage et al. 2022, "Toy Models of Superposition").
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F

from model_impl.config import PROJECTIONS
from model_impl.reference.model import Pattention, ReferenceTokenformer
from model_impl.reference.watch import Seen, watching

DUPLICATE = 0.95
"""Two tokens with a larger cosine are near-duplicates."""

DEAD = 1e-3
"""A token shorter than this share of the median length is dead."""

SILENT = 0.01
"""A token is silent on texts where it makes less than this share of an average token's contributions."""

CHUNK = 1024

SAMPLE = 10**6
"""About the most cosines that a quantile is taken of."""


@dataclass(frozen=True)
class Directions:
    """Measures of n tokens in d dimensions.

    `coherence` is d times the mean squared cosine of two tokens: 1 for random directions, d where all are parallel.
    `high_cosine` is the 99 % quantile of |cosine|. `effective_rank` is exp of the entropy of the singular values'
    shares (Roy and Vetterli 2007), at most min(n, d). `duplicates` counts tokens close to another one.
    """

    tokens: int
    coherence: float
    high_cosine: float
    effective_rank: float
    duplicates: int
    dead: int


class Novelty(NamedTuple):
    """How new a stage's tokens are, medians over them: the share of their squared length outside the span of the
    earlier stages' tokens, 0 where these span everything, and the largest |cosine| to one of them."""

    outside: float
    nearest: float


class Use(NamedTuple):
    """How many tokens do the work on texts: the participation ratio (sum c)^2 / sum c^2 of their contributions c,
    the mean over positions, and the number of silent tokens."""

    participation: float
    silent: int


@torch.no_grad()
def directions(tokens: torch.Tensor) -> Directions:
    """tokens [n, d], at least one."""
    count, width = tokens.shape
    lengths = tokens.double().norm(dim=-1)
    alive = lengths > DEAD * lengths.median()
    unit = F.normalize(tokens.double()[alive], dim=-1)
    pairs, duplicates, sample = len(unit) * (len(unit) - 1), 0, []
    stride = max(1, len(unit) ** 2 // SAMPLE)
    for start in range(0, len(unit), CHUNK):
        cosines = unit[start : start + CHUNK] @ unit.T
        cosines[torch.arange(len(cosines)), torch.arange(start, start + len(cosines))] = 0.0  # a token and itself
        duplicates += int((cosines > DUPLICATE).any(dim=-1).sum())
        sample.append(cosines.abs().flatten()[::stride])
    squares = float((unit.T @ unit).square().sum()) - len(unit)  # the sum over i, j of cos^2, without i = j
    shares = torch.linalg.svdvals(tokens.double())
    shares = shares / shares.sum()
    return Directions(
        tokens=count,
        coherence=width * squares / pairs if pairs else 0.0,
        high_cosine=float(torch.cat(sample).quantile(0.99)) if pairs else 0.0,
        effective_rank=float(torch.special.entr(shares).sum().exp()) if bool(alive.any()) else 0.0,
        duplicates=duplicates,
        dead=count - int(alive.sum()),
    )


def random_directions(count: int, width: int) -> Directions:
    """The same measures of random tokens."""
    return directions(torch.randn(count, width, generator=torch.Generator().manual_seed(0)))


@torch.no_grad()
def novelty(tokens: torch.Tensor, earlier: torch.Tensor) -> Novelty:
    """tokens [m, d] against earlier [n, d]."""
    unit, known = F.normalize(tokens.double(), dim=-1), F.normalize(earlier.double(), dim=-1)
    _, sizes, basis = torch.linalg.svd(known, full_matrices=False)
    basis = basis[sizes > sizes[0] * 1e-6]
    outside = unit.square().sum(dim=-1) - (unit @ basis.T).square().sum(dim=-1)  # 0 of a token of zeros
    return Novelty(float(outside.clamp_min(0).median()), float((unit @ known.T).abs().amax(dim=-1).median()))


class Row(NamedTuple):
    """One projection of one layer; `novelty` is that of the last stage's tokens, where it grew on others."""

    layer: int
    projection: str
    keys: Directions
    values: Directions
    random: Directions
    novelty: dict[str, Novelty]
    use: Use | None


def rows(model: ReferenceTokenformer, texts: Iterable[torch.Tensor] = ()) -> Iterator[Row]:
    """All Pattentions in the order of the model; `texts` are ids [1, T] on which their use is measured."""
    uses = measured_use(model, texts)
    config = model.config
    layers = [module for module in model.modules() if isinstance(module, Pattention)]
    random: dict[int, Directions] = {}
    for number, layer in enumerate(layers):
        count, new = len(layer.key_param_tokens), config.stages[-1].tokens[layer.projection]
        if count not in random:
            random[count] = random_directions(count, config.hidden_size)
        parts = {"keys": layer.key_param_tokens, "values": layer.value_param_tokens}
        grown = {name: novelty(part[-new:], part[:-new]) for name, part in parts.items()} if 0 < new < count else {}
        keys, values = (directions(part) for part in parts.values())
        place = number // len(PROJECTIONS), layer.projection
        yield Row(*place, keys, values, random[count], grown, uses.get(layer))


@torch.no_grad()
def measured_use(model: ReferenceTokenformer, texts: Iterable[torch.Tensor]) -> dict[Pattention, Use]:
    totals: dict[Pattention, torch.Tensor] = {}
    ratios: dict[Pattention, tuple[float, int]] = {}

    def note(seen: Seen) -> None:
        c = seen.contributions.double().flatten(0, -2)  # [positions, n]
        ratio = c.sum(dim=-1).square() / c.square().sum(dim=-1).clamp_min(torch.finfo(c.dtype).tiny)
        total, positions = ratios.get(seen.layer, (0.0, 0))
        ratios[seen.layer] = total + float(ratio.sum()), positions + len(c)
        totals[seen.layer] = totals.get(seen.layer, 0) + c.sum(dim=0)

    with watching(model, note):
        for ids in texts:
            model(ids)
    return {
        layer: Use(total / positions, int((totals[layer] < SILENT * totals[layer].mean()).sum()))
        for layer, (total, positions) in ratios.items()
    }
