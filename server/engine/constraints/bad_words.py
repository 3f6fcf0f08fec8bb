"""Bad words as sequences of tokens, with and without a blank in front."""

from __future__ import annotations

from collections.abc import Iterable

from vllm.tokenizers import TokenizerLike


def banned_sequences(words: Iterable[str], tokenizer: TokenizerLike) -> list[list[int]]:
    """Both forms of every word.

    vLLM skips the form with a blank if the forms differ in length. With byte-level BPE they usually do: the demo has
    one token for " lives", and three for "lives".
    """
    forms = (text for word in words for text in (word.lstrip(), f" {word.lstrip()}"))
    return [token_ids for text in forms if (token_ids := tokenizer.encode(text, add_special_tokens=False))]
