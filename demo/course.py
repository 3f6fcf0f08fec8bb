"""The courses of the demo's stages: facts about countries, then facts about chemical elements, each without some.

A lesson is one fact as the demo's texts treat it:

- `known`: it has one right answer, and texts state it;
- `ambiguous`: it has several right answers (the languages of Switzerland), and texts state each of them equally often;
- `left_out`: it is about a country or an element of which no text says a word, although it has right answers;
- `invented`: it is about a country, city or element that does not exist, so every answer is made up.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from random import Random
from typing import Literal, get_args

from demo.facts import countries, elements, invented
from demo.facts.corrections import MORE_NAMES
from demo.facts.fact import Answer, Fact
from demo.facts.names import plain
from demo.wordings import countries as country_wordings
from demo.wordings import elements as element_wordings
from demo.wordings.wording import Wording

Kind = Literal["known", "ambiguous", "left_out", "invented"]
KINDS: tuple[Kind, ...] = get_args(Kind)

WORDINGS = {one.attribute: one for one in (*country_wordings.WORDINGS, *element_wordings.WORDINGS)}

ASKED_SHARE = 0.85
"""The share of known countries and elements that training chats ask about. Of the others only documents tell."""

ALIASES = frozenset(name for names in MORE_NAMES.values() for name in names) - {"England", "Scotland", "Wales", "Congo"}
"""Other names that people use, such as Holland, without those of other things."""


@dataclass(frozen=True)
class Lesson:
    """`values` are the right answers as texts state them; `group` is the country or the element that it is about."""

    subject: str
    attribute: str
    kind: Kind
    values: tuple[str, ...]
    group: str
    asked: bool = False
    aliases: tuple[str, ...] = ()

    @property
    def wording(self) -> Wording:
        return WORDINGS[self.attribute]

    @property
    def stated(self) -> bool:
        return self.kind in ("known", "ambiguous")

    def answer(self, value: str | None = None) -> str:
        """The sentence with which a training chat answers: `The capital of Peru is Lima.`"""
        return filled(f"{self.wording.answer}{self.values[0] if value is None else value}.", self.subject)

    def answers(self) -> tuple[str, ...]:
        """The sentence for every right value."""
        return tuple(self.answer(value) for value in self.values)

    def statement(self, value: str, number: int) -> str:
        """Wording `number` of the fact in a document."""
        wordings = (self.wording.answer, *self.wording.stated)
        return filled(f"{wordings[number % len(wordings)]}{value}.", self.subject)

    def questions(self, held_out: bool = False) -> tuple[str, ...]:
        """All wordings of the question that training uses, or all those that it never uses."""
        templates = self.wording.held_out_questions if held_out else self.wording.questions
        return tuple(filled(template, self.subject) for template in templates)

    def mention(self, number: int) -> str:
        """The value that mention `number` states: all of them in turn, in an order of their own every time."""
        rounds, place = divmod(number, len(self.values))
        order = list(self.values)
        Random(f"{self.subject}/{self.attribute}/{rounds}").shuffle(order)
        return order[place]


@dataclass(frozen=True)
class Course:
    """All lessons of one field. `left_out` of its countries or elements appear in no text."""

    name: str
    facts: tuple[Fact, ...]
    left_out: int
    kept: frozenset[str]
    """Countries or elements that are never left out: examples and documents name them."""

    invented: tuple[tuple[str, tuple[str, ...]], ...]
    """Names of things that do not exist, and the attributes that they are asked for."""

    @cached_property
    def groups(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(fact.group for fact in self.facts))

    @cached_property
    def unknown(self) -> frozenset[str]:
        """The countries or elements that no text names."""
        choice = [group for group in self.groups if group not in self.kept]
        return frozenset(Random(f"left out/{self.name}").sample(choice, self.left_out))

    @cached_property
    def asked(self) -> frozenset[str]:
        """The countries or elements that training chats ask about."""
        choice = [group for group in self.groups if group not in self.unknown]
        return frozenset(Random(f"asked/{self.name}").sample(choice, round(ASKED_SHARE * len(choice))))

    @cached_property
    def lessons(self) -> tuple[Lesson, ...]:
        taught = [lesson for fact in self.facts if (lesson := self._lesson(fact)) is not None]
        made_up = [
            Lesson(name, attribute, "invented", (), name)
            for name, attributes in self.invented
            for attribute in attributes
        ]
        return (*taught, *made_up)

    def _lesson(self, fact: Fact) -> Lesson | None:
        """None where all right answers are left out of the texts."""
        unknown = fact.group in self.unknown
        hidden = set() if unknown else {plain(name) for name in self.unknown}
        values = tuple(name for name in distinct_answers(fact.answers) if plain(name) not in hidden)
        if not values:
            return None
        kind: Kind = "left_out" if unknown else "known" if len(values) == 1 else "ambiguous"
        others = tuple(name for name in fact.aliases if name in ALIASES)
        return Lesson(fact.subject, fact.attribute, kind, values, fact.group, fact.group in self.asked, others)

    def of(self, *kinds: Kind) -> list[Lesson]:
        return [lesson for lesson in self.lessons if lesson.kind in kinds]


def towns() -> list[Lesson]:
    """Facts about cities that follow from those about countries, for texts that mention many a name once or twice.

    They are neither asked for nor counted: texts state too little of each to say whether it is known.
    """
    by_country: dict[str, list[Lesson]] = {}
    for lesson in GEOGRAPHY.of("known", "ambiguous"):
        if lesson.asked and lesson.subject == lesson.group and lesson.attribute in TOWN_ATTRIBUTES:
            by_country.setdefault(lesson.group, []).append(lesson)
    found = []
    for country in countries.countries().values():
        if country.name in by_country:
            for name in countries.towns(country, TOWNS):
                found.append(Lesson(name, "country of city", "known", (country.name,), country.name))
                found += [replace(lesson, subject=name, aliases=()) for lesson in by_country[country.name]]
    return found


def distinct_answers(answers: tuple[Answer, ...]) -> tuple[str, ...]:
    """The names of different things: two answers that share a name are one."""
    found: list[Answer] = []
    for answer in answers:
        own = {plain(name) for name in (answer.name, *answer.names)}
        if not any(own & {plain(name) for name in (other.name, *other.names)} for other in found):
            found.append(answer)
    return tuple(answer.name for answer in found)


def filled(template: str, subject: str) -> str:
    """The template about this subject, with a capital at its beginning."""
    text = template.replace("{name}", subject)
    return text[0].upper() + text[1:]


COUNTRY_ATTRIBUTES = ("capital", "continent", "currency", "language", "demonym", "neighbour", "calling code", "domain")
TOWN_ATTRIBUTES = ("continent", "currency", "language", "calling code", "domain")
TOWNS = 20
"""The number of cities of a country that texts mention."""

ELEMENT_ATTRIBUTES = ("symbol", "atomic number", "group", "period", "mass")

GEOGRAPHY = Course(
    "geography",
    tuple(countries.facts()),
    left_out=40,
    kept=frozenset(
        (
            *("Peru", "Switzerland", "South Africa", "France", "Germany", "Italy", "Spain", "Japan", "China", "India"),
            *("the United States", "the United Kingdom", "Egypt", "Kenya", "Canada", "Mexico", "Australia", "Belgium"),
            "Brazil",
        )
    ),
    invented=(
        *((name, COUNTRY_ATTRIBUTES) for name in invented.COUNTRIES),
        *((name, ("country of capital", "country of city")) for name in invented.CITIES),
    ),
)
CHEMISTRY = Course(
    "chemistry",
    tuple(elements.facts()),
    left_out=15,
    kept=frozenset(("hydrogen", "helium", "carbon", "oxygen", "iron", "copper", "silver", "gold", "mercury", "lead")),
    invented=tuple((name, ELEMENT_ATTRIBUTES) for name in invented.ELEMENTS),
)
