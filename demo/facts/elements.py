"""Facts about the chemical elements, from periodictable (public domain); periods and groups follow from the number."""

from __future__ import annotations

from collections.abc import Iterator

import periodictable

from demo.facts.fact import Answer, Fact

SPELLINGS = {"aluminum": ("aluminium",), "cesium": ("caesium",), "sulfur": ("sulphur",)}
NOBLE_GASES = (0, 2, 10, 18, 36, 54, 86, 118)
"""The numbers at which the periods end."""

PERIODS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh")


def facts() -> list[Fact]:
    return [fact for element in periodictable.elements if element.number for fact in facts_of(element)]


def facts_of(element: periodictable.core.Element) -> Iterator[Fact]:
    name, number, symbol = element.name, str(element.number), element.symbol
    names = next(((one, *others) for one, others in SPELLINGS.items() if name in (one, *others)), (name,))
    itself = Answer(name, names)
    yield Fact(name, names, "symbol", (Answer(symbol, codes=(symbol,)),), name)
    yield Fact(name, names, "atomic number", (Answer(number, (number,)),), name)
    yield Fact(name, names, "period", (period(element.number),), name)
    column, mass = group(element.number), element.mass
    if column is not None:
        yield Fact(name, names, "group", (Answer(str(column), (str(column),)),), name)
    if not float(mass).is_integer():  # that of an isotope, where no stable one has given the element a weight
        yield Fact(name, names, "mass", (Answer(f"{mass:.0f}", (f"{mass:.0f}",)),), name)
    yield Fact(symbol, (symbol,), "element of symbol", (itself,), name)
    yield Fact(number, (number,), "element of number", (itself,), name)


def group(number: int) -> int | None:
    """The column of the periodic table; None for lanthanides and actinides, about which tables disagree."""
    last, period_length = noble_gas_before(number), length_of_period(number)
    place = number - last
    if place <= 2 and number != 2:
        return place
    found = place - period_length + 18
    return found if found > 3 or period_length == 18 else None


def noble_gas_before(number: int) -> int:
    return max(last for last in NOBLE_GASES if last < number)


def length_of_period(number: int) -> int:
    return min(last for last in NOBLE_GASES if last >= number) - noble_gas_before(number)


def period(number: int) -> Answer:
    found = next(i for i, last in enumerate(NOBLE_GASES) if number <= last)
    ordinal = PERIODS[found - 1]
    suffix = {1: "st", 2: "nd", 3: "rd"}.get(found, "th")
    return Answer(str(found), (str(found), ordinal, f"{found}{suffix}"))
