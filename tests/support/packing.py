"""Packed weights for tests, which must not depend on what a measurement on this machine chooses."""

from __future__ import annotations

import pytest
import torch

from model_impl.kernels.cpu import weights as packed_weight
from model_impl.kernels.cpu.weights import MAX_SMALL_BATCH, PackedWeight, pack


def skip_unless_packed(dtype: torch.dtype = torch.float32) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed_weight, "_small_batch", lambda *shape: MAX_SMALL_BATCH)
        if pack(torch.rand(64, 32).to(dtype)) is None:
            pytest.skip(f"oneDNN has no products of {dtype} on this processor, or packs their weights in another way")


def packed(weight: torch.Tensor) -> PackedWeight:
    """The packed weight, with our product up to `MAX_SMALL_BATCH` rows. Skips the test where nothing can be packed."""
    skip_unless_packed(weight.dtype)
    return PackedWeight(weight)
