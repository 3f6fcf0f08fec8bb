"""The statistics as compiled for CPUs are those of PyTorch, and those of the definition in float64."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest
import torch

from model_impl.kernels.cpu import library as cpu_kernels
from model_impl.kernels.statistics import eager_token_statistics
from tests.support.exact import exact_statistics


def test_they_are_built() -> None:
    """Set-up has a C compiler; without one, everything would quietly take the slow way."""
    assert cpu_kernels.library() is not None


@pytest.mark.parametrize("dtype", cpu_kernels.DTYPES)
@pytest.mark.parametrize("scale", [0.01, 1.0, 5.0, 50.0])
@pytest.mark.parametrize("rows", [0, 1, 3, 40])
@pytest.mark.parametrize("width", [1, 2, 15, 16, 17, 1024, 50277])
def test_any_number_of_rows_and_words(width: int, rows: int, scale: float, dtype: torch.dtype) -> None:
    logits = (torch.randn(rows, width, generator=seeded()) * scale - 30).to(dtype)
    assert cpu_kernels.supports(logits)
    found = cpu_kernels.token_statistics(logits)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, eager_token_statistics(logits), rtol=2e-5, atol=2e-6)
    torch.testing.assert_close(found.double(), exact_statistics(logits.double()), rtol=1e-5, atol=2e-6)


def test_words_without_probability_count_for_nothing() -> None:
    logits = torch.randn(2, 100, generator=seeded())
    logits[0, 7:] = -torch.inf
    logits[1, :99] = -torch.inf
    expected = exact_statistics(logits[:1, :7].double())[0].tolist()
    found = cpu_kernels.token_statistics(logits)
    assert found[0].tolist() == pytest.approx(expected, rel=1e-5)
    assert found[1].tolist() == [0, 0, 1]


def test_what_is_no_distribution_has_no_statistics() -> None:
    logits = torch.zeros(4, 33)
    logits[0, 32], logits[1, 0] = torch.nan, torch.inf
    logits[2] = -torch.inf
    found = cpu_kernels.token_statistics(logits)
    assert found[:3].isnan().all()
    assert found[3].isfinite().all()


def test_rows_that_lie_apart_and_stacks_of_them() -> None:
    logits = torch.randn(4, 3, 60, generator=seeded())
    expected = eager_token_statistics(logits[..., 5:50])
    torch.testing.assert_close(cpu_kernels.token_statistics(logits[..., 5:50]), expected, rtol=2e-5, atol=2e-6)
    columns = logits[0].t()
    torch.testing.assert_close(
        cpu_kernels.token_statistics(columns), eager_token_statistics(columns), rtol=2e-5, atol=2e-6
    )


@pytest.mark.parametrize("dtype", cpu_kernels.DTYPES)
@pytest.mark.parametrize("rows", [1, 20])
@pytest.mark.parametrize("width", [1, 17, 1024, 50277])
def test_chosen_tokens_beside_their_statistics(width: int, rows: int, dtype: torch.dtype) -> None:
    logits = (torch.randn(rows, width, generator=seeded()) * 3).to(dtype)  # in bfloat16 many are equal
    chosen = torch.randint(width, (rows,), generator=seeded())
    chosen[0] = logits[0].argmax()
    found, ranks = cpu_kernels.chosen_and_statistics(logits, chosen, 6)
    assert found.shape == (rows, 6)
    own = chosen.unsqueeze(-1)
    torch.testing.assert_close(found[:, :1], logits.float().log_softmax(-1).gather(-1, own), rtol=1e-5, atol=1e-5)
    assert torch.equal(found[:, 1:4], cpu_kernels.token_statistics(logits))
    assert torch.equal(ranks, (logits >= logits.gather(-1, own)).sum(-1))


def test_a_chosen_token_without_probability() -> None:
    logits = torch.tensor([[0.0, -torch.inf, 0.0], [torch.nan, 0.0, 0.0]])
    found, ranks = cpu_kernels.chosen_and_statistics(logits, torch.tensor([1, 1]), 4)
    assert found[0, 0] == -torch.inf
    assert ranks[0] == 3
    assert found[1].isnan().all()


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(4)


ADDRESS, DOUBLE = ctypes.c_void_p, ctypes.c_double


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ([("weight", ADDRESS), ("bias", ADDRESS), ("eps", DOUBLE), ("gain", DOUBLE)], "the offset of gain is 24 here"),
        ([("weight", ADDRESS), ("bias", ADDRESS)], "the size is 16 here and 24 there"),
        ([("bias", ADDRESS), ("weight", ADDRESS), ("eps", DOUBLE)], "the offset of bias is 0 here and 8 there"),
    ],
)
def test_a_structure_with_other_fields_than_the_compiled_one_is_refused(fields: list[Any], message: str) -> None:
    mirror = type("OtherNorm", (ctypes.Structure,), {"_fields_": fields})
    with pytest.raises(cpu_kernels.LayoutError, match=f"OtherNorm is not the structure norm .* {message}"):
        cpu_kernels.mirrors("norm")(mirror)
