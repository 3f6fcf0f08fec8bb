"""How texts are held out, and how long rows are."""

import pytest

from model_impl.texts import Text
from model_impl.training.data import chosen_row_tokens, split
from model_impl.training.recipe import Recipe


@pytest.mark.parametrize(
    ("count", "share", "held_out"), [(9, 0.01, 1), (2, 0.01, 1), (2, 0.99, 1), (1, 0.5, 0), (9, 0, 0), (20, 0.25, 5)]
)
def test_a_share_above_0_holds_out_a_text_where_there_are_two(count: int, share: float, held_out: int) -> None:
    kept, aside = split([Text(i, "A text.") for i in range(count)], Recipe(eval_share=share))
    assert (len(kept), len(aside)) == (count - held_out, held_out)


@pytest.mark.parametrize(
    ("batch_tokens", "parts", "replay", "row_tokens"),
    [(64, 1, False, 64), (200, 1, True, 64), (64, 1, True, 32), (64, 4, True, 16), (48, 1, False, 48)],
)
def test_rows_are_as_long_as_model_and_update_take(
    batch_tokens: int, parts: int, replay: bool, row_tokens: int
) -> None:
    assert chosen_row_tokens(Recipe(batch_tokens=batch_tokens), 64, parts, replay) == row_tokens
