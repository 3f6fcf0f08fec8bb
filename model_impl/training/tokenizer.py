"""A tokenizer of a corpus: byte-level BPE in which a name has the same tokens everywhere.

A capitalised word or a number never takes the space before it into its token; a lower-case word does. So `Costa
Rica` is one sequence of tokens at the start of a text, after a space, a quote or a bracket, and running text still
needs few tokens for its spaces.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from model_impl.checkpoint.tokenizer import NEOX_END_OF_TEXT
from model_impl.checkpoint.writing import failures_named

END_OF_TEXT, END, USER, ASSISTANT, SYSTEM = NEOX_END_OF_TEXT, "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"
SPECIAL_TOKENS = (END_OF_TEXT, END, USER, ASSISTANT, SYSTEM)
"""In the order of their ids. END closes a turn and is where an answer stops; END_OF_TEXT separates texts."""

PIECES = r"\p{Lu}[\p{Ll}\p{M}]*| ?[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|\p{N}{1,4}| ?[^\s\p{L}\p{M}\p{N}]+|\s"
"""Capitalised words, lower-case words and punctuation (each with one space before), numbers, single white space."""

CHAT_TEMPLATE = Path(__file__).parent / "templates" / "chat_template.jinja"


def special_id(token: str) -> int:
    """The id of one of SPECIAL_TOKENS."""
    return SPECIAL_TOKENS.index(token)


ENDS = {"eos_token_id": [special_id(END), special_id(END_OF_TEXT)], "pad_token_id": special_id(END_OF_TEXT)}
"""The special tokens of a generation configuration."""


def train_tokenizer(texts: Iterable[str], vocabulary: int, context: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE over `texts`, until `vocabulary` ids are reached or every word is one token.

    `context` is the number of tokens that the model takes.
    """
    tokenizer = Tokenizer(models.BPE())
    pieces = pre_tokenizers.Split(Regex(PIECES), behavior="isolated")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pieces, to_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=END_OF_TEXT,
        extra_special_tokens=[USER, ASSISTANT, SYSTEM],
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE.read_text(),
        model_max_length=context,
    )


def tokenizer_files(tokenizer: PreTrainedTokenizerFast) -> dict[str, bytes]:
    """tokenizer.json, tokenizer_config.json and chat_template.jinja by name."""
    with tempfile.TemporaryDirectory() as directory, failures_named(Path(directory)):
        tokenizer.save_pretrained(directory)
        return {file.name: file.read_bytes() for file in sorted(Path(directory).iterdir())}
