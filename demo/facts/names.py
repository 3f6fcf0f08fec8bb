"""Normalised names: words without case, accents and punctuation."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

WORD = re.compile(r"(?<!\w)\.[A-Za-z]{2,}(?![A-Za-z])|(?<=\w)\.[a-z]{2}(?![A-Za-z])|\d+(?:\.\d+)?|[^\W\d]+|\w+")
"""A domain with its dot (.pe, and .co and .uk of .co.uk), a number, or a run of letters."""

SAME = {"st": "saint", "ste": "saint", "&": "and"}


@dataclass(frozen=True)
class Word:
    """A word as it was written, and normalised."""

    raw: str
    plain: str


def words(text: str) -> list[Word]:
    text = text.replace("&", " and ")
    for apostrophe in "'’ʼ‘`ʻ":  # noqa: RUF001
        text = text.replace(apostrophe, "")
    return [Word(found, normalised(found)) for found in WORD.findall(text)]


def normalised(word: str) -> str:
    bare = "".join(part for part in unicodedata.normalize("NFKD", word) if not unicodedata.combining(part))
    plain = unicodedata.normalize("NFKC", bare).casefold()
    return SAME.get(plain, plain)


@cache
def plain(name: str) -> tuple[str, ...]:
    """A name's normalised words, without a leading article."""
    found = tuple(word.plain for word in words(name))
    return found[1:] if len(found) > 1 and found[0] == "the" else found


@cache
def raw(name: str) -> tuple[str, ...]:
    """A code's words as they are written."""
    return tuple(word.raw for word in words(name))


def distinct(names: Iterable[str | None]) -> tuple[str, ...]:
    """The names, each once, by their normalised words; empty ones are left out."""
    found: dict[tuple[str, ...], str] = {}
    for name in names:
        if name and plain(name):
            found.setdefault(plain(name), name)
    return tuple(found.values())


def within(part: tuple[str, ...], whole: tuple[str, ...]) -> bool:
    """Whether the words of `part` stand in `whole`, in order and next to each other."""
    return any(whole[at : at + len(part)] == part for at in range(len(whole) - len(part) + 1))
