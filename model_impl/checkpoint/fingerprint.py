"""The identity of a checkpoint: what a calibration was fitted for, and what a delta belongs to."""

from __future__ import annotations

import hashlib
import json
import math
import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from model_impl.checkpoint.reading import (
    CheckpointError,
    StoredTensor,
    check_tensors,
    expected_tensors,
    load_config,
    stored_tensors,
)
from model_impl.config import DTYPES, GrowthStage, TokenformerConfig

if TYPE_CHECKING:  # `tokenformer inspect` needs no torch
    import torch

COMPUTING_FIELDS = (
    "vocab_size",
    "padded_vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "norm_activation_type",
    "partial_rotary_factor",
    "rope_theta",
    "layer_norm_eps",
    "affine_block_norms",
    "tie_word_embeddings",
)
"""The fields that the logits depend on, beside growth stages and tensors; limits and special ids are left out."""


def fingerprint(path: str | Path, stage: int = -1) -> str:
    """SHA-256 (hex) of what the checkpoint computes: configuration and tensor bytes in name order.

    The same model in one file or in shards, with another tokenizer or position limit, has the same fingerprint. For an
    earlier `stage` (index) the result is the fingerprint of a checkpoint that ends there: the base's own, if growing
    and training left the base's tokens alone. Raises CheckpointError if the tensors are not those of the configuration.
    """
    config, tensors = load_config(path), stored_tensors(path)
    try:
        check_tensors(config, {name: tensor.shape for name, tensor in tensors.items()})
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return _digest(config.with_stages(config.stages[: range(len(config.stages))[stage] + 1]), tensors, {})


def grown_fingerprint(path: str | Path, stage: GrowthStage, rows: Mapping[str, torch.Tensor]) -> str:
    """The fingerprint of the checkpoint `path` after growing by `stage`, with these new rows of its tensors.

    The tensors of `path` must be those of its configuration, and the rows those of the stage.
    """
    import torch

    config, tensors = load_config(path), stored_tensors(path)
    new = {name: own.to(getattr(torch, tensors[name].dtype)).contiguous() for name, own in rows.items()}
    stored = {name: own.view(torch.uint8).numpy().data for name, own in new.items()}
    return _digest(config.with_stages([*config.stages, stage]), tensors, stored)


def _digest(config: TokenformerConfig, tensors: Mapping[str, StoredTensor], new_rows: Mapping[str, memoryview]) -> str:
    """The fingerprint of this configuration, with the tensors' first rows and then the bytes of `new_rows`.

    Surplus rows of `tensors` are left out: they are the tokens of later stages.
    """
    shapes = expected_tensors(config)
    computing: dict[str, object] = {name: getattr(config, name) for name in COMPUTING_FIELDS}
    computing["rope_theta"] = float(config.rope_theta)  # 10000 and 10000.0 are the same base
    computing["growth_stages"] = [stage.to_dict() for stage in config.stages]
    digest = hashlib.sha256(json.dumps(computing, sort_keys=True).encode())
    maps: dict[Path, mmap.mmap] = {}
    for name, tensor in sorted(tensors.items()):
        if tensor.file not in maps:
            with tensor.file.open("rb") as stream:
                maps[tensor.file] = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        digest.update(f"\n{name} torch.{tensor.dtype} {shapes[name]}\n".encode())
        new = new_rows.get(name, memoryview(b""))
        size = math.prod(shapes[name]) * DTYPES[tensor.dtype] - new.nbytes
        with memoryview(maps[tensor.file]) as mapped:
            digest.update(mapped[tensor.start : tensor.start + size])
        digest.update(new)
    return digest.hexdigest()
