"""README.md has the figures of the result files."""

from __future__ import annotations

from scripts.readme import README, figured


def test_the_figures_are_those_of_the_result_files() -> None:
    page = README.read_text()
    assert figured(page) == page, "run: python -m scripts.readme"


def test_it_is_short() -> None:
    assert 850 < len(README.read_text().split()) < 1250
