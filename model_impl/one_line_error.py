"""Errors about users' files. The module imports nothing, so that they are reported at once."""

from __future__ import annotations

LONGEST_MESSAGE = 1000


class OneLineError(ValueError):
    """An error whose message is one printable line, whatever names from damaged files it repeats."""

    def __init__(self, message: str) -> None:
        cut = message if len(message) <= LONGEST_MESSAGE else f"{message[:LONGEST_MESSAGE]}..."
        super().__init__("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut))
