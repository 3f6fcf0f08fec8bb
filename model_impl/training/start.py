"""A new model of random weights, from which training starts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from model_impl.checkpoint.official_config import config_of_shape, read_official_config
from model_impl.checkpoint.tokenizer import read_tokenizer
from model_impl.checkpoint.writing import as_json, write_checkpoint
from model_impl.config import ConfigError, TokenformerConfig
from model_impl.reference.model import ReferenceTokenformer
from model_impl.texts import Text
from model_impl.training.recipe import Recipe
from model_impl.training.tokenizer import END, ENDS, special_id, tokenizer_files, train_tokenizer


def write_new_model(
    dest: Path, shape: Path, texts: Sequence[Text], tokenizer: Path | None, recipe: Recipe
) -> TokenformerConfig:
    """Write a checkpoint of random weights; without a `tokenizer` one is trained on the texts."""
    if tokenizer is not None:
        found = read_tokenizer(tokenizer)
        config, files = read_shape(shape, found.size, found.eos_token_id), found.files
    else:
        context = read_shape(shape, recipe.vocabulary, None).max_position_embeddings
        made = train_tokenizer(written(texts), recipe.vocabulary, context)
        config = read_shape(shape, len(made), special_id(END))
        files = tokenizer_files(made) | {"generation_config.json": as_json(ENDS)}
    torch.manual_seed(recipe.seed)
    write_checkpoint(dest, config, ReferenceTokenformer(config).state_dict().items(), files)
    return config


def read_shape(shape: Path, tokenizer_size: int, eos_token_id: int | None) -> TokenformerConfig:
    try:
        return config_of_shape(read_official_config(shape, shape), tokenizer_size, eos_token_id)
    except ConfigError as error:
        raise ConfigError(f"{shape}: {error}") from error


def written(texts: Sequence[Text]) -> Iterator[str]:
    """The texts and what the messages of chats say."""
    for text in texts:
        if isinstance(text.content, str):
            yield text.content
        else:
            yield from (message["content"] for message in text.content)
