"""The spread of logits by the kernel, against the formulas in float64."""

from __future__ import annotations

import pytest
import torch

from model_impl.kernels.gpu import operators as kernels
from model_impl.reference.closed_form import logit_gradients, logit_variances
from tests.kernels.cases import normal

EPS = 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("rows", "width", "tokens", "words", "strongest"), [(3, 96, 300, 32, 64), (1, 20, 9, 5, 9), (0, 64, 64, 32, 64)]
)
def test_the_spread_is_the_formula(
    rows: int, width: int, tokens: int, words: int, strongest: int, dtype: torch.dtype, device: torch.device
) -> None:
    vocabulary = 60
    residual, head = (normal(n, width, seed=n).to(device, dtype) for n in (rows, vocabulary))
    norm, values = (1 + normal(width, seed=3) / 4).to(device, dtype), normal(width, tokens, seed=4).to(device, dtype)
    generator = torch.Generator().manual_seed(0)
    ids = torch.rand(rows, vocabulary, generator=generator).topk(words, dim=-1).indices
    chosen = torch.randint(tokens, (rows, strongest), generator=generator)
    ids, chosen, weights = ids.to(device), chosen.to(device), normal(rows, strongest, seed=5).to(device)
    p = normal(rows, words, seed=6).softmax(dim=-1).to(device)

    found = kernels.logit_spread(residual, head, norm, EPS, ids, p, values, chosen, weights)
    gradients = logit_gradients(residual.double(), p.double(), head.double()[ids], norm.double(), EPS)
    expected = logit_variances(values.double().T[chosen], p.double(), gradients, weights.double()).sum(dim=-1)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-6)


def test_the_operator_is_fit_for_compilers(device: torch.device) -> None:
    ids = torch.arange(5, device=device).expand(2, -1).contiguous()
    residual, head, norm = normal(2, 20).to(device), normal(30, 20).to(device), torch.ones(20, device=device)
    arguments = (residual, head, norm, EPS, ids, ids.float() / 10, normal(20, 9).to(device), ids, ids.float())
    torch.library.opcheck(torch.ops.tokenformer.logit_spread, arguments)
