"""The model around the kernels for GPUs. PyTorch stands in for the kernels, which tests/kernels checks against it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch

from model_impl.kernels.gpu import operators as kernels
from model_impl.kernels.gpu import rows as segmented_rows
from model_impl.kernels.gpu.layout import Layout
from model_impl.kernels.statistics import eager_token_statistics
from model_impl.reference.row_operation import token_weights
from model_impl.variants import Selection
from tests.engine.test_stages import check_mixed_batch, open_family

pytestmark = pytest.mark.engine


def row_operation(
    scores: torch.Tensor,
    layout: Layout,
    coupling: torch.Tensor,
    tau: torch.Tensor,
    activation: str,
    squares: torch.Tensor | None,
) -> torch.Tensor:
    """As `kernels.row_operation`."""
    projections, segments = tau.shape[1:]
    widths = [stop - start for start, stop in pairwise(layout.bounds.tolist())]
    parts = scores.split(widths, dim=-1)
    rows = [parts[p * segments : (p + 1) * segments] for p in range(projections)]
    weights = [own for row in token_weights(rows, Selection(coupling, tau), activation, []) for own in row]
    return torch.cat(weights, dim=-1)


def test_stages_and_siblings_mix_in_one_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def counted(scores: torch.Tensor, *rest: object) -> torch.Tensor:
        calls.append(len(scores))
        return row_operation(scores, *rest)

    monkeypatch.setattr(kernels, "runs_on", lambda device: True)
    monkeypatch.setattr(kernels, "token_statistics", eager_token_statistics)
    monkeypatch.setattr(segmented_rows, "row_operation", counted)
    with open_family(tmp_path, "l2_norm_gelu") as opened:
        check_mixed_batch(opened)
    assert calls
