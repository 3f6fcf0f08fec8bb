"""`tokenformer grow`: append parameter tokens to every Pattention of a checkpoint, as a new growth stage.

With n tokens in the group that the new ones continue (all tokens of the last normalisation group), T its tau, and c the
factor by which they multiply, these ways leave the logits as they were:

    init         new keys  new values  grouped                     joint
    zero-values  random    zero        all activations             no: the new scores enter the norm
    zero-keys    zero      random      no: a norm of zeros         the L2 norms, with tau kept at T
    tile         old       old / c     all activations             all activations; old values become old / c
    repeat       old       zero        all activations             all activations
    random       random    random      no                          no

Everywhere but at joint zero-keys, tau becomes T sqrt(size / n) where `size` is the group's new size: the weight of a
token then stays what it was when the other tokens of its group look like the old ones. For a model with the official
tau = sqrt(n) that is the official rule again.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import count
from pathlib import Path

import torch

from model_impl.checkpoint.reading import (
    MODULES,
    CheckpointError,
    check_tensors,
    iterate_tensors,
    load_config,
    tensor_shapes,
)
from model_impl.checkpoint.writing import check_destination, write_checkpoint
from model_impl.config import PROJECTIONS, ConfigError, GrowthStage, TokenformerConfig, norm_groups

NORMS = ("grouped", "joint")
INITS = ("zero-values", "zero-keys", "tile", "repeat", "random")
STAGE_NAME = re.compile(r"[A-Za-z0-9._-]+")
"""The form of a stage's name, which becomes part of a model name in URLs and metrics."""

TOKEN_TENSORS = {
    f"{module}.{part}_param_tokens": (projection, part)
    for projection, module in MODULES.items()
    for part in ("key", "value")
}
NOT_COPIED = (".safetensors", ".bin", ".pt", ".pth", ".index.json")
"""Endings of weight files; the other files, such as the tokenizer, belong to the grown checkpoint too."""
FITTED = "calibration"
"""Beginning of the names of files that were fitted to the source: the grown checkpoint needs its own."""


def parse_tokens(text: str) -> dict[str, int]:
    """`query=64,ffn=256` -> new tokens per projection; a projection that is left out gets none."""
    tokens = dict.fromkeys(PROJECTIONS, 0)
    named = set()
    for entry in text.split(","):
        projection, _, number = (part.strip() for part in entry.partition("="))
        if projection not in PROJECTIONS:
            raise ConfigError(f"--tokens: {projection!r} is no projection; they are {', '.join(PROJECTIONS)}")
        if projection in named:
            raise ConfigError(f"--tokens: {projection} is named twice")
        if not number.isdecimal():
            raise ConfigError(f"--tokens: {projection}={number} is no count of new tokens, 0 or more")
        named.add(projection)
        tokens[projection] = int(number)
    return tokens


def grow(
    source: Path,
    dest: Path,
    tokens: Mapping[str, int],
    name: str | None = None,
    norm: str = "grouped",
    init: str | None = None,
    seed: int = 0,
) -> TokenformerConfig:
    """Write the checkpoint `source` plus one growth stage to the directory `dest`; returns the new configuration.

    `tokens` counts the new parameter tokens per projection. `norm` and `init` are explained above; without `init`
    the function is preserved (`default_init`). Random tokens are normal with the standard deviation of the tensor
    that they join, and depend on `seed`, the stage's name and the tensor only. Tensors are read, grown and written
    one by one and keep their dtype. Raises CheckpointError or ConfigError with one line; `dest` is then untouched.
    """
    check_destination(dest)
    config = load_config(source)
    try:
        check_tensors(config, tensor_shapes(source))
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}") from error
    init = init or default_init(norm, config.norm_activation_type)
    stage = new_stage(config, tokens, name, norm, init)
    grown = config.with_stages([*config.stages, stage])
    write_checkpoint(dest, grown, grown_tensors(iterate_tensors(source), config, stage, init, seed), side_files(source))
    return grown


def default_init(norm: str, activation: str) -> str:
    """The way that preserves the function and gives a gradient from the first step."""
    if norm == "grouped":
        return "zero-values"
    return "repeat" if activation == "softmax" else "zero-keys"


def preserves_function(norm: str, init: str, activation: str) -> bool:
    """Whether growing this way leaves the logits as they were, up to rounding."""
    if init in ("tile", "repeat"):
        return True
    if norm == "grouped":
        return init == "zero-values"
    return init == "zero-keys" and activation != "softmax"


