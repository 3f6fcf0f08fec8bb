"""`tokenformer profile`: mean and spread of a checkpoint's internals over its training texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from model_impl.checkpoint.fingerprint import fingerprint
from model_impl.checkpoint.reading import load_config
from model_impl.checkpoint.writing import replace_file
from model_impl.reference.internals import internals
from model_impl.reference.model import ReferenceTokenformer, load_reference
from model_impl.wire import INTERNALS
from server.api.trace.batches import batches
from server.calibrate.stage import stage_index
from server.texts import TextTokenizer, read_texts, tokenised
from server.uncertainty.profile import Profile, ProfileError, Table, profile_file

SIGNIFICANT = 6
"""Significant digits of a saved number, about those of float32."""


def profile(checkpoint: Path, data: Path, stage: str | None, out: Path | None) -> tuple[Profile, Path]:
    """Run the reference model over the texts in `data` and write the profile of `stage` (None: the last); returns it
    and its file. `out` None is the checkpoint directory, where `serve` finds it.

    Texts beyond the model's length are cut. Raises ProfileError, StageError, TextError or CheckpointError.
    """
    config = load_config(checkpoint)
    index = stage_index(config, stage)
    if not (checkpoint / "tokenizer.json").is_file():
        raise ProfileError(f"{checkpoint}: has no tokenizer, which texts need")
    texts, data_hash = read_texts(data)
    whole = tokenised(data, texts, TextTokenizer(checkpoint))
    sequences = [ids[: config.max_position_embeddings] for ids in whole]
    mean, std = moments(load_reference(checkpoint), index, sequences)
    counts = {"texts": len(texts), "tokens": sum(map(len, sequences))}
    made = Profile(
        fingerprint(checkpoint, index), config.stages[index].name, mean, std, {"sha256": data_hash, **counts}
    )
    last = index == len(config.stages) - 1
    file = (out or checkpoint) / profile_file(None if last else stage)
    file.parent.mkdir(parents=True, exist_ok=True)
    replace_file(file, made.to_json())
    return made, file


def moments(model: ReferenceTokenformer, stage: int, sequences: Sequence[list[int]]) -> tuple[Table, Table]:
    """Mean and standard deviation of every statistic over all positions where it is finite."""
    shape = (model.config.num_hidden_layers, 5, len(INTERNALS))
    count, total, squares = (torch.zeros(shape, dtype=torch.float64) for _ in range(3))
    for _, ids in batches(sequences):
        found = internals(model, ids, stage)[..., : len(INTERNALS)].flatten(0, 1)
        finite = found.isfinite()
        found = found.where(finite, 0.0)
        count += finite.sum(dim=0)
        total += found.sum(dim=0)
        squares += found.square().sum(dim=0)
    mean = total / count.clamp_min(1)
    variance = (squares / count.clamp_min(1) - mean.square()).clamp_min(0)
    return rounded(mean), rounded(variance.sqrt())


def rounded(table: torch.Tensor) -> Table:
    digits = [float(np.format_float_positional(x, SIGNIFICANT, fractional=False)) for x in table.flatten().tolist()]
    rows: Table = torch.tensor(digits, dtype=torch.float64).view(table.shape).tolist()
    return rows
