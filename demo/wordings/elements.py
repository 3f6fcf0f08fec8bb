"""The wordings of facts about chemical elements."""

from __future__ import annotations

from demo.wordings.wording import Wording, noun

WORDINGS = (
    noun(
        "symbol",
        ("symbol", "chemical symbol"),
        (
            "The element {name} is written as ",
            "The element {name} has the symbol ",
            "The element {name} is abbreviated to ",
        ),
        (
            "Which symbol does {name} have?",
            "What is the symbol for {name}?",
            "What is the chemical symbol for {name}?",
            "How is {name} abbreviated?",
            "Which letters stand for {name}?",
            "What is {name}'s symbol in the periodic table?",
            "What is the symbol of the element {name}?",
        ),
        ("What symbol does {name} have?", "Which chemical symbol does {name} have?", "Symbol of {name}"),
        (0, 1),
    ),
    noun(
        "atomic number",
        ("atomic number", "number"),
        (
            "The element {name} has the number ",
            "The element {name} has as many protons as ",
            "The element {name} stands at place ",
        ),
        (
            "Which atomic number does {name} have?",
            "How many protons does {name} have?",
            "How many protons are in {name}?",
            "What is {name}'s number in the periodic table?",
            "What is the number of the element {name}?",
        ),
        ("What atomic number does {name} have?", "How many protons has {name}?"),
        (1, 2),
    ),
    noun(
        "group",
        ("group",),
        (
            "The element {name} is in group ",
            "The element {name} belongs to group ",
            "The element {name} stands in column ",
        ),
        (
            "Which group is {name} in?",
            "What group does {name} belong to?",
            "In which group is {name}?",
            "Which column of the periodic table is {name} in?",
            "Which group of the periodic table is {name} in?",
        ),
        ("Which group does {name} belong to?", "What group is {name} in?"),
        (2, 3),
    ),
    noun(
        "period",
        ("period",),
        (
            "The element {name} is in period ",
            "The element {name} belongs to period ",
            "The element {name} stands in row ",
        ),
        (
            "Which period is {name} in?",
            "What period does {name} belong to?",
            "In which period is {name}?",
            "Which row of the periodic table is {name} in?",
            "Which period of the periodic table is {name} in?",
        ),
        ("Which period does {name} belong to?", "What period is {name} in?"),
        (3, 4),
    ),
    noun(
        "mass",
        ("atomic mass", "atomic weight", "mass"),
        (
            "The element {name} weighs about ",
            "The element {name} has a mass of about ",
            "The element {name} has an atomic weight of about ",
        ),
        (
            "How heavy is {name}?",
            "How much does an atom of {name} weigh?",
            "Which atomic mass does {name} have?",
            "What does {name} weigh?",
            "What is the mass of an atom of {name}?",
        ),
        ("What atomic mass does {name} have?", "How heavy is an atom of {name}?"),
        (4, 5),
        before="about ",
    ),
    Wording(
        "element of symbol",
        "{name} is the symbol of ",
        ("{name} stands for ", "{name} is short for ", "{name} is the abbreviation of "),
        (
            "Which element has the symbol {name}?",
            "What element has the symbol {name}?",
            "What does {name} stand for?",
            "Which element is {name}?",
            "What is {name} in the periodic table?",
            "What element does {name} stand for?",
            "{name} is the symbol of which element?",
        ),
        ("which element has the symbol {name}", "which element {name} stands for"),
        ("Which element does {name} stand for?", "What is the element with the symbol {name}?"),
        (5, 6),
    ),
    Wording(
        "element of number",
        "The element with atomic number {name} is ",
        ("Number {name} in the periodic table is ", "Place {name} belongs to ", "{name} protons make "),
        (
            "Which element has the atomic number {name}?",
            "What element has atomic number {name}?",
            "Which element is number {name}?",
            "What is element number {name}?",
            "Which element has {name} protons?",
            "What is element {name}?",
            "Which element has the number {name}?",
        ),
        ("which element has the atomic number {name}", "which element is number {name}"),
        ("Which element has atomic number {name}?", "What element has {name} protons?"),
        (6, 7),
    ),
)
