"""Entropy, variance and margin against float64 on the same logits."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model_impl.kernels.statistics import token_statistics
from model_impl.wire import STATISTICS
from tests.support.exact import exact_statistics

RELEASED_VOCABULARY = 50_304
TOLERANCES = {"entropy": 1e-5, "variance": 1e-4, "margin": 1e-6}


def assert_exact(logits: torch.Tensor) -> None:
    found, exact = token_statistics(logits).double(), exact_statistics(logits)
    assert found.shape == (*logits.shape[:-1], len(STATISTICS))
    for column, name in enumerate(STATISTICS):
        error = (found[..., column] - exact[..., column]).abs().max().item()
        assert error <= TOLERANCES[name], f"{name} is {error:.2e} away"  # a NaN fails too


def random_logits(rows: int, words: int, scale: float, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, words, generator=torch.Generator().manual_seed(seed)) * scale


@pytest.mark.parametrize("words", [2, 371, RELEASED_VOCABULARY])
@pytest.mark.parametrize("scale", [1e-4, 0.1, 1.0, 3.0, 10.0, 40.0])
def test_statistics_of_random_distributions_are_exact(words: int, scale: float) -> None:
    assert_exact(random_logits(16, words, scale))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scale", [0.1, 3.0, 20.0])
def test_16_bit_logits(dtype: torch.dtype, scale: float) -> None:
    assert_exact(random_logits(8, RELEASED_VOCABULARY, scale).to(dtype))


@pytest.mark.parametrize("words", [2, 371, RELEASED_VOCABULARY])
@pytest.mark.parametrize("lead", [5.0, 10.0, 15.0, 20.0, 30.0, 80.0, 150.0])
def test_nearly_one_hot(words: int, lead: float) -> None:
    logits = random_logits(4, words, 0.5)
    logits[:, 1] = logits.amax(-1) + lead
    assert_exact(logits)


@pytest.mark.parametrize("words", [1, 2, 371, RELEASED_VOCABULARY])
def test_a_flat_distribution_has_maximal_entropy_and_no_variance(words: int) -> None:
    logits = torch.full((1, words), -3.25)
    assert_exact(logits)
    entropy, variance, _ = token_statistics(logits)[0].tolist()
    assert entropy == pytest.approx(math.log(words), abs=1e-5)
    assert variance == pytest.approx(0, abs=1e-9)


def test_exactly_one_hot() -> None:
    logits = torch.full((1, RELEASED_VOCABULARY), -torch.inf)
    logits[0, 7] = -12.5
    assert token_statistics(logits)[0].tolist() == [0.0, 0.0, 1.0]


def test_words_at_minus_infinity_count_for_nothing() -> None:
    logits = random_logits(4, 371, 3.0)
    banned = torch.cat([logits, torch.full((4, 13), -torch.inf)], dim=-1)
    torch.testing.assert_close(token_statistics(banned), token_statistics(logits), atol=1e-6, rtol=0)
    assert_exact(banned)


def test_two_words_with_half_the_mass_each() -> None:
    logits = torch.tensor([[0.0, 0.0, -torch.inf]])
    torch.testing.assert_close(token_statistics(logits)[0], torch.tensor([math.log(2), 0.0, 0.0]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("shift", [-4096.0, -512.0, 512.0, 4096.0])
def test_a_shift_changes_nothing(shift: float) -> None:
    logits = (random_logits(8, 2000, 3.0) * 256).round() / 256  # so that the sum is exact in float32
    torch.testing.assert_close(token_statistics(logits + shift), token_statistics(logits), atol=0, rtol=0)


def test_log_probabilities_serve_as_logits() -> None:
    logits = random_logits(8, RELEASED_VOCABULARY, 3.0)
    torch.testing.assert_close(
        token_statistics(logits.log_softmax(-1)), token_statistics(logits), atol=TOLERANCES["entropy"], rtol=1e-6
    )


def test_the_logits_stay_as_they_are() -> None:
    logits = random_logits(3, 50, 3.0)
    before = logits.clone()
    token_statistics(logits)
    assert torch.equal(logits, before)


finite = st.floats(-60, 60, width=32)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(finite, st.just(-math.inf)), max_size=60), finite)
def test_statistics_of_any_distribution_are_exact_and_in_bounds(logits: list[float], possible: float) -> None:
    rows = torch.tensor([[possible, *logits]])
    assert_exact(rows)
    entropy, variance, margin = token_statistics(rows)[0].tolist()
    words = 1 + sum(math.isfinite(z) for z in logits)
    assert 0 <= entropy <= math.log(words) + 1e-5
    assert variance >= 0
    assert 0 <= margin <= 1
