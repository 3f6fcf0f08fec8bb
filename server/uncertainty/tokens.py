"""One generated token as the score sees it, and the characters that it made. Pure: no vLLM, no HTTP."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple


class TokenScore(NamedTuple):
    """A token, the distribution it was drawn from (before temperature and the like), and what it added to the text."""

    logprob: float
    """Of the token that was chosen, raw."""
    entropy: float
    """-sum p ln p, nats."""
    variance: float
    """Var_p(-ln p), nats^2."""
    margin: float
    """Probability of the likeliest token minus that of the second."""
    text: str
    """Empty for a token that leaves a character unfinished: the one that completes it adds the whole character. Empty
    as well where nobody wants to know it, see `server.engine.statistics.TokenReader`."""
    start: int = 0
    """Characters of the answer before `text`."""
    special: bool = False
    """End of text, a role of the chat template and the like: no word of the answer, even where the text shows it."""
    provenance: Mapping[str, float] | None = None
    """What each growth stage contributed: sum of w^2 ||v||^2 over its parameter tokens."""


@dataclass(frozen=True)
class PlacedToken:
    """A token at the characters [start, end) of the answer that it made, alone or with others."""

    index: int
    """Among all tokens."""
    score: TokenScore
    start: int
    end: int
    is_content: bool
    """Whether there is a letter or digit among the characters."""


def placed(tokens: Iterable[TokenScore]) -> Iterator[PlacedToken]:
    """The tokens that made characters, in order; special tokens and a character that was never finished are left out.

    A character that is split over several tokens belongs to all of them: what it says is decided at the first.
    """
    unfinished: list[tuple[int, TokenScore]] = []
    for index, token in enumerate(tokens):
        if token.special:
            continue
        unfinished.append((index, token))
        if token.text:
            end, is_content = token.start + len(token.text), any(map(str.isalnum, token.text))
            yield from (PlacedToken(i, part, token.start, end, is_content) for i, part in unfinished)
            unfinished.clear()
