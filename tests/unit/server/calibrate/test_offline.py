"""The number of positions that the offline engine is asked about at once."""

from hypothesis import given
from hypothesis import strategies as st

from server.calibrate.scoring import packed


@given(st.lists(st.integers(0, 30), max_size=20), st.integers(1, 40))
def test_batches_cover_every_token_once_in_order_and_are_not_too_large(lengths: list[int], most: int) -> None:
    batches = packed(lengths, most)
    tokens = [(part.text, i) for batch in batches for part in batch for i in range(part.start, part.stop)]
    assert tokens == [(text, i) for text, length in enumerate(lengths) for i in range(length)]
    sizes = [sum(part.stop - part.start for part in batch) for batch in batches]
    assert all(0 < size <= most for size in sizes)
    assert sizes[:-1] == [most] * (len(sizes) - 1) if sizes else not sum(lengths)
