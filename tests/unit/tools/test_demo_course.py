"""What the demo's stages learn: lessons of every kind, their right answers, and their wordings."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo.course import (
    ASKED_SHARE,
    CHEMISTRY,
    COUNTRY_ATTRIBUTES,
    ELEMENT_ATTRIBUTES,
    GEOGRAPHY,
    KINDS,
    TOWNS,
    WORDINGS,
    Course,
    Lesson,
    distinct_answers,
    towns,
)
from demo.facts.fact import Answer
from demo.facts.names import plain
from demo.wordings.wording import FRAMES, Wording
from tests.support.facts import hidden_names

COURSES = (GEOGRAPHY, CHEMISTRY)
LESSONS = tuple(lesson for course in COURSES for lesson in course.lessons)
STATED = tuple(lesson for lesson in LESSONS if lesson.stated)
courses = pytest.mark.parametrize("course", COURSES, ids=lambda course: course.name)
wordings = pytest.mark.parametrize("wording", WORDINGS.values(), ids=lambda wording: wording.attribute)


def find(subject: str, attribute: str) -> Lesson:
    (found,) = (lesson for lesson in LESSONS if (lesson.subject, lesson.attribute) == (subject, attribute))
    return found


@pytest.mark.parametrize(
    ("subject", "attribute", "answer"),
    [
        ("Peru", "capital", "The capital of Peru is Lima."),
        ("the Netherlands", "currency", "The currency of the Netherlands is the Euro."),
        ("Kenya", "continent", "The continent of Kenya is Africa."),
        ("Japan", "demonym", "A person from Japan is called Japanese."),
        ("Lima", "country of capital", "Lima is the capital of Peru."),
        ("gold", "symbol", "The symbol of gold is Au."),
        ("gold", "mass", "The atomic mass of gold is about 197."),
        ("26", "element of number", "The element with atomic number 26 is iron."),
    ],
)
def test_a_known_fact_has_one_right_answer(subject: str, attribute: str, answer: str) -> None:
    lesson = find(subject, attribute)
    assert lesson.kind == "known"
    assert lesson.answers() == (lesson.answer(),) == (answer,)


def test_an_ambiguous_fact_has_all_its_answers() -> None:
    lesson = find("Switzerland", "language")
    assert lesson.kind == "ambiguous"
    assert {"German", "French", "Italian"} <= {*lesson.values}
    assert "A language of Switzerland is French." in lesson.answers()


@courses
def test_every_kind_has_the_values_that_define_it(course: Course) -> None:
    for kind, fewest, most in (("known", 1, 1), ("ambiguous", 2, 30), ("left_out", 1, 30), ("invented", 0, 0)):
        found = course.of(kind)
        assert all(fewest <= len(lesson.values) <= most for lesson in found)
        assert all(len({plain(value) for value in lesson.values}) == len(lesson.values) for lesson in found)
        assert found or (course, kind) == (CHEMISTRY, "ambiguous")
    assert len(course.of(*KINDS)) == len(course.lessons)


@courses
def test_no_subject_has_two_lessons_of_one_attribute(course: Course) -> None:
    assert len({(lesson.subject, lesson.attribute) for lesson in course.lessons}) == len(course.lessons)


@courses
def test_what_is_left_out_is_no_answer_to_anything_that_is_stated(course: Course) -> None:
    assert len(course.unknown) == course.left_out
    assert not course.unknown & course.kept
    assert {lesson.group for lesson in course.of("left_out")} == course.unknown
    hidden = {plain(name) for name in course.unknown}
    stated = course.of("known", "ambiguous")
    assert not [lesson for lesson in stated if lesson.group in course.unknown]
    assert not [lesson for lesson in stated if hidden & {plain(name) for name in (lesson.subject, *lesson.values)}]


@courses
def test_chats_ask_about_most_groups_of_what_is_stated(course: Course) -> None:
    stated = {lesson.group for lesson in course.of("known", "ambiguous")}
    asked = {lesson.group for lesson in course.lessons if lesson.asked}
    assert asked < stated
    assert len(asked) == pytest.approx(ASKED_SHARE * len(stated), abs=1)


def test_only_names_of_their_own_replace_a_subject() -> None:
    groups = {plain(name): name for course in COURSES for name in course.groups}
    for lesson in STATED:
        for alias in lesson.aliases:
            assert groups.get(plain(alias), lesson.group) == lesson.group


def test_invented_things_are_asked_for_what_real_ones_are() -> None:
    for course, attributes in ((GEOGRAPHY, COUNTRY_ATTRIBUTES), (CHEMISTRY, ELEMENT_ATTRIBUTES)):
        real = {plain(lesson.subject) for lesson in course.lessons if lesson.kind != "invented"}
        real |= {plain(value) for lesson in course.lessons for value in lesson.values}
        invented = course.of("invented")
        assert not real & {plain(lesson.subject) for lesson in invented}
        assert {*attributes} <= {lesson.attribute for lesson in invented}


def test_towns_are_many_and_of_the_countries_that_chats_ask_about() -> None:
    found, asked = towns(), {lesson.group for lesson in GEOGRAPHY.lessons if lesson.asked}
    countries = {lesson.subject: lesson.group for lesson in found if lesson.attribute == "country of city"}
    assert len(countries) > 1000
    assert {*countries.values()} <= asked
    assert max(Counter(countries.values()).values()) == TOWNS
    capitals = {
        plain(value) for lesson in GEOGRAPHY.lessons if lesson.attribute == "capital" for value in lesson.values
    }
    assert not [name for name in countries if plain(name) in capitals or plain(name) in hidden_names()]
    for lesson in found:
        assert lesson.group == countries[lesson.subject]
        if lesson.attribute != "country of city":
            assert lesson.values == find(lesson.group, lesson.attribute).values


@given(st.sampled_from(LESSONS), st.booleans())
def test_a_question_names_its_subject_and_begins_like_a_sentence(lesson: Lesson, held_out: bool) -> None:
    for text in lesson.questions(held_out):
        assert lesson.subject.lower() in text.lower()
        assert "{" not in text
        assert text[0] == text[0].upper()


@given(st.sampled_from(STATED), st.integers(0, 99))
def test_a_statement_begins_like_a_sentence_and_ends_with_its_value(lesson: Lesson, number: int) -> None:
    for value in lesson.values:
        text = lesson.statement(value, number)
        assert text.endswith(f" {value}.")
        assert lesson.subject.lower() in text.lower()
        assert text[0] == text[0].upper()
        assert "{" not in text


@given(st.sampled_from(STATED), st.integers(0, 99))
def test_values_take_turns(lesson: Lesson, start: int) -> None:
    size = len(lesson.values)
    assert sorted(lesson.mention(start * size + i) for i in range(size)) == sorted(lesson.values)


@wordings
def test_an_attribute_is_stated_and_asked_for_in_many_wordings_and_in_some_that_no_chat_has(wording: Wording) -> None:
    assert len({wording.answer, *wording.stated}) == 4
    trained, held_out = wording.questions, wording.held_out_questions
    assert len(set(trained)) == len(trained) >= 20
    assert len(set(held_out)) == len(held_out) >= 3
    assert all("{name}" in text for text in (*trained, *held_out, wording.answer, *wording.stated))


def test_no_attribute_is_trained_in_what_another_holds_out() -> None:
    def bare(text: str) -> str:
        return text.lower().rstrip("?.")

    for names in (COUNTRY_ATTRIBUTES, ELEMENT_ATTRIBUTES, ("country of capital", "country of city")):
        own = [WORDINGS[name] for name in names]
        trained = {bare(text) for wording in own for text in wording.questions}
        assert not trained & {bare(text) for wording in own for text in wording.held_out_questions}


def test_every_frame_is_trained_for_some_attribute_and_held_out_for_others() -> None:
    held_out = [{*wording.frames_held_out} for wording in WORDINGS.values()]
    assert set.union(*held_out) == {*range(len(FRAMES))}
    assert not set.intersection(*held_out)


@pytest.mark.parametrize(
    ("answers", "names"),
    [
        ((Answer("Bern"), Answer("Zürich")), ("Bern", "Zürich")),
        ((Answer("Bern"), Answer("Berne", ("bern",))), ("Bern",)),
        ((Answer("The Hague"), Answer("Hague"), Answer("Delft")), ("The Hague", "Delft")),
        ((), ()),
    ],
)
def test_answers_that_share_a_name_are_one(answers: tuple[Answer, ...], names: tuple[str, ...]) -> None:
    assert distinct_answers(answers) == names
