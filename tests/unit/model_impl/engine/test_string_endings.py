"""Strings of JSON end where the model would end its answer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from vllm.v1.core.sched.output import GrammarOutput

from model_impl.engine.string_endings import StringEndings

QUOTE, LETTER, END, OTHER = 31, 34, 64, 70


class Bytes:
    """A tokenizer for the few texts that are asked of it."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        return [{'"': QUOTE, "x": LETTER}[text]]


def mask(*allowed: int) -> np.ndarray:
    found = np.zeros(3, dtype=np.uint32)
    for token_id in allowed:
        found[token_id // 32] |= np.uint32(1 << token_id % 32)
    return found.view(np.int32)


def closed(masks: list[np.ndarray], best: list[int], ends: dict[str, tuple[int, set[int]]]) -> list[list[int]]:
    """The masks of the requests "0", "1", ..., where the model would take `best` row by row."""
    logits = torch.zeros(len(best), 96)
    logits[range(len(best)), best] = 1
    given = np.stack(masks)
    before = given.copy()
    output = GrammarOutput([str(i) for i in range(len(masks))], given)
    found = StringEndings(Bytes()).close(output, logits, ends).grammar_bitmask
    assert (given == before).all(), "the scheduler's own masks stay as they are"
    return found.tolist()


INSIDE = (QUOTE, LETTER, OTHER)


def test_a_string_ends_where_the_model_would_end() -> None:
    assert closed([mask(*INSIDE)], [END], {"0": (0, {END})}) == [mask(QUOTE).tolist()]


@pytest.mark.parametrize(
    ("allowed", "best"),
    [
        (INSIDE, LETTER),  # the model goes on
        ((QUOTE, OTHER), END),  # between the parts of JSON
        ((LETTER, OTHER), END),  # the string must go on
        ((*INSIDE, END), END),  # the text may end
    ],
)
def test_elsewhere_everything_stays_allowed(allowed: tuple[int, ...], best: int) -> None:
    assert closed([mask(*allowed)], [best], {"0": (0, {END})}) == [mask(*allowed).tolist()]


def test_each_request_has_its_own_row_and_ends() -> None:
    inside = mask(*INSIDE)
    found = closed([inside, inside, inside], [END, OTHER, END], {"0": (2, {END}), "1": (1, {END}), "2": (0, {5})})
    assert found == [mask(QUOTE).tolist(), inside.tolist(), inside.tolist()]


def test_grammars_that_are_not_json_are_left_alone() -> None:
    inside = mask(*INSIDE)
    assert closed([inside, inside], [END, END], {"1": (1, {END})}) == [inside.tolist(), mask(QUOTE).tolist()]
