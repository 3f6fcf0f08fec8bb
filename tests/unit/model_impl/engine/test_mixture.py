"""The worker's sums for an ensemble do not depend on the order and the chunks of its members."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy

from model_impl.engine.mixtures import ROWS_AT_ONCE, Mixtures, ScoredRows
from model_impl.wire import Membership

SIZE, START, STOP, WORDS = 3, 4, 13, 7
LOGITS = torch.randn(SIZE, STOP, WORDS, generator=torch.Generator().manual_seed(0)) * 3


def expected() -> np.ndarray:
    p = LOGITS[:, START:].double().softmax(-1).numpy()
    aleatoric = entropy(p, axis=-1).mean(axis=0)
    return np.stack([entropy(p.mean(axis=0), axis=-1) - aleatoric, aleatoric], axis=-1)


def run_member(mixtures: Mixtures, member: int, cuts: list[int]) -> None:
    """One member's prompt in chunks, as the worker adds them."""
    own = Membership("e", member, SIZE, START, START)
    for first, stop in zip([0, *cuts], [*cuts, STOP], strict=True):
        mixtures.add_step([ScoredRows(own, STOP, first, LOGITS[member, first:stop])], lambda rows: rows)


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_chunks_preemptions_and_order_do_not_matter(data: st.DataObject) -> None:
    mixtures = Mixtures()
    cuts = st.lists(st.integers(1, STOP - 1), unique=True).map(sorted)
    for member in data.draw(st.permutations(range(SIZE))):
        if data.draw(st.booleans()):  # preempted after a part, and run from the beginning again
            own, seen = Membership("e", member, SIZE, START, START), data.draw(st.integers(START + 1, STOP))
            mixtures.add_step([ScoredRows(own, STOP, 0, LOGITS[member, :seen])], lambda rows: rows)
        run_member(mixtures, member, data.draw(cuts))
    mixture = mixtures.take("e")
    assert mixture is not None
    np.testing.assert_allclose(mixture.result(), expected(), atol=1e-5)
    assert mixtures.take("e") is None


def test_nothing_comes_of_an_ensemble_with_a_member_missing() -> None:
    mixtures = Mixtures()
    run_member(mixtures, 0, [])
    run_member(mixtures, 2, [6])
    mixture = mixtures.take("e")
    assert mixture is not None
    with pytest.raises(RuntimeError, match="has not scored"):
        mixture.result()


def test_impossible_words_count_nothing() -> None:
    mixtures = Mixtures()
    for member in range(2):
        own = Membership("e", member, 2, 0, 0)
        mixtures.add(own, 1, 0, torch.tensor([[0.0, 0.0, -torch.inf]]))
    mixture = mixtures.take("e")
    assert mixture is not None
    assert mixture.result() == [[pytest.approx(0, abs=1e-6), pytest.approx(np.log(2))]]


def test_members_of_one_step_share_products_of_a_bounded_size() -> None:
    """A member may alone have more rows than one product takes."""
    lengths = [5, 7, 2 * ROWS_AT_ONCE + 3, ROWS_AT_ONCE]
    logits = torch.randn(len(lengths), max(lengths), WORDS, generator=torch.Generator().manual_seed(1))
    mixtures, products = Mixtures(), []

    def logits_of(rows: torch.Tensor) -> torch.Tensor:
        products.append(len(rows))
        return rows

    owns = [Membership(f"e{i}", 0, 1, 0, 0) for i in range(len(lengths))]
    parts = [ScoredRows(own, n, 0, logits[i, :n]) for i, (own, n) in enumerate(zip(owns, lengths, strict=True))]
    mixtures.add_step(parts, logits_of)
    assert (products[0], sum(products), max(products)) == (12, sum(lengths), ROWS_AT_ONCE)
    for i, length in enumerate(lengths):
        mixture = mixtures.take(f"e{i}")
        assert mixture is not None
        expected = entropy(logits[i, :length].double().softmax(-1).numpy(), axis=-1)
        np.testing.assert_allclose([row[1] for row in mixture.result()], expected, atol=1e-5)
