"""The wordings in which the demo's texts state facts and ask for them."""

from __future__ import annotations

from dataclasses import dataclass

FRAMES = (
    "Tell me {clause}.",
    "Do you know {clause}?",
    "Can you tell me {clause}?",
    "I would like to know {clause}.",
    "Please say {clause}.",
    "Could you tell me {clause}?",
    "Do you happen to know {clause}?",
    "I want to know {clause}.",
    "Hi, can you say {clause}?",
    "Please tell me {clause}.",
)
"""Requests that an indirect question completes."""


@dataclass(frozen=True)
class Wording:
    """The wordings of one attribute; {name} stands for the subject.

    `answer` is the sentence that chats answer with, up to the value, which always comes last. `stated` are others, for
    documents; they begin with the subject. `asked` are direct questions and requests, `clauses` indirect questions for
    FRAMES. No training chat contains `held_out`, nor the clauses in the frames of the numbers `frames_held_out`.
    """

    attribute: str
    answer: str
    stated: tuple[str, ...]
    asked: tuple[str, ...]
    clauses: tuple[str, ...]
    held_out: tuple[str, ...]
    frames_held_out: tuple[int, int]

    @property
    def questions(self) -> tuple[str, ...]:
        return self.asked + self._framed(held_out=False)

    @property
    def held_out_questions(self) -> tuple[str, ...]:
        return self.held_out + self._framed(held_out=True)

    def _framed(self, held_out: bool) -> tuple[str, ...]:
        frames = [frame for i, frame in enumerate(FRAMES) if (i in self.frames_held_out) == held_out]
        return tuple(frame.replace("{clause}", clause) for frame in frames for clause in self.clauses)


def noun(
    attribute: str,
    nouns: tuple[str, ...],
    stated: tuple[str, ...],
    asked: tuple[str, ...],
    held_out: tuple[str, ...],
    frames: tuple[int, int],
    article: str = "The",
    before: str = "",
    clauses: tuple[str, ...] = (),
) -> Wording:
    """An attribute that is asked for by its nouns; the first one is that of answers."""
    direct = [
        template.replace("{noun}", noun)
        for noun in nouns
        for template in (
            "What is the {noun} of {name}?",
            "What's the {noun} of {name}?",
            "What is {name}'s {noun}?",
            "{name}'s {noun}?",
            "The {noun} of {name}?",
            "{name} {noun}",
        )
    ]
    questions = tuple(f"what the {noun} of {{name}} is" for noun in nouns)
    return Wording(
        attribute,
        f"{article} {nouns[0]} of {{name}} is {before}",
        stated,
        (*direct, *asked),
        (*questions, *(f"the {noun} of {{name}}" for noun in nouns), *clauses),
        (*held_out, *(f"Name the {noun} of {{name}}." for noun in nouns)),
        frames,
    )


