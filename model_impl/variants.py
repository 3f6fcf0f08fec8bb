"""Variants: the growth stages and deltas that rows of a batch use, served from one resident copy.

The resident tokens of every projection lie in segments: one per growth stage of the checkpoint, then one per loaded
delta. A client names a variant as `model`. It has some of the segments, with the normalisation groups and taus that
they had when that variant was the whole model. All tables have fixed shapes between loads, so that no shape of a step
depends on the data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike

from model_impl.config import PROJECTIONS, GrowthStage, TokenformerConfig, norm_groups
from model_impl.wire import Membership

VERSION_MARK = "#"
"""Ends the directory in a delta's adapter path; the rest tells versions of its content apart in the KV cache."""


@dataclass(frozen=True)
class Variant:
    """`stages` as the variant's whole history, and for each the segment that holds its tokens."""

    stages: Sequence[GrowthStage]
    segments: Sequence[int]


@dataclass(frozen=True)
class Selection:
    """For each row (or one for all rows): how segments share norms, and the scale of each segment.

    coupling float32 [R, S, S]: 1 where two segments belong to one normalisation group of the row's variant.
    tau float32 [R, 5, S], projections as in `PROJECTIONS`: the group's tau; 0 for segments the variant leaves out.
    members int64 [T]: 1 + the ensemble member whose masks a row has, 0 for plain rows; None where all are plain.
    """

    coupling: torch.Tensor
    tau: torch.Tensor
    members: torch.Tensor | None = None

    def for_projections(self, projections: Sequence[str]) -> Selection:
        first = PROJECTIONS.index(projections[0])  # a module's projections follow one another
        return replace(self, tau=self.tau[:, first : first + len(projections)])


