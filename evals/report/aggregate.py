"""Figures over several seeds: mean and spread, selection on some seeds, and lookup by path."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

DEVELOPMENT = (0, 1)
"""Seeds on which signals and settings are chosen; targets are judged on the others."""


@dataclass(frozen=True)
class Results:
    """The JSON files of the seeds that have been scored, in their order."""

    seeds: dict[int, dict[str, Any]]

    @staticmethod
    def load(directory: Path) -> Results:
        found = [json.loads(file.read_text()) for file in sorted(directory.glob("seed-*.json"))]
        return Results({figures["seed"]: figures for figures in found})

    def __getitem__(self, seeds: Iterable[int]) -> Results:
        return Results({seed: self.seeds[seed] for seed in seeds if seed in self.seeds})

    @property
    def development(self) -> Results:
        return self[DEVELOPMENT]

    @property
    def held_out(self) -> Results:
        return self[[seed for seed in self.seeds if seed not in DEVELOPMENT]]

    @property
    def paired(self) -> Results:
        """The seeds that have a twin, the only fair ones for a comparison with it."""
        return self[[seed for seed, figures in self.seeds.items() if "twin" in figures["models"]]]

    def values(self, model: str, *path: str) -> dict[int, float]:
        """The number at models/model/path of every seed that has it; of an interval, its value."""
        found = {}
        for seed, figures in self.seeds.items():
            node: Any = figures["models"].get(model)
            for step in path:
                node = node.get(step) if node else None
            if node is not None:
                found[seed] = node["value"] if isinstance(node, dict) else node
        return found

    def names(self, model: str, *path: str) -> list[str]:
        """The keys at a path, in the order of the first seed that has it."""
        for figures in self.seeds.values():
            node: Any = figures["models"].get(model)
            for step in path:
                node = node.get(step) if node else None
            if node:
                return list(node)
        return []

    def best(self, names: Sequence[str], model: str, *path: str, after: Sequence[str] = ()) -> str:
        """The name with the highest mean over these seeds; `path`, the name, then `after`."""
        return max(names, key=lambda name: mean(self.values(model, *path, name, *after).values() or [0.0]))


def spread(values: dict[int, float], digits: int = 3) -> str:
    """`0.931 ± 0.012` over seeds, or a single value, or a dash."""
    if not values:
        return "-"
    if len(values) == 1:
        return f"{next(iter(values.values())):.{digits}f}"
    return f"{mean(values.values()):.{digits}f} ± {stdev(values.values()):.{digits}f}"