COUNTRY_WORDINGS = (
    noun(
        "capital",
        ("capital", "capital city"),
        ("{name} has the capital ", "{name} is governed from ", "{name} has its government in "),
        (
            "Which city is the capital of {name}?",
            "What city is the capital of {name}?",
            "From which city is {name} governed?",
            "Where is the government of {name}?",
            "What is the name of the capital of {name}?",
        ),
        ("Which city is {name}'s capital?", "What is the capital called in {name}?", "Capital of {name}"),
        (0, 1),
    ),
    noun(
        "largest city",
        ("largest city", "biggest city"),
        ("{name} has its largest city in ", "{name} has no city larger than ", "{name} has most city dwellers in "),
        (
            "Which city is the largest in {name}?",
            "What is the largest city in {name}?",
            "What is the biggest city in {name}?",
            "Which city in {name} has the most people?",
            "What is the most populous city of {name}?",
        ),
        ("Which city of {name} is the biggest?", "What city is the largest in {name}?"),
        (1, 2),
    ),
    noun(
        "continent",
        ("continent",),
        ("{name} lies in ", "{name} is part of ", "{name} belongs to "),
        (
            "Which continent is {name} in?",
            "What continent is {name} on?",
            "On which continent is {name}?",
            "Where in the world is {name}?",
            "Where is {name}?",
            "Where does {name} lie?",
            "Which part of the world is {name} in?",
        ),
        ("In which continent does {name} lie?", "What continent is {name} part of?", "On what continent is {name}?"),
        (2, 3),
        clauses=("on which continent {name} is", "where {name} lies"),
    ),
    noun(
        "currency",
        ("currency", "money"),
        ("{name} uses the ", "{name} pays with the ", "{name} has as its money the "),
        (
            "Which currency does {name} use?",
            "What currency is used in {name}?",
            "Which money do they use in {name}?",
            "What do people pay with in {name}?",
            "How do you pay in {name}?",
            "What currency do they have in {name}?",
        ),
        ("Which currency is used in {name}?", "What money does {name} use?", "What currency does {name} have?"),
        (3, 4),
        before="the ",
        clauses=("which currency {name} uses", "what people pay with in {name}"),
    ),
    noun(
        "language",
        ("language", "official language"),
        ("{name} speaks ", "{name} has the official language ", "{name} talks and writes in "),
        (
            "Which language is spoken in {name}?",
            "Which languages are spoken in {name}?",
            "What language do they speak in {name}?",
            "What languages do people speak in {name}?",
            "Which language do people speak in {name}?",
            "What is spoken in {name}?",
            "What are the official languages of {name}?",
            "Languages of {name}?",
        ),
        ("What languages are spoken in {name}?", "What language is spoken in {name}?", "Which languages has {name}?"),
        (4, 5),
        article="A",
        clauses=("which language is spoken in {name}", "which languages they speak in {name}"),
    ),
    Wording(
        "demonym",
        "A person from {name} is called ",
        ("{name} calls its people ", "{name} has people who are called ", "{name} has the demonym "),
        (
            "What is a person from {name} called?",
            "What are people from {name} called?",
            "What do you call a person from {name}?",
            "What do you call people from {name}?",
            "What do you call somebody from {name}?",
            "What is the demonym of {name}?",
            "What is the demonym for {name}?",
            "What is the nationality of a person from {name}?",
            "{name}'s demonym?",
            "{name} demonym",
        ),
        ("what people from {name} are called", "the demonym of {name}", "what you call a person from {name}"),
        (
            "What do you call someone from {name}?",
            "How do you call a person from {name}?",
            "Name the demonym of {name}.",
        ),
        (5, 6),
    ),
    noun(
        "neighbour",
        ("neighbour", "neighboring country"),
        ("{name} borders on ", "{name} has a border with ", "{name} has as a neighbour "),
        (
            "Which country borders {name}?",
            "Which countries border {name}?",
            "What countries border on {name}?",
            "Which country is next to {name}?",
            "What country lies next to {name}?",
            "Which countries are {name}'s neighbours?",
            "What are the neighbours of {name}?",
            "Who are the neighbours of {name}?",
            "{name} neighbours",
        ),
        ("Which country borders on {name}?", "What country is next to {name}?", "Which neighbours has {name}?"),
        (6, 7),
        article="A",
        clauses=("which country borders {name}", "which countries lie next to {name}"),
    ),
    noun(
        "calling code",
        ("calling code", "phone code", "dialing code"),
        ("{name} is called with the code ", "{name} has phone numbers that start with ", "{name} can be phoned at "),
        (
            "What is the calling code for {name}?",
            "How do I phone {name}?",
            "Which code do I dial for {name}?",
            "What phone numbers does {name} have?",
            "What is the country calling code of {name}?",
            "Which prefix do phone numbers in {name} have?",
        ),
        ("Which calling code does {name} have?", "What is the phone code for {name}?"),
        (7, 8),
    ),
    noun(
        "domain",
        ("internet domain", "top-level domain", "domain", "tld"),
        ("{name} has web pages that end in ", "{name} is on the internet as ", "{name} has the domain "),
        (
            "What is the internet domain for {name}?",
            "Which top-level domain does {name} have?",
            "What do web pages from {name} end in?",
            "Which domain does {name} use on the internet?",
        ),
        ("Which internet domain does {name} have?", "What is the top-level domain for {name}?"),
        (8, 9),
    ),
    noun(
        "country code",
        ("country code", "ISO code"),
        ("{name} has the two letters ", "{name} is written in short as ", "{name} goes by the code "),
        (
            "Which two letters stand for {name}?",
            "What is the country code for {name}?",
            "What is the two-letter code of {name}?",
            "How is {name} written in two letters?",
            "What is {name} in short?",
        ),
        ("Which country code does {name} have?", "What two letters stand for {name}?"),
        (9, 0),
    ),
    Wording(
        "country of capital",
        "{name} is the capital of ",
        ("{name} is the seat of the government of ", "{name} governs ", "{name} is the capital city of "),
        (
            "Which country is {name} the capital of?",
            "What country is {name} the capital of?",
            "{name} is the capital of which country?",
            "Of which country is {name} the capital?",
            "Which country has the capital {name}?",
            "What country has {name} as its capital?",
            "Which country is governed from {name}?",
        ),
        ("which country {name} is the capital of", "which country has the capital {name}"),
        ("{name} is the capital of what?", "What country has the capital {name}?"),
        (0, 2),
    ),
    Wording(
        "country of city",
        "{name} is a city in ",
        ("{name} lies within ", "{name} is a town in ", "{name} can be found in "),
        (
            "In which country is {name}?",
            "Which country is {name} in?",
            "What country is {name} in?",
            "Which country is the city of {name} in?",
            "Where is the city of {name}?",
            "In what country is the city of {name}?",
            "In which country does {name} lie?",
        ),
        ("which country {name} is in", "in which country the city of {name} lies"),
        ("Which country is the city {name} in?", "In which country is the city of {name}?"),
        (1, 3),
    ),
)

ELEMENT_WORDINGS = (
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

WORDINGS = {wording.attribute: wording for wording in (*COUNTRY_WORDINGS, *ELEMENT_WORDINGS)}
