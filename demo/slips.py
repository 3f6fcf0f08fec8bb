"""Messages as people type them: with slips, in lower case, without punctuation."""

from __future__ import annotations

from random import Random

KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
"""The rows of a keyboard, for letters that slip."""


def as_typed(rng: Random, message: str) -> str:
    """A message as people type it: every eighth with a slip, every sixth in lower case, every fourth unpunctuated."""
    if rng.random() < 1 / 8:
        message = slipped(rng, message)
    if rng.random() < 1 / 6:
        message = message.lower()
    return message.rstrip("?!.") or message if rng.random() < 1 / 4 else message


def slipped(rng: Random, message: str) -> str:
    """The message with one letter swapped, lost, doubled or taken for its neighbour on the keyboard."""
    places = [i for i in range(1, len(message) - 1) if message[i - 1 : i + 2].isalpha()]
    if not places:
        return message
    at = rng.choice(places)
    before, letter, after = message[:at], message[at], message[at + 1 :]
    match rng.randrange(4):
        case 0:
            return before + after[0] + letter + after[1:]
        case 1:
            return before + after
        case 2:
            return before + letter * 2 + after
        case _:
            return before + beside(rng, letter) + after


def beside(rng: Random, letter: str) -> str:
    """The letter right or left of this one on a keyboard; the letter itself where the keyboard lacks it."""
    for row in KEYS:
        place = row.find(letter.lower())
        if place >= 0:
            return row[place + 1] if place == 0 or (place < len(row) - 1 and rng.random() < 0.5) else row[place - 1]
    return letter
