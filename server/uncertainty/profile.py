"""The saved profile: mean and spread of a checkpoint's internals over its training texts. Plain JSON.

`server.calibrate.profiling` writes the file. It names its checkpoint and growth stage by fingerprint.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, with_config

from model_impl.config import PROJECTIONS, TokenformerConfig
from model_impl.one_line_error import OneLineError
from model_impl.wire import INTERNALS
from server.uncertainty.saved import EXACT, Number, load_saved

FORMAT = "tokenformer-profile-1"

Row = Annotated[list[Number], Field(min_length=len(INTERNALS), max_length=len(INTERNALS))]
Table = list[Annotated[list[Row], Field(min_length=len(PROJECTIONS), max_length=len(PROJECTIONS))]]
"""Indexed by layer, projection (as in `PROJECTIONS`) and statistic (as in `INTERNALS`)."""


class ProfileError(OneLineError):
    """A profile that cannot be made or used; the message is one line for the user."""


@with_config(EXACT)
@dataclass(frozen=True)
class Profile:
    checkpoint: str
    """Fingerprint of the checkpoint as it ends with `stage`."""
    stage: str
    mean: Table
    std: Table
    """0 without variation over the texts."""
    data: Mapping[str, Any]
    """Hash and size of the texts."""

    def to_json(self) -> bytes:
        """One line per layer and projection, so that the many numbers can be compared."""
        entries: dict[str, Any] = {"format": FORMAT, **asdict(self)}
        lines = [f"  {json.dumps(name)}: {_as_lines(value)}" for name, value in entries.items()]
        return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def _as_lines(value: Any) -> str:
    if not isinstance(value, list):
        return json.dumps(value)
    layers = [",\n      ".join(map(json.dumps, layer)) for layer in value]
    return "[\n    [" + "],\n    [".join(layers) + "]\n  ]"


SCHEMA = TypeAdapter(Profile)


def load_profile(path: Path, config: TokenformerConfig) -> Profile:
    """Read a profile; raises ProfileError, naming the file, if it is none for a model of this size."""
    profile = load_saved(path, SCHEMA, FORMAT, "profile", ProfileError)
    for name in ("mean", "std"):
        if (layers := len(getattr(profile, name))) != config.num_hidden_layers:
            raise ProfileError(f"{path}: {name}: has {layers} layers, and the model {config.num_hidden_layers}")
    return profile


def profile_file(stage: str | None) -> str:
    """Name of the file beside the weights, for the named stage or the last one (None)."""
    return f"profile-{stage}.json" if stage else "profile.json"


def find_profiles(checkpoint: Path) -> list[Path]:
    """The profiles that lie beside the weights."""
    return sorted(path for path in checkpoint.glob("profile*.json") if path.is_file())
