"""The sentences of an answer. Pure: no vLLM, no HTTP.

The classes of characters are those of Unicode's text segmentation (UAX #29, property Sentence_Break), and so are the
rules, with these additions: `.`, `!` and `?` need white space behind them, as in URLs they end nothing; abbreviations,
initials and the numbers of a list end no sentence, and neither does a quotation before a lower-case letter.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import regex

from server.uncertainty.tokens import TokenScore

_LINE_END = r"[\p{SB=Sep}\p{SB=CR}\p{SB=LF}]"
_STOP = r"[\p{SB=STerm}\p{SB=ATerm}]"
_CLOSE = r"(?:(?![\p{Ps}\p{Pi}])\p{SB=Close})"  # a closing bracket or quotation mark, or one that may be

_END = regex.compile(
    rf"(?P<stop>{_STOP}+)(?P<close>{_CLOSE}*)(?P<space>\p{{SB=Sp}}*)(?P<line>(?:{_LINE_END}\s*)?)|(?P<line>{_LINE_END}\s*)"
)
"""A possible end of a sentence, with the white space behind it."""

_GOES_ON = regex.compile(rf"{_STOP}|\p{{SB=SContinue}}")
"""The next character of a sentence that goes on, such as a comma (SB8a)."""

_POINT = regex.compile(r"\p{SB=ATerm}")

_LOWER = regex.compile(rf"[^\p{{L}}{_STOP[1:-1]}{_LINE_END[1:-1]}]*\p{{SB=Lower}}")
"""What follows a full stop or a quotation that ends no sentence: a lower-case letter, before any other (SB8)."""

_ABBREVIATED = regex.compile(
    r"(?:^|[^\w.])(?:\p{Lu}|(?i:mr|mrs|ms|mx|dr|prof|rev|gen|col|lt|sgt|capt|st|mt|sr|jr|vs|cf|ca|approx|fig|vol|pp|e\.g|i\.e))$"
)
"""An initial, or an abbreviation that another word follows."""

LONGEST = 16
"""Characters in which `_ABBREVIATED` is searched for, more than it can have."""

_NUMBER = regex.compile(r"\s*\d{1,3}$")
"""The number of a list's entry, where it is all of a sentence so far."""


def sentences(text: str) -> list[tuple[int, int]]:
    """[start, end) of every sentence. They partition the text: white space belongs to the sentence before it. Each has
    a letter or digit, unless the text has none."""
    found: list[tuple[int, int]] = []
    start = seen = 0
    for end in [*_ends(text), len(text)]:
        if any(map(str.isalnum, text[seen:end])):
            found.append((start, end))
            start = end
        seen = end
    if start < len(text):  # what is left has no letter, nor digit
        found.append((found.pop()[0] if found else 0, len(text)))
    return found


def _ends(text: str) -> Iterator[int]:
    start = 0
    for match in _END.finditer(text):
        if match["line"] or _is_end(text, start, match):
            yield (start := match.end())


def _is_end(text: str, start: int, match: regex.Match[str]) -> bool:
    """Whether the sentence from `start` ends with the full stop of `match`, behind which the line goes on."""
    stop, after = match["stop"], match.end()
    if (stop[-1].isascii() and not match["space"]) or _GOES_ON.match(text, after):
        return False
    if (match["close"] or _POINT.search(stop)) and _LOWER.match(text, after):
        return False
    if not _POINT.fullmatch(stop):
        return True
    word = text[max(start, match.start() - LONGEST) : match.start()]
    return not (_ABBREVIATED.search(word) or _NUMBER.fullmatch(text, start, match.start()))


@dataclass(frozen=True)
class Sentence:
    """The characters [start, end) of an answer, and its tokens."""

    start: int
    end: int
    tokens: slice


def divided(tokens: Sequence[TokenScore], text: str) -> list[Sentence]:
    """The sentences of a text that ends with the text of the tokens, or with a beginning of it (a stop string cuts it).
    What stands before the first token, an echoed prompt, belongs to none.

    A token that reaches into the next sentence belongs to that one, as a blank is part of the word behind it. Tokens
    without text belong to the sentence that goes on, and those behind the last sentence to the last one.
    """
    begin = tokens[0].start if tokens else len(text)
    bounds = [(begin + start, begin + end) for start, end in sentences(text[begin:])]
    places = [max(token.start, token.start + len(token.text) - 1) for token in tokens]
    firsts = [0, *(bisect_left(places, end) for _, end in bounds[:-1]), len(tokens)]
    return [Sentence(*bound, slice(*part)) for bound, part in zip(bounds, pairwise(firsts), strict=bool(bounds))]