class VariantTable:
    """The variants a model can serve, and the variant of every row of the current step.

    Variants are known by adapter id, as vLLM hands it through with a request: 0 is the last stage, k + 1 is the
    checkpoint's stage k, and deltas have the ids given to them when they were loaded.
    """

    def __init__(self, config: TokenformerConfig, max_rows: int, *, traced: bool = False) -> None:
        """`traced`: whether `select` runs once and what it returns is replayed for other steps."""
        stages = config.stages
        self.traced = traced
        self.stage_count = len(stages)
        self.base_stages = stages
        self.deltas: dict[int, GrowthStage] = {}
        self.rows = torch.zeros(max_rows, dtype=torch.int64)
        self.members = torch.zeros_like(self.rows)
        """`Selection.members` of the step. It stays where it is, as kernels read it."""
        self.masked = False
        """Whether a row of the step has masks."""
        self.assigned: tuple[bytes, bytes] | None = None
        self.only: int | None = None
        """The slot that all rows of the step share; None if they differ."""
        self.stage_variants = {
            index + 1: Variant(stages[: index + 1], range(index + 1)) for index in config.servable_stages
        }
        self._build()

    def add_delta(self, adapter_id: int, stage: GrowthStage) -> None:
        """Give a loaded delta the next segment; its variant is the whole checkpoint plus the delta."""
        self.deltas[adapter_id] = stage
        self._build()

    def remove_delta(self, adapter_id: int) -> None:
        del self.deltas[adapter_id]
        self._build()

    @property
    def grown(self) -> bool:
        """Whether there is more than one stage to tell apart."""
        return self.stage_count + len(self.deltas) > 1

    def places(self, sums: torch.Tensor) -> torch.Tensor:
        """Sums over each segment [..., S] -> [..., stage_count + 1]: one per stage of the checkpoint, and one for the
        row's delta. The sums of other deltas are 0 in its row."""
        if not self.deltas:
            return F.pad(sums, (0, 1))
        own, deltas = sums[..., : self.stage_count], sums[..., self.stage_count :]
        return torch.cat([own, deltas.sum(dim=-1, keepdim=True)], dim=-1)

    def __contains__(self, adapter_id: int) -> bool:
        return adapter_id in self.slots

    def assign(self, adapter_ids: ArrayLike, row_counts: ArrayLike, members: np.ndarray | None = None) -> None:
        """Set the variant of the step's rows, request by request; rows beyond are padding and use the last stage.

        `members` are those of the rows, as `member_rows` gives them.
        """
        adapters, counts = np.asarray(adapter_ids), np.asarray(row_counts)
        if self.masked:
            self.members.zero_()
        self.masked = members is not None
        if members is not None:
            self.members[: len(members)].copy_(torch.from_numpy(members))
        if (assigned := (adapters.tobytes(), counts.tobytes())) == self.assigned:
            return  # the rows of a step are those of the last one until a request comes, ends or is cut
        self.assigned = assigned
        slots = np.array([self.slots[adapter_id] for adapter_id in adapters.tolist()], dtype=np.int64)
        self.only = int(slots[0]) if len(slots) and not self.traced and (slots == slots[0]).all() else None
        rows = torch.from_numpy(np.repeat(slots, counts))
        self.rows[: len(rows)].copy_(rows)
        self.rows[len(rows) :].zero_()

    def select(self, num_rows: int) -> Selection:
        """The selection for the step's rows; one row that serves all of them where they share a variant."""
        members = self.members[:num_rows] if self.masked else None
        only = 0 if len(self.coupling) == 1 else self.only
        if only is not None:
            return Selection(self.coupling[only : only + 1], self.tau[only : only + 1], members)
        rows = self.rows[:num_rows]
        return Selection(self.coupling[rows], self.tau[rows], members)

    def _build(self) -> None:
        newest = Variant(self.base_stages, range(self.stage_count))
        variants = {0: newest} | self.stage_variants
        for position, (adapter_id, stage) in enumerate(self.deltas.items()):
            segments = [*range(self.stage_count), self.stage_count + position]
            variants[adapter_id] = Variant([*self.base_stages, stage], segments)
        variants.pop(self.stage_count, None)  # the last stage is variant 0
        self.slots = {adapter_id: slot for slot, adapter_id in enumerate(variants)}
        size = self.stage_count + len(self.deltas)
        # vLLM builds models with their own dtype as the default: bfloat16 would round tau and not multiply float32.
        coupling = torch.zeros(len(variants), size, size, dtype=torch.float32)
        tau = torch.zeros(len(variants), len(PROJECTIONS), size, dtype=torch.float32)
        for slot, variant in enumerate(variants.values()):
            groups = [norm_groups(variant.stages, projection) for projection in PROJECTIONS]
            for stage, segment in zip(variant.stages, variant.segments, strict=True):
                for other, partner in zip(variant.stages, variant.segments, strict=True):
                    coupling[slot, segment, partner] = stage.norm_group == other.norm_group
                taus = [by_number[stage.norm_group].tau for by_number in groups]
                tau[slot, :, segment] = torch.tensor(taus, dtype=torch.float32)
        self.rows.zero_()  # the last step's variants may be gone
        self.assigned = self.only = None
        segments = [*self.base_stages, *self.deltas.values()]
        counts = [[segment.tokens[projection] for segment in segments] for projection in PROJECTIONS]
        self.counts = torch.tensor(counts, device=self.rows.device)  # int64 [5, S]: parameter tokens
        self.coupling, self.tau = coupling.to(self.rows.device), tau.to(self.rows.device)


def member_rows(
    memberships: Sequence[Membership | None], firsts: ArrayLike, row_counts: ArrayLike
) -> np.ndarray | None:
    """`Selection.members` of a step's rows, int64 [T]; None where all are plain.

    Request by request: its membership, the position of its first row, and its number of rows.
    """
    if not any(memberships):
        return None
    counts = np.asarray(row_counts)
    own = [(0, 0) if each is None else (each.member + 1, each.masked_from) for each in memberships]
    numbers, starts = np.repeat(np.array(own, dtype=np.int64), counts, axis=0).T
    positions = np.arange(len(numbers)) + np.repeat(np.asarray(firsts) - (counts.cumsum() - counts), counts)
    members = np.where(positions < starts, 0, numbers)
    return members if members.any() else None
