"""A fact, with every name of its subject and of its right answers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """One right answer: its name as a text would state it, and the other names that it goes by."""

    name: str
    names: tuple[str, ...] = ()
    codes: tuple[str, ...] = ()
    """Names whose case matters: PEN is a currency, a pen is none."""
    bare: tuple[str, ...] = ()
    """Names that are right where no other word qualifies them: in Canada a dollar is right, a US dollar is not."""


@dataclass(frozen=True)
class Fact:
    """An attribute of a subject, with all its right answers. Facts of one `group` are about one country or element."""

    subject: str
    aliases: tuple[str, ...]
    attribute: str
    answers: tuple[Answer, ...]
    group: str
