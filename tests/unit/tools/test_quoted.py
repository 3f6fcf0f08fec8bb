"""Figures inside sentences are those of the result files."""

from __future__ import annotations

import pytest

from scripts.quoted import figured, filled, quotations, read


def test_every_quoted_figure_is_that_of_its_result_file() -> None:
    quoted = quotations()
    pages = read(quoted)
    assert len(pages) > 2
    assert figured(dict(pages), quoted) == pages, "run: python -m scripts.quoted"


def test_a_sentence_may_be_broken_anywhere_and_keeps_its_breaks() -> None:
    page = "So it finds\nwrong answers with 0.70,\nmore than 50 % of them."
    new = filled(page, "finds wrong answers with {}, more than {} % of them.", [0.744, 61.4])
    assert new == "So it finds\nwrong answers with 0.74,\nmore than 61 % of them."


@pytest.mark.parametrize("page", ["nothing", "it is 0.10, and it is 0.20,"])
def test_a_sentence_must_be_there_once(page: str) -> None:
    with pytest.raises(ValueError, match="unpack"):
        filled(page, "it is {},", [0.5])
