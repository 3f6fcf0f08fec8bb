"""What the engine reports of sampled rows beyond their logits: epistemic uncertainty and growth.

A step leaves a `StepReport` behind. When the tokens are known, `Reporter` makes the columns of `model_impl.wire` from
it. The formulas are those of `model_impl.reference.closed_form` and `model_impl.reference.attribution`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, cast

import torch
from vllm.distributed import get_tensor_model_parallel_world_size, tensor_model_parallel_all_gather
from vllm.model_executor.layers.layernorm import LayerNorm

from model_impl.kernels.cpu.pattention import PackedPattention
from model_impl.kernels.cpu.report import ReportKernel, SegmentParts
from model_impl.kernels.cpu.stack import PackedStack
from model_impl.kernels.cpu.weights import PackedWeight
from model_impl.kernels.gpu import operators as gpu_kernels
from model_impl.kernels.words import Words
from model_impl.reference.attribution import logit_parts, rivals
from model_impl.reference.closed_form import STRONGEST, logit_gradients, logit_variances
from model_impl.reference.row_operation import sum_over_ranks
from model_impl.variants import VariantTable

AT_ONCE = 256
"""Rows whose value tokens and words are gathered together, 64 and 16 rows of the model's width for each."""


class LonePattention(Protocol):
    """The part of a `ParallelPattention` that a report uses; the module adds to the residual stream."""

    small_batch: PackedPattention | None

    def tokens_of(self, segment: int) -> range: ...

    def part(self, segment: int, weights: Sequence[torch.Tensor]) -> torch.Tensor: ...

    def value_rows(self, indices: torch.Tensor) -> torch.Tensor: ...

    def value_matrix(self) -> torch.Tensor | None: ...


class StepReport:
    """R of the T rows of a step, as it leaves them: the weights of the last feed-forward and the residual stream. Of a
    grown model, also what each segment has added to that stream."""

    weights: Sequence[torch.Tensor]
    """Weights of the checkpoint's tokens [R, n], then of each delta's [R, m]: this rank's share of them."""
    residual: torch.Tensor
    """[R, d], before the last norm."""
    embedded: torch.Tensor
    """[R, d], the residual stream before the first block."""
    added: torch.Tensor
    """Float32 [R, S - 1, d]: what each segment's tokens add, this rank's share; all but the first's, which is the
    rest."""

    def __init__(self, rows: torch.Tensor | None, embedded: torch.Tensor, segments: int) -> None:
        """`rows` int64 [R]; None for all. `embedded` [T, d]."""
        self.rows = rows
        self.embedded = self.pick(embedded)
        self.added = self.embedded.new_zeros(
            len(self.embedded), segments - 1, self.embedded.shape[1], dtype=torch.float32
        )

    def pick(self, x: torch.Tensor) -> torch.Tensor:
        return x if self.rows is None else x[self.rows]

    def add(self, module: LonePattention, weights: Sequence[torch.Tensor]) -> None:
        """Take the weights [T, n] and [T, m] of the next output projection or feed-forward; those of the last stay."""
        self.weights = weights
        segments = self.added.shape[1]
        picked = [self.pick(own) for own in weights] if segments else ()
        for segment in range(segments):
            self.added[:, segment] += module.part(segment + 1, picked)

    def end(self, residual: torch.Tensor) -> None:
        """Take the residual stream [T, d] after the last block."""
        self.weights, self.residual = [self.pick(own) for own in self.weights], self.pick(residual)

    def take_stack(self, stack: PackedStack, rows: int) -> None:
        """Take what a stack has left of all rows in its buffers, which the next step overwrites."""
        self.weights, self.residual = [stack.modules[-1].weights[0][:rows]], stack.residual[:rows]
        for segment, add in enumerate(stack.parts or ()):
            add(self.added[:, segment])

    def tensors(self) -> dict[str, torch.Tensor]:
        """All of them by name, of a model without deltas."""
        (weights,) = self.weights
        return {"weights": weights, "residual": self.residual, "embedded": self.embedded, "added": self.added}


