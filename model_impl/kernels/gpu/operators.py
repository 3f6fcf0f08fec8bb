"""Triton kernels for GPUs: the row operation, Pattention in two or three kernels, and the statistics of logits.

Callers ask `runs_on` first and have the same in PyTorch. Triton is imported with the first call. Shapes alone decide
what is launched, and nothing waits for the GPU. To a compiler each function is one operator, as CUDA graphs and
torch.compile need it. The kernels are tested in Triton's interpreter and compiled for GPUs; they never ran on one.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec

import torch

from model_impl.kernels.gpu.layout import Layout
from model_impl.kernels.gpu.registration import operator


@cache
def _installed() -> bool:
    return find_spec("triton") is not None


def runs_on(device: torch.device) -> bool:
    """Whether the kernels take tensors of this device. Of activations, they know the two that have an L2 norm."""
    return device.type == "cuda" and _installed()


def row_operation(
    scores: torch.Tensor,
    layout: Layout,
    coupling: torch.Tensor,
    tau: torch.Tensor,
    activation: str,
    squares: torch.Tensor | None = None,
) -> torch.Tensor:
    """Scores [T, W] of `layout` -> weights [T, W] in the same dtype.

    coupling float32 [R, S, S] and tau float32 [R, P, S] are those of a `Selection`, R = T or 1. `squares`: the result
    of `segment_squares`, summed over the ranks, where there are several.
    """
    return row_operation_of(scores, layout.bounds, layout.alignment, coupling, tau, activation, squares)


def segment_squares(scores: torch.Tensor, layout: Layout, activation: str) -> torch.Tensor:
    """The sums of squares [T, P S] float32 that the norms of `row_operation` come from, of this rank's tokens."""
    return segment_squares_of(scores, layout.bounds, layout.alignment, activation)


@operator(lambda logits: logits.new_empty((*logits.shape[:-1], 3), dtype=torch.float32))
def token_statistics(logits: torch.Tensor) -> torch.Tensor:
    """As `model_impl.kernels.statistics.token_statistics`."""
    from model_impl.kernels.gpu.triton_statistics import token_statistics

    return token_statistics(logits)


@operator(lambda residual, *rest: residual.new_empty(len(residual), dtype=torch.float32))
def logit_spread(
    residual: torch.Tensor,
    head: torch.Tensor,
    norm: torch.Tensor,
    eps: float,
    ids: torch.Tensor,
    probabilities: torch.Tensor,
    values: torch.Tensor,
    tokens: torch.Tensor,
    weights: torch.Tensor,
) -> torch.Tensor:
    """The sum of `model_impl.reference.closed_form.logit_variances` over parameter tokens: float32 [N].

    residual [N, d] before the last norm, whose weight [d] and eps follow the head [V, d]; likely words' ids and
    probabilities [N, k]; values [d, n], of which `tokens` [N, m] count with their `weights` float32 [N, m].
    """
    from model_impl.kernels.gpu.triton_spread import logit_spread

    return logit_spread(residual, head, norm, eps, ids, probabilities, values, tokens, weights)


@operator(lambda scores, bounds, *rest: scores.new_empty((len(scores), len(bounds) - 1), dtype=torch.float32))
def segment_squares_of(scores: torch.Tensor, bounds: torch.Tensor, alignment: int, activation: str) -> torch.Tensor:
    from model_impl.kernels.gpu.triton_rows import segment_squares

    return segment_squares(scores, bounds, alignment, activation)


@operator(lambda scores, *rest: scores.new_empty(scores.shape))
def row_operation_of(
    scores: torch.Tensor,
    bounds: torch.Tensor,
    alignment: int,
    coupling: torch.Tensor,
    tau: torch.Tensor,
    activation: str,
    squares: torch.Tensor | None,
) -> torch.Tensor:
    from model_impl.kernels.gpu.triton_rows import row_operation

    return row_operation(scores, bounds, alignment, coupling, tau, activation, squares)
