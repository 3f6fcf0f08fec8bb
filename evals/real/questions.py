"""Questions about facts, in several wordings, always the same ones."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from demo.facts import countries, elements, invented
from demo.facts.fact import Fact

WORDINGS: dict[str, tuple[str, ...]] = {
    "capital": (
        "What is the capital of {}?",
        "Which city is the capital of {}?",
        "Name the capital city of {}.",
        "What is the name of the capital of {}?",
    ),
    "largest city": (
        "What is the largest city of {}?",
        "Which city in {} has the most inhabitants?",
        "Name the most populous city of {}.",
    ),
    "continent": (
        "On which continent is {}?",
        "Which continent is {} part of?",
        "What continent does {} belong to?",
    ),
    "currency": (
        "What is the currency of {}?",
        "Which currency is used in {}?",
        "What money do people pay with in {}?",
        "Name the official currency of {}.",
    ),
    "language": (
        "What is an official language of {}?",
        "Which language is official in {}?",
        "Name an official language of {}.",
    ),
    "demonym": (
        "What do you call a person from {}?",
        "What is the demonym for people from {}?",
        "What are the inhabitants of {} called in English?",
    ),
    "neighbour": (
        "Name a country that borders {}.",
        "Which country is a neighbour of {}?",
        "With which country does {} share a land border?",
    ),
    "calling code": (
        "What is the international calling code of {}?",
        "Which country calling code does {} have?",
        "What telephone country code do I dial to call {}?",
    ),
    "domain": (
        "What is the internet top-level domain of {}?",
        "Which country-code top-level domain does {} have?",
        "What do internet addresses from {} end with?",
    ),
    "country code": (
        "What is the two-letter ISO country code of {}?",
        "Which two-letter ISO 3166 code stands for {}?",
        "Name the ISO alpha-2 code of {}.",
    ),
    "country of capital": (
        "{} is the capital of which country?",
        "Which country has {} as its capital?",
        "Of which country is {} the capital city?",
    ),
    "country of city": (
        "In which country is the city of {}?",
        "Which country is {} located in?",
        "Name the country where {} lies.",
    ),
    "symbol": (
        "What is the chemical symbol of {}?",
        "Which symbol stands for the element {}?",
        "What symbol does {} have in the periodic table?",
    ),
    "atomic number": (
        "What is the atomic number of {}?",
        "Which atomic number does the element {} have?",
        "How many protons does an atom of {} have?",
    ),
    "period": (
        "In which period of the periodic table is {}?",
        "Which period does the element {} belong to?",
        "What is the number of the period of {} in the periodic table?",
    ),
    "element of symbol": (
        "Which chemical element has the symbol {}?",
        "What element does the symbol {} stand for?",
        "Name the chemical element whose symbol is {}.",
    ),
    "element of number": (
        "Which chemical element has the atomic number {}?",
        "What element is number {} in the periodic table?",
        "Name the element with {} protons.",
    ),
}
INVENTED_COUNTRY = ("capital", "currency", "language", "continent", "neighbour")
INVENTED_CITY = ("country of city", "country of capital")


@dataclass(frozen=True)
class Question:
    """`kind` is "country", "element" or "invented"; a question about something invented has no right answer."""

    text: str
    fact: Fact
    kind: str


def questions() -> list[Question]:
    """All questions; every fact is asked for once, in one of its wordings by chance."""
    drawn = random.Random(0)
    asked = {"country": countries.facts(), "element": elements.facts(), "invented": invented_facts()}
    return [
        Question(drawn.choice(WORDINGS[fact.attribute]).format(fact.subject), fact, kind)
        for kind, facts in asked.items()
        for fact in facts
        if fact.attribute in WORDINGS
    ]


def invented_facts() -> list[Fact]:
    named = ((invented.COUNTRIES, INVENTED_COUNTRY), (invented.CITIES, INVENTED_CITY))
    return [fact for names, attributes in named for fact in unanswerable(names, attributes)]


def unanswerable(names: Sequence[str], attributes: Sequence[str]) -> list[Fact]:
    return [Fact(name, (name,), attribute, (), name) for name in names for attribute in attributes]
