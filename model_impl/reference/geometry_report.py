"""The geometry of a checkpoint's parameter tokens as a table, as JSON and as a plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from io import BytesIO
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from model_impl.checkpoint.inspection import aligned
from model_impl.reference.geometry import Directions, Row

KEYS, VALUES, RANDOM = "#0072b2", "#d55e00", "#767676"  # of the Okabe-Ito colours


def as_entries(rows: Sequence[Row]) -> list[dict[str, Any]]:
    return [
        row._asdict()
        | {name: asdict(getattr(row, name)) for name in ("keys", "values", "random")}
        | {"novelty": {name: new._asdict() for name, new in row.novelty.items()}}
        | {"use": row.use._asdict() if row.use else None}
        for row in rows
    ]


def table(rows: Sequence[Row]) -> str:
    """A line per projection of a layer: keys, values, and in brackets as many random tokens."""
    head = ["layer", "projection", "tokens", "coherence", "(keys, values)", "cos 99 %", "", "rank", ""]
    head += ["duplicates", "dead"]
    grown, used = any(row.novelty for row in rows), any(row.use for row in rows)
    head += ["new: nearest", "outside", "(values)", ""] if grown else []
    head += ["at work", "silent"] if used else []
    lines = [head]
    for row in rows:
        both, random = (row.keys, row.values), row.random
        line = [str(row.layer), row.projection, str(random.tokens)]
        for name, form in (("coherence", ".2f"), ("high_cosine", ".2f"), ("effective_rank", ".0f")):
            cells = [format(getattr(part, name), form) for part in both]
            line += [cells[0], f"{cells[1]} ({format(getattr(random, name), form)})"]
        line += ["/".join(str(getattr(part, name)) for part in both) for name in ("duplicates", "dead")]
        if grown:
            new = [row.novelty.get(name) for name in ("keys", "values")]
            line += [cell for n in new for cell in ((f"{n.nearest:.2f}", f"{n.outside:.2f}") if n else ("", ""))]
        if used:
            line += [f"{row.use.participation:.1f}", str(row.use.silent)] if row.use else ["", ""]
        lines.append(line)
    return "\n".join(aligned(lines))


def plot(rows: Sequence[Row]) -> bytes:
    """SVG: coherence and effective rank of keys and values, layer by layer, a panel per projection."""
    projections = list(dict.fromkeys(row.projection for row in rows))
    figure = Figure(figsize=(2.4 * len(projections), 4.4), layout="constrained")
    panels = figure.subplots(2, len(projections), sharex=True, sharey="row", squeeze=False)
    for column, projection in enumerate(projections):
        own = [row for row in rows if row.projection == projection]
        layers = [row.layer for row in own]
        for axes, name in zip(panels[:, column], ("coherence", "effective_rank"), strict=True):
            for part, colour in (("keys", KEYS), ("values", VALUES), ("random", RANDOM)):
                measures: list[Directions] = [getattr(row, part) for row in own]
                style = ":" if part == "random" else "-"
                found = [getattr(measure, name) for measure in measures]
                axes.plot(layers, found, style, color=colour, marker="." if style == "-" else None, label=part)
            axes.spines[["top", "right"]].set_visible(False)
        panels[0, column].set_title(projection, fontsize=10)
        panels[1, column].set_xlabel("layer")
    panels[0, 0].set_ylabel("coherence (random: 1)")
    panels[1, 0].set_ylabel("effective rank")
    panels[0, 0].legend(frameon=False, fontsize=8)
    stream = BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "geometry"}):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return stream.getvalue()
