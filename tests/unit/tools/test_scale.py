"""docs/scale.md has the figures of the result files, and names what there is."""

from __future__ import annotations

from scripts.scale import PAGE, figured


def test_the_figures_are_those_of_the_result_files() -> None:
    page = PAGE.read_text()
    assert figured(page) == page, "run: python -m scripts.scale"
