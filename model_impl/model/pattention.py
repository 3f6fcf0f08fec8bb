"""Pattention on vLLM's parallel linear layers, with the tokens of growth stages and deltas in segments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import nn
from vllm.distributed import get_tensor_model_parallel_rank, get_tensor_model_parallel_world_size
from vllm.model_executor.layers.linear import (
    MergedColumnParallelLinear,
    RowParallelLinear,
    UnquantizedLinearMethod,
)
from vllm.model_executor.layers.quantization import QuantizationConfig
from vllm.model_executor.models.utils import extract_layer_index

from model_impl.config import TokenformerConfig
from model_impl.kernels.cpu import library as cpu_kernels
from model_impl.kernels.cpu.layers import pack_when_loaded
from model_impl.kernels.cpu.pattention import PackedPattention
from model_impl.kernels.cpu.rows import RowKernel
from model_impl.kernels.cpu.weights import PackedWeight
from model_impl.kernels.gpu import operators as kernels
from model_impl.kernels.gpu.rows import SegmentedRows
from model_impl.model.report import StepReport, has_rows
from model_impl.reference.ensemble import MAX_MEMBERS, stage_mask
from model_impl.reference.row_operation import TokenShard, sum_over_ranks, token_weights
from model_impl.variants import Selection


@dataclass(frozen=True)
class DeltaTokens:
    """One rank's share of a delta in one projection: keys and values [m, d], and which rows only fill it up [m].

    `count` is how many tokens all ranks hold together.
    """

    keys: torch.Tensor
    values: torch.Tensor
    padding: torch.Tensor
    count: int


class ParallelPattention(nn.Module):
    """One or several projections that read the same input: their key tokens are one GEMM.

    x [T, d] -> one [T, d] per projection. Under tensor parallelism each is this rank's share of the sum. The tokens
    of loaded deltas lie beside the checkpoint's, so that loading one touches no weight that is in use.
    """

    def __init__(
        self,
        config: TokenformerConfig,
        projections: Sequence[str],
        quant_config: QuantizationConfig | None,
        prefix: str,
    ) -> None:
        super().__init__()
        self.activation = config.norm_activation_type
        self.projections = tuple(projections)
        self.tp_rank, self.tp_size = get_tensor_model_parallel_rank(), get_tensor_model_parallel_world_size()
        self.shards = [
            TokenShard([stage.tokens[projection] for stage in config.stages], self.tp_rank, self.tp_size)
            for projection in projections
        ]
        self.key_tokens = MergedColumnParallelLinear(
            config.hidden_size,
            [shard.padded_count for shard in self.shards],
            bias=False,
            quant_config=quant_config,
            prefix=f"{prefix}.key_tokens",
            return_bias=False,
        )
        self.value_tokens = nn.ModuleDict(
            {
                projection: RowParallelLinear(
                    shard.padded_count,
                    config.hidden_size,
                    bias=False,
                    reduce_results=False,
                    quant_config=quant_config,
                    prefix=f"{prefix}.value_tokens.{projection}",
                    return_bias=False,
                )
                for projection, shard in zip(projections, self.shards, strict=True)
            }
        )
        # vLLM builds a model with its dtype and device as the defaults; the weights' own may change by quantisation.
        self.dtype, self.device = torch.get_default_dtype(), torch.get_default_device()
        self.deltas: dict[int, list[DeltaTokens]] = {}
        self.layer, self.ensemble_rate = extract_layer_index(prefix), config.ensemble_rate
        self.masked = [name in (config.ensemble_projections or ()) for name in self.projections]
        self.left_out: list[list[torch.Tensor]] | None = None  # see `prepare_masks`
        self.kernel: RowKernel | SegmentedRows | None = None
        self.small_batch: PackedPattention | None = None
        self.keeps_values = False
        """Whether to keep a copy of a lone projection's value tokens, unless they can be read when all is packed."""
        self.kept_values: torch.Tensor | None = None
        self._lay_out()

    def forward(self, x: torch.Tensor, selection: Selection, report: StepReport | None) -> list[torch.Tensor]:
        """`selection` for all projections of the model. `report`, if any, gets the weights of a lone projection, which
        adds to the residual stream."""
        masked = selection.members is not None and any(self.masked)
        if self.small_batch is not None and x.shape[0] <= self.small_batch.small_batch:
            outputs = self.small_batch(x, selection)
            if report is not None and len(self.projections) == 1:
                report.add(self, [self.small_batch.weights[0][: x.shape[0]]])
            return outputs
        scores = self.key_tokens(x)
        delta_scores = [[F.linear(x, delta.keys) for delta in tokens] for tokens in self.deltas.values()]
        if self.kernel is not None and (scores.device.type != "cpu" or cpu_kernels.supports(scores)):
            weights = self.kernel(scores, delta_scores, selection)
        else:
            weights = self._weights(self._segments(scores, delta_scores), selection)
        if masked:
            self._mask(weights, cast(torch.Tensor, selection.members))
        if report is not None and len(self.projections) == 1:
            report.add(self, weights[0])
        outputs = []
        for i, (values, (own, *others)) in enumerate(zip(self.value_tokens.values(), weights, strict=True)):
            output = values(own)
            for w, tokens in zip(others, self.deltas.values(), strict=True):
                output = output + w @ tokens[i].values
            outputs.append(output)
        return outputs

    def part(self, segment: int, weights: Sequence[torch.Tensor]) -> torch.Tensor:
        """What the tokens of one segment add to the output of a lone projection: weights as `StepReport` has them
        -> [R, d], of this rank."""
        own, *others = weights
        shares = self.shards[0].shares
        if segment >= len(shares):
            number = segment - len(shares)
            return others[number] @ list(self.deltas.values())[number][0].values
        place = self.tokens_of(segment)
        layer: Any = self.value_tokens[self.projections[0]]
        packed = getattr(layer, "cpu_linear", None)
        if isinstance(packed, PackedWeight):
            return packed.part(own, place.start, place.stop)
        if layer.weight.numel():
            return F.linear(own[:, place.start : place.stop], layer.weight[:, place.start : place.stop])
        alone = torch.zeros_like(own)  # vLLM has packed the weight
        alone[:, place.start : place.stop] = own[:, place.start : place.stop]
        return cast(torch.Tensor, layer(alone))

    def tokens_of(self, segment: int) -> range:
        """The tokens of one of the checkpoint's segments among a lone projection's tokens of this rank."""
        shares = self.shards[0].shares
        first = sum(shares[:segment])
        return range(first, first + shares[segment])

    def value_rows(self, indices: torch.Tensor) -> torch.Tensor:
        """Value tokens of a lone projection: int64 [...] -> float32 [..., d]. This rank's tokens are numbered through,
        the checkpoint's, then each delta's."""
        layer: Any = self.value_tokens[self.projections[0]]
        count = self.widths[0]
        packed = getattr(layer, "cpu_linear", None)
        own = indices.clamp(max=count - 1) if self.deltas else indices
        if self.kept_values is not None:
            rows = self.kept_values[own]
        else:
            rows = packed.columns(own) if isinstance(packed, PackedWeight) else layer.weight.t()[own]
        for (tokens,) in self.deltas.values():
            if not len(tokens.values):
                continue
            place = indices - count
            inside = (place >= 0) & (place < len(tokens.values))
            rows = torch.where(inside[..., None], tokens.values[place.clamp(0, len(tokens.values) - 1)], rows)
            count += len(tokens.values)
        return rows.float()

    def value_matrix(self) -> torch.Tensor | None:
        """The value tokens of a lone projection as they lie, [d, n]; None where others belong to them: deltas, or those
        of other ranks."""
        layer: Any = self.value_tokens[self.projections[0]]
        return layer.weight if self.tp_size == 1 and not self.deltas and layer.weight.numel() else None

    @property
    def readable(self) -> bool:
        """Whether `value_rows` can be read: quantised tokens cannot, nor those that vLLM has packed."""
        layer: Any = self.value_tokens[self.projections[0]]
        return isinstance(layer.quant_method, UnquantizedLinearMethod) and (
            self.kept_values is not None or has_rows(layer)
        )

    def _segments(
        self, scores: torch.Tensor, delta_scores: Sequence[Sequence[torch.Tensor]]
    ) -> list[list[torch.Tensor]]:
        """Scores of the checkpoint's tokens [T, W] and of the deltas' -> per projection, per segment [T, share]."""
        own = scores.split(self.widths, dim=-1)
        return self._split([[part, *(delta[i] for delta in delta_scores)] for i, part in enumerate(own)])

    def _split(self, rows: Sequence[Sequence[torch.Tensor]]) -> list[list[torch.Tensor]]:
        """Per projection the columns of the checkpoint's tokens [T, n] and then the deltas' -> per segment, views."""
        return [
            [*own.split(shard.shares, dim=-1), *deltas] for (own, *deltas), shard in zip(rows, self.shards, strict=True)
        ]

    def _weights(self, columns: list[list[torch.Tensor]], selection: Selection) -> list[list[torch.Tensor]]:
        """The row operation in PyTorch: per projection the weights of the checkpoint's tokens [T, n], then deltas'."""
        weights = token_weights(columns, selection.for_projections(self.projections), self.activation, self.padding)
        count = len(self.shards[0].shares)
        return [[own[0] if count == 1 else torch.cat(own[:count], dim=-1), *own[count:]] for own in weights]

    def prepare_masks(self, members: torch.Tensor) -> None:
        """Make the tables of what members leave out, for the first step that has some. members: `Selection.members`."""
        if self.left_out is None and any(self.masked):
            self.left_out = [self._left_out(i) if masked else [] for i, masked in enumerate(self.masked)]
            if self.small_batch is not None:
                self.small_batch.leave_out([torch.cat(own, dim=1) if own else None for own in self.left_out], members)

    def _mask(self, weights: list[list[torch.Tensor]], members: torch.Tensor) -> None:
        """Set the weights that the rows' ensemble members leave out to zero, in place."""
        assert self.left_out is not None  # the model prepares them for every step with members
        for own, tables, masked in zip(self._split(weights), self.left_out, self.masked, strict=True):
            if masked:
                for weight, table in zip(own, tables, strict=True):
                    weight.masked_fill_(table[members], 0.0)

    def _left_out(self, index: int) -> list[torch.Tensor]:
        """The tokens of one projection that each member leaves out: per segment, bool [1 + members, share], row 0 none.

        A delta is the stage after the checkpoint's last, whichever others are loaded beside it.
        """
        shard, projection = self.shards[index], self.projections[index]
        counts = [*shard.counts, *(tokens[index].count for tokens in self.deltas.values())]
        stages = [*range(len(shard.counts)), *[len(shard.counts)] * len(self.deltas)]
        tables = []
        for count, stage in zip(counts, stages, strict=True):
            rows = [
                stage_mask(member, self.layer, projection, stage, count, self.ensemble_rate)
                for member in range(MAX_MEMBERS)
            ]
            kept = torch.stack([torch.ones(count, dtype=torch.bool, device="cpu"), *rows])
            own = TokenShard([count], self.tp_rank, self.tp_size).own(kept.t())
            tables.append((~own).t().contiguous().to(self.device))
        return tables

    def load_tokens(self, projection: str, part: str, tokens: torch.Tensor) -> str:
        """Load one official tensor, `part` key or value, tokens [n, d]; returns the name of the parameter filled."""
        index = self.projections.index(projection)
        shard = self.shards[index]
        if part == "key":
            keys: Any = self.key_tokens.weight
            keys.weight_loader(keys, shard.arrange(tokens), index)
            return "key_tokens.weight"
        values: Any = self.value_tokens[projection].weight
        values.weight_loader(values, shard.arrange(tokens).t())
        if self.keeps_values:
            self.kept_values = shard.own(tokens).to(self.device, self.dtype)
        return f"value_tokens.{projection}.weight"

    def add_delta(self, adapter_id: int, tokens: Mapping[str, tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Hold this rank's share of a delta: projection -> key and value tokens [n, d] in official order."""
        held = []
        for projection in self.projections:
            keys, values = tokens[projection]
            shard = TokenShard([len(keys)], self.tp_rank, self.tp_size)
            keys, values = (shard.own(part).to(self.device, self.dtype, copy=True) for part in (keys, values))
            held.append(DeltaTokens(keys, values, shard.is_padding.to(self.device), shard.token_count))
        self.deltas[adapter_id] = held
        self._lay_out()

    def remove_delta(self, adapter_id: int) -> None:
        del self.deltas[adapter_id]
        self._lay_out()

    def _lay_out(self) -> None:
        """Prepare what forward needs to know about the segments, once per load."""
        self.widths = [shard.local_count for shard in self.shards]
        self.left_out = None
        self.padding = []
        for i, shard in enumerate(self.shards):
            held = [tokens[i] for tokens in self.deltas.values()]
            own = shard.is_padding.to(self.device).split(shard.shares)
            self.padding.append([*own, *(delta.padding for delta in held)])
        self.kernel = self._make_kernel()
        self.small_batch = self._join_packed()

    def pack(self) -> None:
        """Pack the weights for CPUs when they are loaded; `packed` tells afterwards whether they are."""
        for layer in (self.key_tokens, *self.value_tokens.values()):
            pack_when_loaded(layer)

    def packed(self) -> None:
        """Called when all weights are final."""
        self.small_batch = self._join_packed()
        if all(has_rows(layer) for layer in self.value_tokens.values()):
            self.kept_values = None

    def _join_packed(self) -> PackedPattention | None:
        """The whole Pattention in one call for few rows; None unless all weights are packed and there are no deltas."""
        weights = [getattr(layer, "cpu_linear", None) for layer in (self.key_tokens, *self.value_tokens.values())]
        packed = [weight for weight in weights if isinstance(weight, PackedWeight)]
        if self.deltas or not isinstance(self.kernel, RowKernel) or len(packed) < len(weights):
            return None
        return PackedPattention(self.kernel, packed[0], packed[1:])

    def _make_kernel(self) -> RowKernel | SegmentedRows | None:
        """The row operation's kernel for this device; None where PyTorch does it."""
        if self.activation == "softmax":
            return None
        shares = [shard.shares for shard in self.shards]
        deltas = [[len(tokens[i].values) for tokens in self.deltas.values()] for i in range(len(shares))]
        if kernels.runs_on(self.device):
            sum_squares = sum_over_ranks if self.tp_size > 1 else None
            return SegmentedRows(self.projections, shares, deltas, self.activation, self.device, sum_squares)
        if self.device.type == "cpu" and self.tp_size == 1 and cpu_kernels.library() is not None:
            return RowKernel(self.projections, shares, deltas, self.activation, self.dtype)
        return None
