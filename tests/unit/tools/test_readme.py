"""README.md has the figures of the result files, and stays a page that one reads."""

from __future__ import annotations

import re

from scripts.readme import README, figured


def test_the_figures_are_those_of_the_result_files() -> None:
    page = README.read_text()
    assert figured(page) == page, "run: python -m scripts.readme"


def test_its_prose_is_short() -> None:
    page = re.sub(r"```.*?```", "", README.read_text(), flags=re.DOTALL)
    lines = [line for line in page.splitlines() if not line.startswith(("|", "<!--"))]
    assert 500 < len(" ".join(lines).split()) < 1000


def test_no_block_is_empty() -> None:
    assert "```json\n```" not in README.read_text()
