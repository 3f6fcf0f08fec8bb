"""The compiled report of rows, against the formulas in float64."""

from __future__ import annotations

import pytest
import torch

from model_impl.kernels.cpu.report import ReportKernel, SegmentParts, likeliest_words
from model_impl.reference.attribution import logit_parts, rivals
from model_impl.reference.closed_form import STRONGEST, WORDS, logit_gradients, logit_variances
from tests.support.packing import packed

D, EPS, SCALE = 100, 1e-5, 0.015
DTYPES = [torch.float32, torch.bfloat16]


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 7), (3, 300), (20, 5000)])
def test_likeliest_words_are_those_of_topk(shape: tuple[int, int], dtype: torch.dtype) -> None:
    logits = torch.stack(
        [torch.randperm(shape[1], generator=torch.Generator().manual_seed(i)) for i in range(shape[0])]
    )
    logits = (logits - shape[1] // 2).to(dtype)
    count = min(WORDS, shape[1])
    values, ids = likeliest_words(logits, count)
    assert torch.equal(values, logits.topk(count, dim=-1).values.float())
    assert torch.equal(logits.gather(1, ids).float(), values)
    assert all(len(set(row)) == count for row in ids.tolist())


def test_words_that_are_banned_come_last() -> None:
    values, _ = likeliest_words(torch.tensor([[-torch.inf, 1.0, -torch.inf, 2.0]]), 4)
    assert values.tolist() == [[2.0, 1.0, -torch.inf, -torch.inf]]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("allowed", [0, 1, 15, 16, 17, 300])
def test_likeliest_words_are_found_among_banned_and_equal_ones(allowed: int, dtype: torch.dtype) -> None:
    logits = torch.full((2, 300), -torch.inf, dtype=dtype)
    logits[:, 300 - allowed :] = torch.randint(-3, 3, (2, allowed), generator=torch.Generator().manual_seed(1)).to(
        dtype
    )
    values, ids = likeliest_words(logits, WORDS)
    assert torch.equal(values, logits.topk(WORDS, dim=-1).values.float())
    assert torch.equal(logits.gather(1, ids).float(), values)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("segments", [1, 2, 3])
@pytest.mark.parametrize(("rows", "tokens", "vocabulary"), [(1, 300, 500), (5, 40, 20), (70, 300, 500), (2, 4000, 20)])
def test_columns_are_the_formulas(rows: int, tokens: int, vocabulary: int, segments: int, dtype: torch.dtype) -> None:
    values, head = normal(tokens, D, seed=1, dtype=dtype), normal(vocabulary, D, seed=2, dtype=dtype)
    norm, weights = 1 + normal(D, seed=3, dtype=dtype) / 4, normal(2 * rows, tokens, seed=4, dtype=dtype)
    residual, embedded = (normal(2 * rows, D, seed=seed, dtype=dtype) for seed in (5, 6))
    added = normal(2 * rows, segments - 1, D, seed=7)
    logits = residual.double() @ head.double().T / 10
    numbers = torch.randperm(2 * rows, generator=torch.Generator().manual_seed(8))[:rows]
    chosen = torch.randint(vocabulary, (rows,), generator=torch.Generator().manual_seed(9))
    found_words, ids = likeliest_words(logits[numbers].float(), min(WORDS, vocabulary))

    kernel = ReportKernel(packed(values.T.contiguous()), head, norm, EPS, SCALE)
    found = kernel([weights, residual, embedded, added], numbers, found_words, ids, chosen)

    x, w, p = residual[numbers].double(), weights[numbers].double(), found_words.double().softmax(dim=-1)
    strongest = w.abs().topk(min(STRONGEST, tokens), dim=-1).indices
    gradients = logit_gradients(x, p, head.double()[ids], norm.double(), EPS)
    spread = logit_variances(values.double()[strongest], p, gradients, w.gather(-1, strongest)).sum(dim=-1)
    # In bfloat16, weights of equal size compete for the last place among the strongest.
    error = 1e-4 if dtype == torch.float32 else 3e-2
    torch.testing.assert_close(found[:, 0].double(), SCALE * spread, rtol=error, atol=1e-9)

    if segments == 1:
        assert found.shape == (rows, 1)
        return
    rival = rivals(ids, chosen).double()
    direction = head.double()[chosen] - (rival[..., None] * head.double()[ids]).sum(-2) / rival.sum(-1, keepdim=True)
    others = added[numbers].double()
    parts = torch.cat([(x - embedded[numbers].double() - others.sum(dim=1))[:, None], others], dim=1)
    expected = logit_parts(parts, x, direction, norm.double(), EPS)
    torch.testing.assert_close(found[:, 1:-1].double(), expected, rtol=1e-4, atol=1e-4)
    assert not found[:, -1].any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("strong", [0, 10, STRONGEST, 300])
def test_of_weights_of_equal_size_as_many_are_counted_as_of_others(strong: int, dtype: torch.dtype) -> None:
    """All value tokens are alike, so that it does not matter which of them are taken."""
    head, values = normal(50, D, dtype=dtype), normal(1, D, seed=1, dtype=dtype).expand(300, D).contiguous()
    weights = torch.cat([torch.tensor([2.0, -2.0] * (strong // 2)), torch.tensor([-1.0, 1.0] * 150)])[:300]
    weights = weights[torch.randperm(300, generator=torch.Generator().manual_seed(2))].to(dtype)[None]
    residual = normal(1, D, seed=3, dtype=dtype)
    words, ids = likeliest_words(residual.float() @ head.float().T / 10, WORDS)
    kernel = ReportKernel(packed(values.T.contiguous()), head, torch.ones(D, dtype=dtype), EPS, SCALE)
    found = kernel([weights, residual, residual, torch.zeros(1, 0, D)], None, words, ids, ids[:, 0])

    p = words.double().softmax(dim=-1)
    gradients = logit_gradients(residual.double(), p, head.double()[ids], torch.ones(D).double(), EPS)
    taken = weights.double().abs().topk(STRONGEST).values
    spread = logit_variances(values.double()[None, :STRONGEST], p, gradients, taken).sum(dim=-1)
    torch.testing.assert_close(found[:, 0].double(), SCALE * spread, rtol=1e-4, atol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_in_order_need_no_numbers(dtype: torch.dtype) -> None:
    head, values = normal(50, D, dtype=dtype), normal(D, 40, seed=1, dtype=dtype)
    kernel = ReportKernel(packed(values), head, torch.ones(D, dtype=dtype), EPS, SCALE)
    matrices = [normal(3, 40, dtype=dtype), normal(3, D, dtype=dtype), normal(3, D, dtype=dtype), torch.zeros(3, 0, D)]
    words, chosen = likeliest_words(normal(3, 50), WORDS), torch.zeros(3, dtype=torch.int64)
    assert torch.equal(kernel(matrices, None, *words, chosen), kernel(matrices, torch.arange(3), *words, chosen))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [1, 9, 64])
def test_parts_of_several_layers_add_up(rows: int, dtype: torch.dtype) -> None:
    values = [normal(D, tokens, seed=tokens, dtype=dtype) for tokens in (40, 64)]
    weights = [normal(64, own.shape[1], dtype=dtype) for own in values]
    places = [range(10, 32), range(64)]
    out = torch.ones(rows, D)
    SegmentParts([packed(own) for own in values], weights, places)(out)
    expected = 1 + sum(
        w[:rows, place.start : place.stop].double() @ own[:, place.start : place.stop].double().T
        for own, w, place in zip(values, weights, places, strict=True)
    )
    torch.testing.assert_close(out.double(), expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("dtype", DTYPES)
def test_packed_weights_can_be_read_by_output_and_column(dtype: torch.dtype) -> None:
    weight = normal(150, 70, dtype=dtype)
    own, indices = packed(weight), torch.tensor([[0, 69], [63, 5]])
    assert torch.equal(own.columns(indices), weight.T[indices])
    assert torch.equal(own.rows(indices), weight[indices])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("place", [(0, 70), (2, 40), (3, 41)])
@pytest.mark.parametrize("rows", [1, 100])
def test_a_part_of_a_product(rows: int, place: tuple[int, int], dtype: torch.dtype) -> None:
    weight, x = normal(150, 70, dtype=dtype), normal(rows, 70, seed=1, dtype=dtype)
    expected = x[:, slice(*place)].double() @ weight[:, slice(*place)].double().T
    torch.testing.assert_close(packed(weight).part(x, *place).double(), expected, rtol=1e-4, atol=1e-3)
