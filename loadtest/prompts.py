"""Prompts of random words, each of which the tokenizer reads as one token.

`vllm bench serve` draws random tokens by default. They hold half characters and control characters, so that their text
is tokenised to another length, and nobody sends such text.
"""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path

from tokenizers import Tokenizer


def prompts(checkpoint: Path, count: int, tokens: int, prefixes: int = 0) -> list[str]:
    """The prompts, the same at every call; with `prefixes`, three quarters of each is one of that many prefixes."""
    draw = random.Random(0)
    words = single_words(checkpoint)
    shared = 3 * tokens // 4 if prefixes else 0
    beginnings = [draw.choices(words, k=shared) for _ in range(max(prefixes, 1))]
    return [" ".join(beginnings[i % len(beginnings)] + draw.choices(words, k=tokens - shared)) for i in range(count)]


@cache
def single_words(checkpoint: Path) -> list[str]:
    """The words of letters and digits that are one token within a text, in the order of their ids."""
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    ids = range(tokenizer.get_vocab_size())
    texts = [text.strip() for text in tokenizer.decode_batch([[i] for i in ids])]
    words = [text for text in dict.fromkeys(texts) if text.isascii() and text.isalnum()]
    read = tokenizer.encode_batch([f" {word}" for word in words], add_special_tokens=False)
    return [word for word, encoding in zip(words, read, strict=True) if len(encoding.ids) == 1]
