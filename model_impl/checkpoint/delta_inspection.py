"""`tokenformer inspect` of a growth delta: what it adds, and to which base."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from model_impl.checkpoint.delta import load_delta
from model_impl.checkpoint.inspection import aligned
from model_impl.config import PROJECTIONS


def inspect_delta(path: str | Path) -> dict[str, Any]:
    """The facts of a growth delta's directory, as `inspect_checkpoint` tells those of a checkpoint.

    Raises CheckpointError if the directory is no readable delta.
    """
    delta = load_delta(path)
    return {
        "delta": str(path),
        "stage": delta.name,
        "group": delta.stage.norm_group,
        "base_fingerprint": delta.base_fingerprint,
        "base_stages": list(delta.base_stages),
        "layers": delta.num_hidden_layers,
        "hidden_size": delta.hidden_size,
        "activation": delta.norm_activation_type,
        "dtype": ", ".join(sorted({str(tensor.dtype).removeprefix("torch.") for _, tensor in delta.tensors()})),
        "file_bytes": len(delta.content),
        "parameters": sum(math.prod(shape) for shape in delta.expected_tensors().values()),
        "tokens": {projection: delta.stage.tokens[projection] for projection in PROJECTIONS},
    }


def format_delta(report: dict[str, Any]) -> str:
    """The report of `inspect_delta` as text."""
    facts = [
        ("growth delta", report["delta"]),
        ("stage", report["stage"]),
        ("base fingerprint", report["base_fingerprint"]),
        ("base stages", ", ".join(report["base_stages"])),
        ("layers", report["layers"]),
        ("hidden size", report["hidden_size"]),
        ("activation", report["activation"]),
        ("dtype", report["dtype"]),
        ("weights", f"{report['file_bytes']:,} bytes"),
        ("parameters", f"{report['parameters']:,}"),
    ]
    tokens = [["growth stage", "group", *PROJECTIONS], [report["stage"], str(report["group"])]]
    tokens[1] += [str(report["tokens"][projection]) for projection in PROJECTIONS]
    return "\n".join([*aligned([[label, str(value)] for label, value in facts]), "", *aligned(tokens)])
