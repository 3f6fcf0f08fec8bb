"""Generated tokens with their statistics, and their characters in the answer. Pure: no vLLM, no HTTP."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple


class TokenScore(NamedTuple):
    """A token, statistics of its raw distribution (before temperature and the like), and the text that it added."""

    logprob: float
    """Raw log-probability of the chosen token."""
    entropy: float
    """-sum p ln p, nats."""
    variance: float
    """Var_p(-ln p), nats^2."""
    margin: float
    """Probability of the likeliest token minus the second's."""
    text: str
    """Empty for a token that leaves a character unfinished: the completing token adds the whole character. Also empty
    where nobody needs it, see `server.engine.statistics.TokenReader`."""
    start: int = 0
    """Number of characters before `text` in the answer."""
    special: bool = False
    """True for the end of text, roles of the chat template and the like, which are no words of the answer."""
    epistemic: float | None = None
    """By the closed form, nats; None from an engine that reports none."""
    growth: Mapping[str, float] | None = None
    """Growth stage -> what its parameter tokens add to the token's logit, above what they add to its rivals', nats."""


@dataclass(frozen=True)
class PlacedToken:
    """A token with its characters [start, end) of the answer, which it made alone or with others."""

    index: int
    """Index among all tokens."""
    score: TokenScore
    start: int
    end: int
    is_content: bool
    """Whether the characters include a letter or digit."""


def placed(tokens: Iterable[TokenScore]) -> Iterator[PlacedToken]:
    """The tokens that made characters, in order, without special tokens and unfinished characters.

    A character of several tokens belongs to all of them: the first one decides what it says.
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
