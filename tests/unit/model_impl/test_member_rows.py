"""The ensemble member of every row of a step."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from model_impl.variants import member_rows
from model_impl.wire import Membership

MEMBERSHIPS = st.none() | st.builds(
    Membership, st.just("e"), st.integers(0, 63), st.just(64), st.integers(0, 9), st.just(9)
)


@given(st.lists(st.tuples(MEMBERSHIPS, st.integers(0, 12), st.integers(1, 5)), min_size=1))
def test_rows_from_the_first_masked_position_on_are_the_members(step: list[tuple[Membership | None, int, int]]) -> None:
    memberships, firsts, counts = zip(*step, strict=True)
    expected = [
        0 if own is None or position < own.masked_from else own.member + 1
        for own, first, count in step
        for position in range(first, first + count)
    ]
    found = member_rows(memberships, firsts, counts)
    assert (found is None) == (not any(expected))
    if found is not None:
        assert found.tolist() == expected
