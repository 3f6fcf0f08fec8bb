"""The closed form under study on real facts: which blocks, which units, and which aggregate of an answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from evals.matching import Flags, Values
from evals.real.figures import within
from evals.real.internals import Columns, sums
from evals.real.view import View
from server.calibrate.figures import auroc, ranked

AGGREGATES = {"first": lambda v: v[0], "max": np.max, "mean": np.mean}
UNITS = {
    "units": "all units",
    "strongest": "64 largest weights",
    "strongest effects": "64 largest effects",
    "block": "the block as one unit",
}


def study(view: View, found: Sequence[Columns]) -> Mapping[str, Any]:
    """AUROC of every sum, kind of units and aggregate, and of every single block with all units."""
    blocks = found[0]["units"].shape[-1]
    single = {f"block {block + 1} of {blocks}": [block] for block in range(blocks)}
    rows = {"country": view.kind == "country", "element": view.kind == "element"}
    result = {}
    for units, title in UNITS.items():
        for name, chosen in (sums(blocks) | (single if units == "units" else {})).items():
            tokens = [one[units][:, chosen].sum(axis=-1) for one in found]
            for how, aggregate in AGGREGATES.items():
                values = np.array([aggregate(one) for one in tokens])
                figures = {kind: both(view, of, values) for kind, of in rows.items()}
                result[f"{name}, {title}, {how}"] = {"cost": len(chosen), **figures}
    return result


def both(view: View, rows: Flags, values: Values) -> dict[str, float | None]:
    part = view.where(rows)
    return {"pooled": auroc(ranked(part.wrong, values[rows])), "within": within(part, values[rows])}
