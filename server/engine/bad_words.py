"""Bad words as sequences of tokens: each with and without a blank in front."""

from __future__ import annotations

from collections.abc import Iterable

from vllm.tokenizers import TokenizerLike


def banned_sequences(words: Iterable[str], tokenizer: TokenizerLike) -> list[list[int]]:
    """Both forms of every word.

    vLLM leaves out the form with a blank where its tokens are more or fewer than those of the other. With byte-level
    BPE that is the rule: " lives" is one token of the demo's, and "lives" three.
    """
    forms = (text for word in words for text in (word.lstrip(), f" {word.lstrip()}"))
    return [token_ids for text in forms if (token_ids := tokenizer.encode(text, add_special_tokens=False))]
