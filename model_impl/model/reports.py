"""The interface that the worker has to a model: the variants of its rows, and what it reports of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike

from model_impl.kernels.words import Words


class ReportingModel(Protocol):
    """`TokenformerForCausalLM`, or `StockReports` of another model."""

    def assign_variants(self, adapter_ids: ArrayLike, row_counts: ArrayLike, members: np.ndarray | None) -> None:
        """Tell the variant of every row of the next step, request by request."""

    def report_for(self, extra_args: Iterable[Mapping[str, Any] | None], rows: torch.Tensor | None) -> None:
        """Report of the next step's rows `rows` int64 [R] (None: of all), if one of its requests wants it."""

    def reported_width(self, extra_args: Mapping[str, Any] | None) -> int:
        """The number of columns that a request with these `extra_args` gets after its statistics."""

    def reported_columns(
        self, words: Callable[[], Words], chosen: torch.Tensor, rows: torch.Tensor | slice, width: int | None = None
    ) -> torch.Tensor:
        """The columns that the last step reports of N of its rows, with their likeliest words and the tokens `chosen`
        [N] after them: float32 [N, C], cut or filled up with zeros to `width` columns."""

    def compute_logits(self, hidden_states: torch.Tensor) -> torch.Tensor | None: ...
