"""The tokenizer of a world, as `tokenformer train` makes one (`model_impl.training.tokenizer`)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from model_impl.training import tokenizer
from model_impl.training.tokenizer import ASSISTANT, END, END_OF_TEXT, SPECIAL_TOKENS, SYSTEM, USER, special_id

__all__ = ["ASSISTANT", "END", "END_OF_TEXT", "SPECIAL_TOKENS", "SYSTEM", "USER", "special_id"]

VOCABULARY = 1536
"""At most this many ids: enough for every word of the world to become one token, which takes about 1,450."""

CONTEXT = 512
"""Longest text in tokens that a model of a world takes: the length of its long training rows."""


def train_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    return tokenizer.train_tokenizer(texts, VOCABULARY, CONTEXT)


def load_tokenizer(directory: Path) -> PreTrainedTokenizerFast:
    """The tokenizer saved in `directory` (a checkpoint)."""
    loaded: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(directory)
    return loaded
