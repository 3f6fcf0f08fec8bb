"""The closed form of epistemic uncertainty for models that are no Tokenformer.

The hidden units of an MLP are to its down projection what parameter tokens are to Pattention: unit i adds w_i v_i to
the residual stream, w_i its activation and v_i a column of the down projection. So the formula of
`model_impl.reference.closed_form` holds for them, of a few late blocks and with the blocks after them held fixed. Hooks
read the units, and the residual stream before the last norm.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from torch import nn
from vllm.config import CompilationMode, CUDAGraphMode, VllmConfig
from vllm.distributed import get_pp_group
from vllm.model_executor.layers.layernorm import GemmaRMSNorm, LayerNorm
from vllm.model_executor.layers.linear import RowParallelLinear
from vllm.model_executor.layers.vocab_parallel_embedding import UnquantizedEmbeddingMethod

from model_impl.config import ENSEMBLE_RATE
from model_impl.kernels.words import Words
from model_impl.model.report import AT_ONCE, head_rows, strongest
from model_impl.reference.closed_form import logit_gradients, logit_variances
from model_impl.reference.row_operation import sum_over_ranks
from model_impl.stock import PARTS, Parts, counted_blocks
from model_impl.wire import EPISTEMIC, wants_report

Summands = Sequence[torch.Tensor | None]
"""Inputs of a module, which vLLM's norms add up: the residual stream comes as one or two of them."""


class Norm(NamedTuple):
    """The last norm: its factor [d], its eps, and whether it subtracts the mean."""

    weight: torch.Tensor
    eps: float
    centred: bool

    @classmethod
    def of(cls, module: Any) -> Norm:
        weight = module.weight.float()
        eps = next(getattr(module, name) for name in ("variance_epsilon", "eps") if hasattr(module, name))
        return cls(weight + 1 if isinstance(module, GemmaRMSNorm) else weight, eps, is_centred(module))


def is_centred(norm: nn.Module) -> bool:
    return isinstance(norm, nn.LayerNorm | LayerNorm)


