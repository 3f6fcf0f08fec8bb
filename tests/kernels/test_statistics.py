"""Entropy, variance and margin by the kernels, against the PyTorch code."""

from __future__ import annotations

import pytest
import torch

from model_impl.kernels.gpu import operators as kernels
from model_impl.kernels.statistics import eager_token_statistics, token_statistics


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(3, 50277), (1, 4096), (2, 2, 4097), (5, 7), (4, 1), (0, 100)])
def test_statistics_equal_those_of_pytorch_for_any_vocabulary(
    shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> None:
    logits = (torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 5).to(device, dtype)
    found = kernels.token_statistics(logits)
    assert found.dtype == torch.float32 and found.shape == (*shape[:-1], 3)
    torch.testing.assert_close(found, eager_token_statistics(logits), rtol=2e-5, atol=2e-6)


def test_a_view_of_padded_logits(device: torch.device) -> None:
    padded = torch.randn(3, 5008, generator=torch.Generator().manual_seed(1)).to(device)
    logits = padded[:, :4999]
    torch.testing.assert_close(kernels.token_statistics(logits), eager_token_statistics(logits), rtol=2e-5, atol=2e-6)


def test_words_that_are_banned(device: torch.device) -> None:
    logits = torch.randn(4, 9000, generator=torch.Generator().manual_seed(2)).to(device)
    logits[0, 10:] = -torch.inf  # whole blocks
    logits[1, ::2] = -torch.inf
    logits[2, 1:] = -torch.inf  # one word is left
    logits[3, :8999] = -torch.inf
    found = kernels.token_statistics(logits)
    torch.testing.assert_close(found, eager_token_statistics(logits), rtol=2e-5, atol=2e-6)
    assert found[2:].tolist() == [[0, 0, 1], [0, 0, 1]]


def test_two_words_that_are_equally_likely(device: torch.device) -> None:
    logits = torch.full((2, 9000), -1000.0, device=device)
    logits[0, [5, 6]] = 3.0  # in one block
    logits[1, [5, 8999]] = 3.0  # in two
    ln2 = torch.tensor(2.0).log().item()
    torch.testing.assert_close(kernels.token_statistics(logits).cpu(), torch.tensor([[ln2, 0, 0], [ln2, 0, 0]]))


def test_large_logits_cancel_nothing(device: torch.device) -> None:
    logits = torch.randn(2, 9000, generator=torch.Generator().manual_seed(3)).to(device) * 0.01 + 30000
    torch.testing.assert_close(kernels.token_statistics(logits), eager_token_statistics(logits), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("value", [torch.nan, -torch.inf])
def test_what_is_no_distribution_has_no_statistics(value: float, device: torch.device) -> None:
    logits = torch.zeros(2, 5000, device=device)
    if value != value:
        logits[0, 4500] = value
    else:
        logits[0] = value
    found = kernels.token_statistics(logits)
    assert found[0, :2].isnan().all() and not found[1].isnan().any()


def test_only_what_is_on_a_gpu_is_given_to_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[torch.Tensor] = []
    monkeypatch.setattr(kernels, "token_statistics", lambda logits: given.append(logits) or "by the kernels")
    logits = torch.zeros(1, 3)
    assert token_statistics(logits)[0, 1] == 0 and not given
    monkeypatch.setattr(kernels, "runs_on", lambda device: True)
    assert token_statistics(logits) == "by the kernels" and given == [logits]
