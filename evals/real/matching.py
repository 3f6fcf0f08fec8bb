"""Whether an answer is right: a normalised match of its first sentence with all names of the right answers.

An answer is right if it states a right answer, and nothing else that answers other questions of the attribute
("English and French" is wrong where only French is official). Where values are numbers, the first one decides, since
others follow in explanations. The question's own words count for nothing: the subject is skipped wherever it is named,
and a right answer that is part of the subject's name does not count behind a preposition ("the capital of Bissau is
Portoão"). An answer that says that it does not know is never right, except about something invented.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

from demo.facts.fact import Answer, Fact
from demo.facts.names import Word, plain, raw, within, words
from server.uncertainty.sentences import sentences

Phrase = tuple[str, ...]

NUMBERS = ("calling code", "atomic number", "period")
"""Attributes whose values are numbers."""

CONTINENT_PARTS = frozenset((part, "america") for part in ("north", "south", "central", "latin"))
"""They name no country, though America does."""

ENGLISH_WORDS = frozenset((word,) for word in ("mark", "real", "won"))
"""Bare names of currencies that are other words as well."""

PREPOSITIONS = ("of", "in", "from", "for")

UNQUALIFIED = frozenset(
    [
        "the",
        "a",
        "an",
        "is",
        "are",
        "its",
        "called",
        "named",
        "as",
        "of",
        "in",
        "use",
        "uses",
        "official",
        "currency",
        "local",
        "and",
        "or",
        "with",
    ]
)
"""Words before a currency's bare name that do not make another currency of it."""

NOT_KNOWN = re.compile(
    r"\b(?:(?:do|does|did|could|can)(?: not|n['’]t) (?:know|have|find|provide|exist|recogni[sz]e)"  # noqa: RUF001
    r"|(?:do|can)not (?:know|find|provide)|not (?:aware|sure|familiar|certain|a real|a recogni[sz]ed|an? actual)"
    r"|no (?:such|country|city|place|known|real|record|information)\b|fictional|fictitious|imaginary|invented"
    r"|unknown|sorry|unable to|does not appear)",
    re.IGNORECASE,
)


def first_sentence(text: str) -> str:
    """The part of an answer that is judged."""
    start, end = next(iter(sentences(text)), (0, len(text)))
    return text[start:end]


def says_unknown(text: str) -> bool:
    """Whether an answer says that it does not know, or that there is no such thing."""
    return NOT_KNOWN.search(first_sentence(text)) is not None


@dataclass(frozen=True)
class Values:
    """The names of answers, as phrases of words: normalised ones, and codes as they are written.

    `usual` are the answers' own names: in other languages, names are words of English as well (Island, for Iceland).
    """

    names: frozenset[Phrase]
    usual: frozenset[Phrase]
    codes: frozenset[Phrase]
    bare: frozenset[Phrase]

    @staticmethod
    @cache
    def of(answers: tuple[Answer, ...]) -> Values:
        names = {plain(name) for answer in answers for name in (answer.name, *answer.names) if answer.names}
        usual = {plain(answer.name) for answer in answers if answer.names}
        codes = frozenset(raw(code) for answer in answers for code in answer.codes)
        return Values(
            frozenset(names),
            frozenset(usual),
            codes,
            frozenset(plain(bare) for answer in answers for bare in answer.bare),
        )

    @cached_property
    def longest(self) -> int:
        return max(map(len, self.names | self.codes), default=0)


@dataclass(frozen=True)
class Matcher:
    """Labels answers; `values` are those of all facts, by attribute."""

    values: Mapping[str, Values]

    @staticmethod
    def of(facts: Sequence[Fact]) -> Matcher:
        by: dict[str, list[Answer]] = {}
        for fact in facts:
            by.setdefault(fact.attribute, []).extend(fact.answers)
        return Matcher({attribute: Values.of(tuple(answers)) for attribute, answers in by.items()})

    def is_right(self, fact: Fact, text: str) -> bool:
        if not fact.answers or says_unknown(text):
            return not fact.answers and says_unknown(text)
        stated = list(self.stated(fact, words(first_sentence(text))))
        return bool(stated) and all(stated[:1] if fact.attribute in NUMBERS else stated)

    def stated(self, fact: Fact, text: Sequence[Word]) -> Iterator[bool]:
        """For each value of the attribute that the text states, in order, whether it is right."""
        right, every = Values.of(fact.answers), self.values[fact.attribute]
        own = {plain(name) for name in (fact.subject, *fact.aliases)} - right.names | {plain(fact.subject)}
        longest = max(every.longest, right.longest, *map(len, own))
        at = 0
        while at < len(text):
            before = text[at - 1].plain if at else ""
            if fact.attribute == "demonym" and before == "in":  # "Mongol, in Mongolian" names a language
                at += 1
                continue
            for size in range(min(longest, len(text) - at), 0, -1):
                part = text[at : at + size]
                name, code = tuple(word.plain for word in part), tuple(word.raw for word in part)
                if name in own or name in CONTINENT_PARTS - right.names - every.names:
                    break
                if name in right.names or code in right.codes:
                    if not (before in PREPOSITIONS and any(within(name, subject) for subject in own)):
                        yield True
                    break
                if name in right.bare and (not before or before in UNQUALIFIED):
                    yield True
                    break
                if (
                    name in (every.names if fact.attribute in NUMBERS else every.usual)
                    or name in every.bare - right.bare - ENGLISH_WORDS
                ):
                    yield False
                    break
                if code in every.codes and (at or len(text) == size):  # a sentence may begin with As, In, or No
                    yield False
                    break
            else:
                size = 1
            at += size