def new_stage(
    config: TokenformerConfig, tokens: Mapping[str, int], name: str | None, norm: str, init: str
) -> GrowthStage:
    """The stage that appends `tokens` to a model of `config`; raises ConfigError if that is impossible."""
    if norm not in NORMS:
        raise ConfigError(f"--norm: {norm!r} is unknown; known are {', '.join(NORMS)}")
    if init not in INITS:
        raise ConfigError(f"--init: {init!r} is unknown; known are {', '.join(INITS)}")
    if set(tokens) != set(PROJECTIONS) or min(tokens.values()) < 0:
        raise ConfigError(f"--tokens: a count of 0 or more is needed for each of {', '.join(PROJECTIONS)}")
    if not any(tokens.values()):
        raise ConfigError("--tokens: no new tokens at all")
    names = [stage.name for stage in config.stages]
    name = next(unused for i in count(1) if (unused := f"grown-{i}") not in names) if name is None else name
    if not STAGE_NAME.fullmatch(name):
        raise ConfigError(f"--name: {name!r} may only have letters, digits, dots, underscores and hyphens")
    if name in names:
        raise ConfigError(f"--name: there is a stage {name!r} already")
    taus = {p: _tau(config, p, tokens[p], norm, init) for p in PROJECTIONS}
    official = config.stages[-1].tau is None and not _keeps_tau(config, norm, init)
    return GrowthStage(
        name=name,
        tokens={projection: tokens[projection] for projection in PROJECTIONS},
        tau=None if official else taus,
        norm_group=config.stages[-1].norm_group + (norm == "grouped"),
        retrained=init == "tile",
    )


def _keeps_tau(config: TokenformerConfig, norm: str, init: str) -> bool:
    """Whether tau stays: new scores of exactly zero add nothing to an L2 norm."""
    return norm == "joint" and init == "zero-keys" and config.norm_activation_type != "softmax"


def _tau(config: TokenformerConfig, projection: str, new: int, norm: str, init: str) -> float:
    """tau of the group that `new` tokens join or form; raises ConfigError where `init` cannot make so many."""
    group = norm_groups(config.stages, projection)[config.stages[-1].norm_group]
    old = group.stop - group.start
    size = new + (old if norm == "joint" else 0)
    whole_copies = init == "tile" or (init == "repeat" and norm == "joint")
    if new and init in ("tile", "repeat") and (not old or (whole_copies and new % old)):
        raise ConfigError(f"--init {init}: {projection} needs a multiple of the {old} tokens to copy, not {new}")
    if new and new == size and init == "zero-keys" and config.norm_activation_type != "softmax":
        raise ConfigError(
            f"--init zero-keys: the new {projection} tokens are a normalisation group of their own, whose keys "
            f"cannot all be zero: {config.norm_activation_type} would divide zero by zero"
        )
    if not old:
        return math.sqrt(max(size, 1))
    return group.tau if _keeps_tau(config, norm, init) else group.tau * math.sqrt(max(size, 1) / old)


def token_tensor(name: str) -> tuple[str, str] | None:
    """(projection, "key" or "value") of a tensor that holds parameter tokens, else None."""
    return TOKEN_TENSORS.get(name.split(".", 2)[-1])


def grown_tensors(
    tensors: Iterable[tuple[str, torch.Tensor]], config: TokenformerConfig, stage: GrowthStage, init: str, seed: int
) -> Iterator[tuple[str, torch.Tensor]]:
    """(official name, tensor) of the model of `config` once it has grown by `stage`; one tensor is held at a time."""
    group = config.stages[-1].norm_group
    starts = {projection: norm_groups(config.stages, projection)[group].start for projection in PROJECTIONS}
    for name, tensor in tensors:
        role = token_tensor(name)
        if role is not None and stage.tokens[role[0]]:
            projection, part = role
            own_seed = f"{seed} {stage.name} {name}"  # so that neither stages nor blocks repeat each other
            tensor = _grown(tensor, starts[projection], stage.tokens[projection], part, init, own_seed)
        yield name, tensor


def _grown(old: torch.Tensor, start: int, new: int, part: str, init: str, seed: str) -> torch.Tensor:
    """`old` [n, d] with `new` rows appended; the rows from `start` on are those that tile and repeat copy."""
    copied = old[start:]
    if part == "value" and init == "tile":
        copied = copied / (1 + new / len(copied))
        old = torch.cat([old[:start], copied])
    if init == "tile" or (init == "repeat" and part == "key"):
        rows = copied[torch.arange(new) % len(copied)]
    elif init == "random" or (init == "zero-values" and part == "key") or (init == "zero-keys" and part == "value"):
        digest = hashlib.sha256(seed.encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
        scale = old.float().std(correction=0)
        rows = (torch.randn(new, old.shape[1], generator=generator) * scale).to(old.dtype)
    else:
        rows = old.new_zeros(new, old.shape[1])
    return torch.cat([old, rows])


def side_files(checkpoint: Path) -> dict[str, bytes]:
    """The files that a grown checkpoint takes over from its source, beside weights and configuration, by name.

    The model card comes along, as it holds the license; the user continues it.
    """
    return {
        file.name: file.read_bytes()
        for file in sorted(checkpoint.iterdir())
        if file.is_file()
        and file.name != "config.json"
        and not file.name.endswith(NOT_COPIED)
        and not file.name.startswith(FITTED)
    }
