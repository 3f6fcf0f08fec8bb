"""Growth deltas: the tokens of one growth stage in a directory of their own, to be served over a resident base.

    growth.json          the stage, and what it grew on: sizes, stages and fingerprint of the base
    growth.safetensors   the new rows [m, d] of every Pattention, under the official tensor names

A delta belongs to one base only: trained over another, the same tokens mean something else.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save

from model_impl.checkpoint.fingerprint import fingerprint, grown_fingerprint
from model_impl.checkpoint.grow import token_tensor
from model_impl.checkpoint.inspection import DELTA
from model_impl.checkpoint.reading import (
    MAX_JSON_BYTES,
    MODULES,
    CheckpointError,
    check_finite,
    is_zero,
    iterate_tensors,
    load_config,
    one_line,
    parse_json,
    read_bytes,
    read_header,
)
from model_impl.checkpoint.writing import all_or_nothing, as_json, check_destination, write_bytes
from model_impl.config import BOUNDS, DTYPES, ConfigError, GrowthStage, TokenformerConfig

DESCRIPTION = DELTA
TENSORS = "growth.safetensors"
CHANGED = "its files have changed since they were checked"
FORMAT = {"format": "tokenformer-growth", "version": 1}


@dataclass(frozen=True)
class GrowthDelta:
    """A delta directory whose description and tensor shapes have been checked.

    Each file was read once, so that what is checked is what is served, whatever becomes of the files.
    """

    path: Path
    stage: GrowthStage
    base_fingerprint: str
    base_stages: tuple[str, ...]
    hidden_size: int
    num_hidden_layers: int
    norm_activation_type: str
    content: bytes = field(default=b"", repr=False)
    """The tensors' file."""
    digest: str = ""
    """SHA-256 (hex) of both files."""

    @property
    def name(self) -> str:
        return self.stage.name

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """(official name, new rows [m, d]) of every Pattention, also where m is 0."""
        yield from load(self.content).items()

    def expected_tensors(self) -> dict[str, tuple[int, int]]:
        """Official name and shape of every tensor of the delta."""
        return {
            f"sequential.{i + 2}.{module}.{part}_param_tokens": (self.stage.tokens[projection], self.hidden_size)
            for i in range(self.num_hidden_layers)
            for projection, module in MODULES.items()
            for part in ("key", "value")
        }


def split(grown: Path, dest: Path, stage: str | None = None) -> GrowthDelta:
    """Write the tokens of `stage` (by name; the last by default) of the checkpoint `grown` to the directory `dest`.

    Raises CheckpointError if the tensors no longer hold the model that the stage grew on. `dest` appears complete
    or not at all.
    """
    check_destination(dest)
    config = load_config(grown)
    names = [step.name for step in config.stages]
    if stage is not None and stage not in names:
        raise CheckpointError(f"{grown}: has no stage {stage!r}; its stages are {', '.join(names)}")
    index = names.index(stage) if stage is not None else len(names) - 1
    if index == 0:
        raise CheckpointError(f"{grown}: stage {names[0]!r} is the first one, there is nothing it grew on")
    if index - 1 not in config.servable_stages:
        changed = next(step.name for step in config.stages[index:] if step.retrained)
        raise CheckpointError(
            f"{grown}: stage {changed!r} changed earlier tokens, so {names[index]!r} has no base left"
        )
    description = {
        **FORMAT,
        "stage": config.stages[index].to_dict(),
        "base_fingerprint": fingerprint(grown, index - 1),
        "base_stages": names[:index],
        **{name: getattr(config, name) for name in ("hidden_size", "num_hidden_layers", "norm_activation_type")},
    }
    tokens = {}
    for name, tensor in iterate_tensors(grown):
        if role := token_tensor(name):
            check_finite(name, tensor)
            rows = slice(config.token_count(role[0], index - 1), config.token_count(role[0], index))
            tokens[name] = tensor[rows]
    with all_or_nothing(dest) as partial:
        write_bytes(partial / TENSORS, save(tokens))
        write_bytes(partial / DESCRIPTION, as_json(description))
    return load_delta(dest)


def load_delta(path: str | Path) -> GrowthDelta:
    """The delta directory `path`; raises CheckpointError, with one line, for anything else or a damaged one."""
    path = Path(path)
    try:
        found = path.is_dir()
    except OSError:  # a name that is too long, a directory that must not be searched
        found = False
    if not found:
        raise CheckpointError(f"{path}: no such growth delta directory")
    file = path / DESCRIPTION
    description = read_bytes(file)
    entries = parse_json(file, description)
    if entries.get("format") != FORMAT["format"]:
        raise CheckpointError(f"{file}: format is {entries.get('format')!r}, not {FORMAT['format']!r}")
    if entries.get("version") != FORMAT["version"]:
        raise CheckpointError(f"{file}: version {entries.get('version')!r} is unknown; {FORMAT['version']} is known")
    try:
        delta = _described(path, entries)
    except KeyError as error:
        raise CheckpointError(f"{file}: {error.args[0]} is missing") from error
    except ConfigError as error:
        raise CheckpointError(f"{file}: {one_line(error)}") from error
    except (TypeError, AttributeError) as error:  # a list where an object belongs, or text where a number does
        raise CheckpointError(f"{file}: stage is malformed ({one_line(error)})") from error
    expected = delta.expected_tensors()
    largest = MAX_JSON_BYTES + max(DTYPES.values()) * sum(map(math.prod, expected.values()))
    content = read_bytes(path / TENSORS, largest)
    shapes = {
        name: stored.shape for name, stored in read_header(path / TENSORS, BytesIO(content), len(content)).items()
    }
    for name, shape in expected.items():
        if name not in shapes:
            raise CheckpointError(f"{path / TENSORS}: tensor {name} is missing")
        if shapes[name] != shape:
            raise CheckpointError(f"{path / TENSORS}: tensor {name} has shape {list(shapes[name])}, not {list(shape)}")
    if surplus := shapes.keys() - expected.keys():
        raise CheckpointError(f"{path / TENSORS}: tensor {min(surplus)} is surplus")
    digest = hashlib.sha256(hashlib.sha256(description).digest() + hashlib.sha256(content).digest()).hexdigest()
    return replace(delta, content=content, digest=digest)


