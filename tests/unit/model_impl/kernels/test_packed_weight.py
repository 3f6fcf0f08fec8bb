"""Products with packed weights equal PyTorch's for any number of rows; weights in another layout are refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from model_impl.kernels.cpu import weights as packed_weight
from model_impl.kernels.cpu.library import DTYPES
from model_impl.kernels.cpu.weights import FILLED_UP, MAX_SMALL_BATCH, STEP, empty_rows, pack, rounded_up
from tests.support.packing import packed, skip_unless_packed


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [*range(8), MAX_SMALL_BATCH, MAX_SMALL_BATCH + 1, 300])
@pytest.mark.parametrize("shape", [(64, 32), (480, 128), (50277, 64), (128, 3072), (100, 36)])
def test_any_number_of_rows(shape: tuple[int, int], rows: int, dtype: torch.dtype) -> None:
    weight, x = (
        torch.randn(shape, generator=seeded()).to(dtype),
        torch.randn(rows, shape[1], generator=seeded()).to(dtype),
    )
    found = packed(weight)(x)
    assert found.dtype == dtype
    error = {"rtol": 2**-7, "atol": 2e-2} if dtype == torch.bfloat16 else {"rtol": 1e-4, "atol": 1e-3}
    torch.testing.assert_close(found.double(), F.linear(x.double(), weight.double()), **error)


class OneDNNRows(TorchDispatchMode):
    """Records the number of rows of every product by oneDNN."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.ops.mkldnn._linear_pointwise.default:
            self.seen.add(len(args[0]))
        return function(*args, **(kwargs or {}))


def test_onednn_sees_few_numbers_of_rows() -> None:
    weight = packed(torch.randn(64, 32, generator=seeded()))
    with OneDNNRows() as rows:
        for count in range(MAX_SMALL_BATCH + 1, FILLED_UP + 2):
            assert weight(torch.zeros(count, 32)).shape == (count, 64)
    assert rows.seen == {*range(MAX_SMALL_BATCH + STEP, FILLED_UP + 1, STEP), FILLED_UP + 1}


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_lies_behind_the_rows_changes_nothing(dtype: torch.dtype) -> None:
    weight = packed(torch.randn(64, 32, generator=seeded()).to(dtype))
    x = empty_rows(MAX_SMALL_BATCH + 1, 32, dtype)
    x.as_strided((rounded_up(len(x)), 32), (32, 1)).fill_(torch.nan)
    x.copy_(torch.randn(x.shape, generator=seeded()))
    found = weight(x)
    torch.testing.assert_close(found, weight(x.clone()), rtol=0, atol=0)
    assert found.isfinite().all()


def test_what_inference_left_behind_serves_any_mode() -> None:
    weight, x = packed(torch.randn(64, 32, generator=seeded())), torch.randn(MAX_SMALL_BATCH + 1, 32)
    packed_weight._copies.clear()
    with torch.inference_mode():
        expected = weight(x)
    torch.testing.assert_close(weight(x), expected, rtol=0, atol=0)


def test_rows_that_do_not_lie_side_by_side() -> None:
    weight, x = torch.randn(64, 32), torch.randn(32, 2)
    torch.testing.assert_close(packed(weight)(x.t()), x.t() @ weight.t(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "weight", [torch.zeros(0, 32), torch.zeros(64, 33, dtype=torch.bfloat16), torch.zeros(64, 32, dtype=torch.float16)]
)
def test_what_the_kernel_cannot_read_is_not_taken(weight: torch.Tensor) -> None:
    assert pack(weight) is None


@pytest.mark.parametrize("dtype", DTYPES)
def test_more_rows_than_our_product_wins_are_multiplied_by_onednn(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    skip_unless_packed(dtype)
    monkeypatch.setattr(packed_weight, "_small_batch", lambda *shape: 4)
    weight = torch.randn(64, 32, generator=seeded()).to(dtype)
    found = pack(weight)
    assert found is not None
    with OneDNNRows() as rows:
        for count in range(1, 10):
            x = torch.randn(count, 32, generator=seeded()).to(dtype)
            torch.testing.assert_close(found(x).float(), F.linear(x.float(), weight.float()), rtol=2**-7, atol=2e-2)
    assert rows.seen == {8, 16}


def test_a_weight_by_which_our_product_never_wins_is_left_to_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    skip_unless_packed()
    monkeypatch.setattr(packed_weight, "_small_batch", lambda *shape: 0)
    assert pack(torch.randn(64, 32)) is None


def test_another_layout_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A layout as of another processor: the test changes the expectation, not oneDNN."""
    monkeypatch.setattr(packed_weight, "_panel", lambda rows: rows.flatten())
    assert pack(torch.randn(64, 32, generator=seeded())) is None


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(4)
