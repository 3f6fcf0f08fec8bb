"""The words of an answer that its question has not, with the doubt of each."""

from __future__ import annotations

import re
from collections.abc import Sequence

from demo.facts.names import normalised
from server.uncertainty.score import ChoiceScore
from server.uncertainty.tokens import placed

WORD = re.compile(r"[\w.+-]*\w")

STOP_WORDS = frozenset(("a", "an", "and", "are", "as", "be", "by", "for", "from", "in", "is", "it", "its", "of"))
STOP_WORDS |= {"on", "or", "that", "the", "this", "to", "was", "were", "which", "with"}

Bounds = tuple[int, int]


def new_words(question: str, answer: str) -> list[Bounds]:
    """[start, end) of the answer's words that are neither in the question nor ones that any sentence might have."""
    asked = {normalised(match[0]) for match in WORD.finditer(question)} | STOP_WORDS
    return [match.span() for match in WORD.finditer(answer) if normalised(match[0]) not in asked]


def word_signals(score: ChoiceScore, words: Sequence[Bounds]) -> dict[str, list[float]]:
    """By signal, the highest value of the tokens of each word."""
    tokens = list(placed(score.scores))
    found: dict[str, list[float]] = {"entropy": [], "variance": [], "surprisal": [], "closed form": []}
    for start, end in words:
        own = [token.score for token in tokens if token.start < end and token.end > start]
        found["entropy"].append(max(token.entropy for token in own))
        found["variance"].append(max(token.variance for token in own))
        found["surprisal"].append(max(-token.logprob for token in own))
        found["closed form"].append(max(token.epistemic or 0.0 for token in own))
    return found


def new_tokens(score: ChoiceScore, words: Sequence[Bounds]) -> list[int]:
    """Indexes of the tokens of these words; without any, of the first token with a letter or digit."""
    found = [
        token.index for token in placed(score.scores) if any(token.start < end and token.end > at for at, end in words)
    ]
    return found or [score.first_index]
