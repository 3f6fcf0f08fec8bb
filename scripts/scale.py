"""Writes the tables of docs/scale.md from result files: `python -m scripts.scale`.

Each stands between comments that name this file.
"""

from __future__ import annotations

import json
from typing import Any

from loadtest.affinity import turns
from loadtest.capacity_report import assumptions, capacities, checks
from scripts.readme import LOADS, ROOT, filled

PAGE = ROOT / "docs" / "scale.md"


def figures(name: str) -> Any:
    return json.loads((LOADS / f"{name}.json").read_text())


def figured(page: str) -> str:
    """The page with the figures of the result files."""
    capacity, affinity = figures("capacity"), figures("affinity")
    tables = {
        "turns": turns(affinity),
        "capacity": f"{capacities(capacity)}\n\n{assumptions(capacity)}",
        "checks": checks(capacity),
    }
    for name, content in tables.items():
        page = filled(page, name, content, "scripts/scale.py")
    return page


if __name__ == "__main__":
    PAGE.write_text(figured(PAGE.read_text()))
