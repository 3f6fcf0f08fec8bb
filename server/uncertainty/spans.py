"""The words that the model was undecided about, with a reason in plain words. Pure: no vLLM, no HTTP.

A calibration says which of them are to be doubted, see `server.uncertainty.score`.
"""

from __future__ import annotations

import math
import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from server.uncertainty.tokens import PlacedToken, TokenScore, placed

UNDECIDED_ENTROPY = math.log(2)
"""nats. A higher entropy is less decided than a choice between two equally likely words."""

DOUBTED_RISK = 0.1
"""Risk above which undecided words are doubted."""

STANDS_OUT = math.log(5)
"""nats of surprisal -ln p above the entropy, the mean surprisal of the distribution's own draws: the chosen word was
more than five times less likely than usual there (e^-H). Only sampling or a ban chooses such a word: the likeliest
one is never less likely than e^-H."""

UNFAMILIAR = 0.3
"""nats of disagreement between the ensemble's members. 78 % of 449 doubted values that the grown demo model never read
have more (16 members, first token of the value), and 16 % of 222 that it knows to be ambiguous. The thresholds were
chosen on these same values; evals/results/TABLES.md measures the separation on others."""

FAMILIAR = 0.15
"""nats. 0.4 % of the first and 33 % of the second have less; in between the members say nothing clear."""


@dataclass(frozen=True)
class UndecidedSpan:
    """One or more whole words, with their tokens."""

    start: int
    end: int
    tokens: Sequence[TokenScore]
    reason: str


def undecided_spans(
    tokens: Sequence[TokenScore], text: str, epistemic: Sequence[float | None] | None = None
) -> list[UndecidedSpan]:
    """The words of `text` that hold an undecided token, in order and without overlap; offsets count characters.

    `text` is the text of the tokens, or a beginning of it (a stop string cuts it). `epistemic` is the ensemble's
    disagreement about each token, nats, if known. Words that share an undecided token are one span.
    """
    bounds = words(text)
    starts, ends = [start for start, _ in bounds], [end for _, end in bounds]
    made = list(placed(tokens))
    spans: list[tuple[int, int]] = []
    for token in made:
        if not is_undecided(token):
            continue
        first, after = bisect_right(ends, token.start), bisect_left(starts, token.end)
        if first >= after:
            continue  # its words were cut off
        start, end = starts[first], ends[after - 1]
        if spans and start < spans[-1][1]:
            start = spans.pop()[0]
        spans.append((start, end))
    return [_explained(start, end, made, epistemic) for start, end in spans]


def _explained(
    start: int, end: int, made: Sequence[PlacedToken], epistemic: Sequence[float | None] | None
) -> UndecidedSpan:
    after = bisect_left(made, end, key=lambda token: token.start)
    inside = made[bisect_right(made, start, key=lambda token: token.end) : after]
    worst = max(filter(is_undecided, inside), key=lambda token: max(token.score.entropy, -token.score.logprob))
    begins = worst.start <= start
    return UndecidedSpan(
        start,
        end,
        [token.score for token in inside],
        reason(worst.score, begins=begins, epistemic=epistemic[worst.index] if epistemic else None),
    )


def is_undecided(token: PlacedToken) -> bool:
    """Punctuation and white space are never undecided: they say nothing that could be wrong."""
    return token.is_content and (token.score.entropy > UNDECIDED_ENTROPY or stands_out(token.score))


def stands_out(token: TokenScore) -> bool:
    return -token.logprob - token.entropy > STANDS_OUT


def reason(token: TokenScore, *, begins: bool = True, epistemic: float | None = None) -> str:
    """Why a token is undecided; `begins`: whether it begins its word."""
    if stands_out(token):
        percent = 100 * math.exp(token.logprob)
        given = f"{percent:.0f}" if percent >= 1 else "less than 1"
        return f"an unlikely word was chosen (the model gave it {given} %)"
    where = "at the first token of the word" if begins else "inside the word"
    why = f"high entropy {where}: as undecided as among {math.exp(token.entropy):.0f} words"
    if epistemic is not None and epistemic > UNFAMILIAR:
        return f"{why}; unfamiliar to the model's parameters"
    if epistemic is not None and epistemic < FAMILIAR:
        return f"{why}; several answers are familiar"
    return why


_JOINERS = "'\u2019.-"  # apostrophes (typewriter's and typographer's), points, hyphens
_WORD = re.compile(f"w+(?:[{_JOINERS}]w+)*|W")


def words(text: str) -> list[tuple[int, int]]:
    """[start, end) of every word: letters, digits and joiners between them ("don't", "3.14", "Jean-Luc").

    A wide character is a word of its own, since Chinese and Japanese put no spaces between words. Other scripts
    without spaces, such as Thai, give long "words".
    """
    return [match.span() for match in _WORD.finditer("".join(map(_kind, text)))]


def _kind(character: str) -> str:
    if character.isalnum():
        return "W" if unicodedata.east_asian_width(character) in ("W", "F") else "w"
    mark = unicodedata.category(character).startswith("M")  # a vowel sign or an accent of its own
    return "w" if mark or character == "_" else character if character in _JOINERS else " "
