"""A whole Pattention on one rank, by the kernels that suit its sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
import torch.nn.functional as F

from model_impl.kernels.gpu.choice import FEW_COLUMNS, MANY_COLUMNS, Way, choose, gram_wins
from model_impl.kernels.gpu.layout import Layout
from model_impl.kernels.gpu.operators import row_operation
from model_impl.kernels.gpu.registration import operator


@dataclass(frozen=True)
class WholePattention:
    """The Pattentions of projections that read the same input, where nobody asks for the tokens' weights.

    keys [W, d] in the columns of `layout`, and values [d, n] per projection, neither packed nor quantised. `grams` are
    K^T K of every segment, one below the other, where it may pay to take norms from them.
    """

    keys: torch.Tensor
    values: list[torch.Tensor]
    layout: Layout
    activation: str
    few_tiles: torch.Tensor
    many_tiles: torch.Tensor
    gram_tiles: torch.Tensor
    grams: torch.Tensor | None = None

    @classmethod
    def of(
        cls, keys: torch.Tensor, values: Sequence[torch.Tensor], counts: Sequence[Sequence[int]], activation: str
    ) -> WholePattention:
        """`counts`: tokens per projection and segment. Made when the weights are loaded."""
        layout, width = Layout.of(counts, keys.device), keys.shape[1]
        gram_tiles = Layout.of([[width] * len(own) for own in counts], keys.device).tiles(MANY_COLUMNS)
        tiles = layout.tiles(FEW_COLUMNS), layout.tiles(MANY_COLUMNS), gram_tiles
        whole = cls(keys, list(values), layout, activation, *tiles)
        pays = activation == "l2_norm_gelu" and gram_wins(len(keys) // sum(map(len, counts)), width)
        return whole.with_grams() if pays else whole

    def with_grams(self) -> WholePattention:
        if self.activation != "l2_norm_gelu":
            raise ValueError("a Gram matrix gives the norm of scores, not of what their activation makes of them")
        bounds = self.layout.bounds.tolist()
        parts = self.keys.float().split([stop - start for start, stop in pairwise(bounds)])
        return replace(self, grams=torch.cat([part.t() @ part for part in parts]).to(self.keys.dtype))

    def __call__(
        self, x: torch.Tensor, coupling: torch.Tensor, tau: torch.Tensor, way: Way | None = None
    ) -> list[torch.Tensor]:
        """x [T, d] -> one [T, d] per projection. `coupling` and `tau` as for `row_operation`; `way` instead of the one
        that `choose` takes."""
        return whole_pattention(
            x,
            self.keys,
            self.values,
            self.layout.bounds,
            self.layout.alignment,
            self.few_tiles,
            self.many_tiles,
            self.gram_tiles,
            self.grams,
            coupling,
            tau,
            self.activation,
            way,
        )


@operator(lambda x, keys, values, *rest: [x.new_empty((len(x), len(own))) for own in values])
def whole_pattention(
    x: torch.Tensor,
    keys: torch.Tensor,
    values: list[torch.Tensor],
    bounds: torch.Tensor,
    alignment: int,
    few_tiles: torch.Tensor,
    many_tiles: torch.Tensor,
    gram_tiles: torch.Tensor,
    grams: torch.Tensor | None,
    coupling: torch.Tensor,
    tau: torch.Tensor,
    activation: str,
    way: str | None,
) -> list[torch.Tensor]:
    from model_impl.kernels.gpu import triton_pattention as fused

    way = way or choose(len(x), len(keys) // tau[0].numel(), x.shape[1], grams is not None)
    if way == "fused":
        scores, norms = fused.scores_and_squares(x, keys, few_tiles, alignment, activation)
        return list(
            fused.values_of_scores(scores, values, bounds, alignment, norms, coupling, tau, activation).unbind()
        )
    if way == "gram":
        assert grams is not None
        norms = fused.gram_squares(x, grams, gram_tiles)
        weights = fused.weights_by_norm(x, keys, many_tiles, alignment, norms, coupling, tau)
    else:
        weights = row_operation(F.linear(x, keys), Layout(bounds, alignment), coupling, tau, activation)
    parts = weights.split([own.shape[1] for own in values], dim=-1)
    return [F.linear(part, own) for part, own in zip(parts, values, strict=True)]
