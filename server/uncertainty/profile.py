"""The saved profile: mean and spread of a checkpoint's internals over its training texts. Plain JSON.

A file belongs to one growth stage of one checkpoint, which it names by fingerprint; `server.calibrate.profiling` writes
it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from model_impl.checkpoint.reading import CheckpointError, read_json
from model_impl.config import PROJECTIONS, TokenformerConfig
from model_impl.one_line_error import OneLineError
from model_impl.reference.internals import INTERNALS

FORMAT = "tokenformer-profile-1"

Table = list[list[list[float]]]
"""By layer, projection (as in `PROJECTIONS`) and statistic (as in `INTERNALS`)."""


class ProfileError(OneLineError):
    """A profile that cannot be made or used; the message is one line for the user."""


@dataclass(frozen=True)
class Profile:
    checkpoint: str
    """Fingerprint of the checkpoint as it ends with `stage`."""
    stage: str
    mean: Table
    std: Table
    """0 where the texts show no variation."""
    data: Mapping[str, Any]
    """Of what: hash and size."""

    def to_json(self) -> bytes:
        """One line per layer and projection: the numbers are many, and meant to be compared."""
        entries: dict[str, Any] = {"format": FORMAT, **asdict(self)}
        lines = [f"  {json.dumps(name)}: {_as_lines(value)}" for name, value in entries.items()]
        return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def _as_lines(value: Any) -> str:
    if not isinstance(value, list):
        return json.dumps(value)
    layers = [",\n      ".join(map(json.dumps, layer)) for layer in value]
    return "[\n    [" + "],\n    [".join(layers) + "]\n  ]"


def load_profile(path: Path, config: TokenformerConfig) -> Profile:
    """Read a profile; raises ProfileError, naming the file, if it is none for a model of this size."""
    try:
        content = read_json(path)
    except CheckpointError as error:
        raise ProfileError(str(error)) from error
    if content.pop("format", None) != FORMAT:
        raise ProfileError(f"{path}: not a profile ({FORMAT})")
    try:
        profile = Profile(**content)
    except TypeError as error:
        raise ProfileError(f"{path}: {error}") from error
    for name in ("mean", "std"):
        if not _is_table(getattr(profile, name), config.num_hidden_layers):
            shape = f"{config.num_hidden_layers} x {len(PROJECTIONS)} x {len(INTERNALS)}"
            raise ProfileError(f"{path}: {name} is no table of {shape} finite numbers")
    return profile


def _is_table(value: Any, layers: int) -> bool:
    def is_list(part: Any, length: int) -> bool:
        return isinstance(part, list) and len(part) == length

    return is_list(value, layers) and all(
        is_list(layer, len(PROJECTIONS))
        and all(is_list(row, len(INTERNALS)) and all(map(_is_finite, row)) for row in layer)
        for layer in value
    )


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) <= sys.float_info.max


def profile_file(stage: str | None) -> str:
    """Name of the file beside the weights, for the named stage or the last one (None)."""
    return f"profile-{stage}.json" if stage else "profile.json"


def find_profiles(checkpoint: Path) -> list[Path]:
    """The profiles that lie beside the weights."""
    return sorted(path for path in checkpoint.glob("profile*.json") if path.is_file())