def load_checked(path: str | Path, digest: str) -> GrowthDelta:
    """The delta directory `path` whose digest was taken; raises CheckpointError if it has changed since."""
    try:
        delta = load_delta(path)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {CHANGED}") from error
    if delta.digest != digest:
        raise CheckpointError(f"{path}: {CHANGED}")
    return delta


def _described(path: Path, entries: dict[str, Any]) -> GrowthDelta:
    stage = GrowthStage.from_dict(entries["stage"])
    if not isinstance(stage.name, str) or stage.retrained:
        raise ConfigError(f"stage {stage.name!r} is none that a delta can hold")
    base, stages = entries["base_fingerprint"], entries["base_stages"]
    if not isinstance(base, str) or not re.fullmatch(r"[0-9a-f]{64}", base):
        raise ConfigError(f"base_fingerprint {base!r} is no fingerprint")
    if not isinstance(stages, list) or not all(isinstance(name, str) for name in stages):
        raise ConfigError("base_stages is no list of names")
    width, layers = entries["hidden_size"], entries["num_hidden_layers"]
    for key, size in (("hidden_size", width), ("num_hidden_layers", layers)):
        if not isinstance(size, int) or not 0 < size <= BOUNDS[key]:
            raise ConfigError(f"{key} must be an integer from 1 to {BOUNDS[key]}")
    return GrowthDelta(path, stage, base, tuple(stages), width, layers, str(entries["norm_activation_type"]))


def check_sizes(delta: GrowthDelta, config: TokenformerConfig) -> None:
    """Raise CheckpointError, with one line, unless the delta's tensors fit a model of this configuration."""
    for name in ("hidden_size", "num_hidden_layers", "norm_activation_type"):
        grown_on, found = getattr(delta, name), getattr(config, name)
        if grown_on != found:
            raise CheckpointError(f"{delta.path}: grew on a base with {name} {grown_on}, but this one has {found}")


def check_delta(delta: GrowthDelta, config: TokenformerConfig, base_fingerprint: str) -> None:
    """Raise CheckpointError, with one line, unless `delta` grew on the model of this configuration and fingerprint."""
    check_sizes(delta, config)
    if delta.base_fingerprint != base_fingerprint:
        raise CheckpointError(
            f"{delta.path}: grew on another base: fingerprint {delta.base_fingerprint[:12]} "
            f"(stages {', '.join(delta.base_stages)}), but this one is {base_fingerprint[:12]} "
            f"(stages {', '.join(stage.name for stage in config.stages)})"
        )
    try:
        config.with_stages([*config.stages, delta.stage])
    except ConfigError as error:
        raise CheckpointError(f"{delta.path}: {error}") from error
    own_norm = config.norm_activation_type != "softmax" and delta.stage.norm_group != config.stages[-1].norm_group
    for name, tensor in delta.tensors():
        try:
            check_finite(name, tensor)
        except CheckpointError as error:
            raise CheckpointError(f"{delta.path}: {error}") from error
        if own_norm and name.endswith(".key_param_tokens") and len(tensor) and is_zero(tensor):
            raise CheckpointError(
                f"{delta.path}: tensor {name} is all zero, so {config.norm_activation_type} would divide zero by zero"
            )


def fingerprint_with(base: str | Path, delta: GrowthDelta) -> str:
    """The fingerprint of the checkpoint directory `base`, on which the delta grew, together with the delta: the same as
    that of the stage from which the delta was split."""
    return grown_fingerprint(base, delta.stage, dict(delta.tensors()))


def grown_by(base: Path, delta: GrowthDelta) -> tuple[TokenformerConfig, Iterator[tuple[str, torch.Tensor]]]:
    """Configuration and tensors, by official name, of the checkpoint directory `base` with the delta's stage.

    Raises CheckpointError unless the delta grew on it.
    """
    config = load_config(base)
    check_delta(delta, config, fingerprint(base))
    rows = dict(delta.tensors())
    tensors = iterate_tensors(base)
    grown = ((name, torch.cat([old, rows[name].to(old.dtype)]) if name in rows else old) for name, old in tensors)
    return config.with_stages([*config.stages, delta.stage]), grown
