"""docs/performance.md has the figures of the result files."""

from __future__ import annotations

import pytest

from scripts.performance import PAGE, Target, figured


def test_the_figures_are_those_of_the_result_files() -> None:
    page = PAGE.read_text()
    assert figured(page) == page, "run: python -m scripts.performance"


@pytest.mark.parametrize(
    ("limit", "most", "verdict"),
    [
        (0.9, False, "yes"),
        (1.0, False, "1 of 2"),
        (1.2, False, "no"),
        (1.1, True, "yes"),
        (0.95, True, "1 of 2"),
        (0.5, True, "no"),
    ],
)
def test_a_target_counts_the_figures_that_meet_it(limit: float, most: bool, verdict: str) -> None:
    figures = {"demo at 1": 0.94, "demo at 16": 1.04}
    bound = f"at {'most' if most else 'least'} {limit:g}"
    assert Target("speed", limit, figures, "x", most).row() == [
        "speed",
        bound,
        "demo at 1 0.94, demo at 16 1.04",
        verdict,
        "x",
    ]
