"""`tokenformer convert`: an official checkpoint becomes a directory that `tokenformer serve` and vLLM load."""

from __future__ import annotations

from pathlib import Path

from model_impl.checkpoint.official_config import config_from_official, read_official_config
from model_impl.checkpoint.official_weights import open_weights
from model_impl.checkpoint.reading import CheckpointError, check_tensors
from model_impl.checkpoint.tokenizer import find_tokenizer, read_tokenizer
from model_impl.checkpoint.writing import (
    GENERATION,
    SHARD_BYTES,
    as_json,
    check_destination,
    generation_entries,
    write_checkpoint,
)
from model_impl.config import ConfigError, TokenformerConfig


def convert(
    source: Path,
    dest: Path,
    config: Path | None = None,
    tokenizer: Path | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> TokenformerConfig:
    """Convert the weights `source` (a file or a directory) to the checkpoint directory `dest`.

    `config` is the official yml or json, `tokenizer` a tokenizer.json or its directory; both are looked for beside the
    weights. Without a tokenizer the checkpoint is for offline use by token ids; the HTTP server needs one. Tensors keep
    their dtype and are copied one by one from the mapped source. Raises CheckpointError or ConfigError, with one line
    each; `dest` is then untouched.
    """
    check_destination(dest)
    weights = open_weights(source)
    official = read_official_config(source, config)
    tokenizer = tokenizer or find_tokenizer(source)
    tokens = read_tokenizer(tokenizer) if tokenizer else None
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    dtype = str(next(iter(weights.values())).dtype).removeprefix("torch.")
    size, eos = (tokens.size, tokens.eos_token_id) if tokens else (None, None)
    try:
        converted = config_from_official(official, shapes, dtype, size, eos)
        check_tensors(converted, shapes)
    except (CheckpointError, ConfigError) as error:
        raise type(error)(f"{source}: {error}") from error
    files = dict(tokens.files) if tokens else {}
    if tokens and tokens.stop:
        files[GENERATION] = as_json(generation_entries(converted) | {"stop_strings": tokens.stop})
    write_checkpoint(dest, converted, weights.items(), files, shard_bytes)
    return converted