class Reporter:
    """Makes the reported columns, on the rank that has the last block."""

    def __init__(self, last: LonePattention, norm: LayerNorm, head: Any, variants: VariantTable, rate: float) -> None:
        """`last` is the last feed-forward, and `head` has the head's rows, whether as a head or as the embedding.
        `rate` is the share of parameter tokens that an ensemble's member lacks."""
        self.last, self.norm, self.head = last, norm, head
        self.variants, self.scale = variants, rate * (1 - rate) / 2
        self.kernel = self._kernel()

    def columns(
        self, report: StepReport, words: Words, chosen: torch.Tensor, rows: torch.Tensor | slice
    ) -> torch.Tensor:
        """Float32 [N, 1 or 1 + places] of the N rows `rows` of a report, with their likeliest words and the
        tokens `chosen` int64 [N] after them."""
        if self.kernel is not None and not self.variants.deltas:
            return self.kernel(list(report.tensors().values()), numbers(rows, len(chosen)), *words, chosen)
        if isinstance(rows, slice):
            rows = torch.arange(*rows.indices(len(report.residual)), device=chosen.device)
        parts = zip(words.logits.split(AT_ONCE), words.ids.split(AT_ONCE), strict=True)
        found = [
            self._columns(report, Words(*some), tokens, own)
            for some, tokens, own in zip(parts, chosen.split(AT_ONCE), rows.split(AT_ONCE), strict=True)
        ]
        return torch.cat(found)

    def _columns(self, report: StepReport, words: Words, chosen: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """`columns` in PyTorch, of at most AT_ONCE rows."""
        residual, heads = report.residual[rows].float(), head_rows(self.head, words.ids)
        weights = [own[rows] for own in report.weights]
        columns = [self.scale * self.spread(weights, report.residual[rows], words, heads)[:, None]]
        if self.variants.grown:
            rival = rivals(words.ids, chosen).float()
            count = rival.sum(dim=-1, keepdim=True).clamp_min(1)  # a vocabulary of one word has no rivals
            mean = (rival[..., None] * heads).sum(dim=-2) / count
            direction = head_rows(self.head, chosen) - mean
            others = sum_over_ranks(report.added[rows])
            first = residual - report.embedded[rows].float() - others.sum(dim=1)
            added = torch.cat([first[:, None], others], dim=1)
            columns.append(self.variants.places(logit_parts(added, residual, direction, *self.scaling)))
        return torch.cat(columns, dim=-1)

    def _kernel(self) -> ReportKernel | None:
        """All columns in one call, for packed value tokens on a single rank."""
        packed, head = self.last.small_batch, self.head.weight
        if packed is None or get_tensor_model_parallel_world_size() > 1 or head.dtype != packed.scores.dtype:
            return None
        if not head.numel():  # packed as well
            return None
        head = head[: self.head.org_vocab_size]
        return ReportKernel(packed.values[0], head, cast(torch.Tensor, self.norm.weight), self.norm.eps, self.scale)

    @property
    def scaling(self) -> tuple[torch.Tensor, float]:
        """The last norm's weight and eps."""
        return cast(torch.Tensor, self.norm.weight).float(), self.norm.eps

    def spread(
        self, weights: Sequence[torch.Tensor], residual: torch.Tensor, words: Words, heads: torch.Tensor
    ) -> torch.Tensor:
        """The sum of `logit_variances` [N]. The strongest tokens are those of all ranks together."""
        indices, found = strongest(torch.cat(list(weights), dim=-1))
        probabilities = words.logits.softmax(dim=-1)
        if (values := self.last.value_matrix()) is not None and gpu_kernels.runs_on(residual.device):
            head, norm = self.head.weight, cast(torch.Tensor, self.norm.weight)
            place = residual, head, norm, self.norm.eps
            return gpu_kernels.logit_spread(*place, words.ids, probabilities, values, indices, found)
        gradients = logit_gradients(residual.float(), probabilities, heads, *self.scaling)
        spread = logit_variances(self.last.value_rows(indices), probabilities, gradients, found)
        return sum_over_ranks(spread.sum(dim=-1))


def strongest(weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """This rank's weights [N, n] -> the places [N, k] of the largest among them, and these, float32 [N, k]; 0 for those
    that are not among the `STRONGEST` of all ranks together."""
    every = weights.float()
    indices = every.abs().topk(min(STRONGEST, every.shape[-1]), dim=-1).indices
    found = every.gather(-1, indices)
    if get_tensor_model_parallel_world_size() > 1:
        sizes = tensor_model_parallel_all_gather(found.abs())
        limit = sizes.topk(min(STRONGEST, sizes.shape[-1]), dim=-1).values[:, -1:]
        found = found.where(found.abs() >= limit, 0.0)
    return indices, found


def numbers(rows: torch.Tensor | slice, count: int) -> torch.Tensor | None:
    """The rows as int64 [N]; None for the first `count`."""
    if isinstance(rows, torch.Tensor):
        return rows.long().contiguous()
    return torch.arange(rows.start, rows.stop) if rows.start else None


def segment_parts(modules: Sequence[LonePattention]) -> list[SegmentParts] | None:
    """What the tokens of each segment after the first add, for all `modules` together, which are packed. None in
    bfloat16 where a segment begins or ends with half a pair of tokens (csrc/packed.c)."""
    packed = [module.small_batch for module in modules if module.small_batch is not None]
    parts = []
    for segment in range(1, packed[0].rows.segments):
        tokens = [module.tokens_of(segment) for module in modules]
        if packed[0].scores.dtype == torch.bfloat16 and any(own.start % 2 or own.stop % 2 for own in tokens):
            return None
        parts.append(SegmentParts([own.values[0] for own in packed], [own.weights[0] for own in packed], tokens))
    return parts


def has_rows(layer: Any) -> bool:
    """Whether the rows of a layer's weight can be read, which those that vLLM has packed cannot."""
    return bool(layer.weight.numel()) or isinstance(getattr(layer, "cpu_linear", None), PackedWeight)


def head_rows(head: Any, ids: torch.Tensor) -> torch.Tensor:
    """The output head's rows of the tokens `ids` [...]: float32 [..., d]. Every rank has a share of the vocabulary."""
    shard = head.shard_indices
    first, stop = shard.org_vocab_start_index, shard.org_vocab_end_index
    own = (ids >= first) & (ids < stop)
    local = (ids - first).where(own, 0)
    packed = getattr(head, "cpu_linear", None)
    rows = packed.rows(local) if isinstance(packed, PackedWeight) else head.weight[local]
    return sum_over_ranks(rows.float().where(own[..., None], 0.0))