class HiddenUnits:
    """The hidden units of one MLP, read before its down projection."""

    def __init__(self, down: Any, keep: Callable[[str, Summands], None], name: str) -> None:
        own = getattr(down, "base_layer", down)  # of one with LoRA adapters
        self.sharded = isinstance(own, RowParallelLinear)
        self.values = value_rows(own)
        self.name = name
        down.register_forward_pre_hook(lambda module, inputs: keep(name, inputs[:1]))

    def spread(self, weights: torch.Tensor, probabilities: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
        """The sum of `logit_variances` [N] of the units [N, n] of this rank."""
        indices, found = strongest(weights)
        own = logit_variances(self.values[indices].float(), probabilities, gradients, found).sum(dim=-1)
        return sum_over_ranks(own) if self.sharded else own


def value_rows(down: Any) -> torch.Tensor:
    """The vectors [n, d] that this rank's units add to the residual stream, in the dtype of the model.

    The product of the layer itself tells: its weight may be packed or quantised.
    """
    count = getattr(down, "input_size_per_partition", down.input_size)
    numbers = torch.arange(count, device=next(down.parameters()).device)
    return torch.cat(
        [down.quant_method.apply(down, ones(some, count, down.params_dtype)) for some in numbers.split(AT_ONCE)]
    )


def ones(numbers: torch.Tensor, count: int, dtype: torch.dtype) -> torch.Tensor:
    """Units alone [N, count], those of these numbers."""
    return F.one_hot(numbers, count).to(dtype)


def is_plain(head: Any) -> bool:
    """Whether the rows of the head can be read."""
    return isinstance(head.quant_method, UnquantizedEmbeddingMethod)


class StockReports:
    """The `ReportingModel` of another model of vLLM."""

    def __init__(self, model: Any, config: VllmConfig) -> None:
        self.model = model
        self.kept: dict[str, torch.Tensor] = {}
        """Readings of the hooks in the last step, by name: the units of a block [R, n], the residual stream [R, d]."""
        self.reporting = False
        self.rows: torch.Tensor | None = None
        compilation = config.compilation_config
        graphs = compilation.cudagraph_mode not in (None, CUDAGraphMode.NONE)
        self.traced = compilation.mode != CompilationMode.NONE or graphs
        """Whether a forward is compiled or captured. It then leaves no objects behind: the hooks, which are part of it,
        copy every row into buffers."""
        self.units: Sequence[HiddenUnits] = ()
        parts = next((PARTS[name] for name in config.model_config.architectures if name in PARTS), None)
        if parts is not None and get_pp_group().world_size == 1 and is_plain(model.lm_head):
            self._hook(parts, config.scheduler_config.max_num_batched_tokens)

    def _hook(self, parts: Parts, rows: int) -> None:
        modules = dict(self.model.named_modules())
        pattern = re.compile(rf"(?:.*\.)?(\d+)\.{re.escape(parts.down)}")
        downs = {int(found[1]): own for name, own in modules.items() if (found := pattern.fullmatch(name))}
        norm = next(own for name, own in modules.items() if re.fullmatch(rf"\D*\b{parts.norm}", name))
        self.head, self.norm = self.model.lm_head, Norm.of(norm)
        self.units = [HiddenUnits(downs[block], self.keep, f"units_{block}") for block in counted_blocks(len(downs))]
        norm.register_forward_pre_hook(lambda module, inputs: self.keep("residual", inputs))
        if self.traced:
            some, width = self.units[0].values, self.norm.weight.shape[0]
            self.kept = {own.name: some.new_zeros(rows, len(own.values)) for own in self.units}
            self.kept["residual"] = some.new_zeros(rows, width)

    def keep(self, name: str, summands: Summands) -> None:
        """Keep a sum of the step's rows [T, n]; vLLM's Transformers models have one more dimension."""
        if not (self.traced or self.reporting):
            return
        own = sum_of([part.reshape(-1, part.shape[-1]) for part in summands if part is not None], self.rows)
        if self.traced:
            self.kept[name][: own.shape[0]].copy_(own)
        else:
            self.kept[name] = own

    def assign_variants(self, adapter_ids: ArrayLike, row_counts: ArrayLike, members: np.ndarray | None) -> None:
        """There is one variant; the rows of LoRA adapters are vLLM's own matter."""

    def report_for(self, extra_args: Iterable[Mapping[str, Any] | None], rows: torch.Tensor | None) -> None:
        if not self.traced:
            self.kept.clear()
            self.reporting, self.rows = bool(self.units) and any(map(wants_report, extra_args)), rows

    def reported_width(self, extra_args: Mapping[str, Any] | None) -> int:
        return len(EPISTEMIC) if self.units and wants_report(extra_args) else 0

    def reported_columns(
        self, words: Callable[[], Words], chosen: torch.Tensor, rows: torch.Tensor | slice, width: int | None = None
    ) -> torch.Tensor:
        if not self.kept:
            return chosen.new_zeros((len(chosen), width or 0), dtype=torch.float32)
        picked = slice(0, len(chosen)) if self.rows is not None else rows
        kept = {name: own[picked] for name, own in self.kept.items()}
        parts = zip(*(own.split(AT_ONCE) for own in words()), strict=True)
        found = [
            self._epistemic({name: own[part * AT_ONCE :][:AT_ONCE] for name, own in kept.items()}, Words(*some))
            for part, some in enumerate(parts)
        ]
        columns = torch.cat(found)[:, None]
        return columns if width is None else F.pad(columns[:, :width], (0, max(width - 1, 0)))

    def _epistemic(self, kept: Mapping[str, torch.Tensor], words: Words) -> torch.Tensor:
        """Float32 [N] of at most AT_ONCE rows."""
        probabilities = words.logits.softmax(dim=-1)
        heads = head_rows(self.head, words.ids)
        weight, eps, centred = self.norm
        gradients = logit_gradients(kept["residual"].float(), probabilities, heads, weight, eps, centred=centred)
        spreads = [units.spread(kept[units.name], probabilities, gradients) for units in self.units]
        return ENSEMBLE_RATE * (1 - ENSEMBLE_RATE) / 2 * torch.stack(spreads).sum(dim=0)

    def compute_logits(self, hidden_states: torch.Tensor) -> torch.Tensor | None:
        return cast(torch.Tensor | None, self.model.compute_logits(hidden_states))


def sum_of(parts: Sequence[torch.Tensor], rows: torch.Tensor | None) -> torch.Tensor:
    """The sum of these rows (None: of all) of one or two matrices [T, n]."""
    first, *rest = parts if rows is None else [part[rows] for part in parts]
    return first + rest[0] if rest else first
