"""The layout of scores: the columns of one tensor, one run of them for every segment of every projection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import gcd

import torch


@dataclass(frozen=True)
class Layout:
    """Columns of scores [T, W] of P projections with S segments each, projection after projection.

    bounds int32 [P S + 1]: where each segment starts, and where the last one stops. alignment: the power of two, up to
    16, that divides all of them; kernels move so many numbers at once.
    """

    bounds: torch.Tensor
    alignment: int

    @classmethod
    def of(cls, counts: Sequence[Sequence[int]], device: torch.device | str) -> Layout:
        """`counts`: per projection, the columns of each of its segments. Made once per load."""
        bounds = [0, *accumulate(count for own in counts for count in own)]
        return cls(torch.tensor(bounds, dtype=torch.int32, device=device), gcd(16, *bounds))

    def tiles(self, size: int) -> torch.Tensor:
        """Every segment cut into tiles of up to `size` columns: int32 [M, 3], start, stop and segment (p S + s)."""
        bounds = self.bounds.tolist()
        rows = [
            (start, min(start + size, stop), segment)
            for segment, (first, stop) in enumerate(pairwise(bounds))
            for start in range(first, stop, size)
        ]
        return torch.tensor(rows, dtype=torch.int32, device=self.bounds.device).view(-1, 3)
