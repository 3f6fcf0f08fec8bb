"""The labels for the demo checkpoint's calibration: their mix, and the right answers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from itertools import islice

import pytest

from demo.course import Lesson
from demo.labels import MANNERS_TOPIC, NO_ANSWER, NOT_STATED, STATED, Labels
from demo.measure import COURSES
from server.calibrate.labels import Label, read_labels
from tests.support.facts import hidden_names_in
from tests.support.paths import ROOT


@pytest.fixture(scope="module", params=COURSES)
def stage(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def lessons(stage: str) -> list[Lesson]:
    return [lesson for course in COURSES[stage] for lesson in course.lessons]


@pytest.fixture(scope="module")
def labels(stage: str, tmp_path_factory: pytest.TempPathFactory) -> list[Label]:
    """As the script writes them and `tokenformer calibrate` reads them."""
    file = tmp_path_factory.mktemp("labels") / "labels.jsonl"
    with file.open("w") as stream:
        subprocess.run([sys.executable, "-m", "demo.labels", stage], stdout=stream, check=True, cwd=ROOT)
    return list(read_labels(file).labels)


def asked(label: Label) -> str:
    return str(label.prompt[-1]["content"])  # type: ignore[index]


def test_they_are_always_the_same(stage: str, labels: list[Label]) -> None:
    again = islice(Labels(stage), 50)
    assert [json.dumps(line["messages"]) for line in again] == [json.dumps(label.prompt) for label in labels[:50]]


def test_every_lesson_is_asked_for_with_its_right_answers(lessons: list[Lesson], labels: list[Label]) -> None:
    expected = Counter[tuple[str, str, frozenset[str]]]()
    for lesson in lessons:
        answers = frozenset(lesson.answers()) or frozenset({NO_ANSWER})
        expected[lesson.group, lesson.attribute, answers] += STATED if lesson.stated else NOT_STATED
    found = Counter(
        (label.group, label.topic, frozenset(label.expected))
        for label in labels
        if label.topic != MANNERS_TOPIC and label.answer is None
    )
    assert found == expected


def test_no_answer_about_something_invented_is_right(lessons: list[Lesson], labels: list[Label]) -> None:
    invented = {lesson.group for lesson in lessons if lesson.kind == "invented"}
    about_invented = [label for label in labels if label.group in invented]
    answers = {answer for lesson in lessons for answer in lesson.answers()}
    assert about_invented
    assert not [label for label in about_invented if any(map(label.is_correct, answers))]


def test_labels_have_the_documented_mix(lessons: list[Lesson], labels: list[Label]) -> None:
    stated = {lesson.group for lesson in lessons if lesson.stated}
    size, talk = len(labels), [label for label in labels if label.topic == MANNERS_TOPIC]
    about_stated = [label for label in labels if label.group in stated and label.topic != MANNERS_TOPIC]
    assert size > 8000
    given = [label for label in labels if label.answer is not None]
    assert len(talk) / size == pytest.approx(0.05, abs=0.01)
    assert len(given) / size == pytest.approx(0.05, abs=0.01)
    assert sum(bool(label.correct) for label in given) * 2 == len(given)
    assert len(about_stated) / (size - len(talk)) == pytest.approx(0.62, abs=0.03)
    assert sum(len(label.prompt) > 1 for label in labels) / size == pytest.approx(0.25, abs=0.02)
    assert all(label.expected for label in labels if label.answer is None)
    assert all(label.group for label in labels)
    assert {label.topic for label in labels} == {lesson.attribute for lesson in lessons} | {MANNERS_TOPIC}


def test_half_of_the_wordings_are_never_trained(lessons: list[Lesson], labels: list[Label]) -> None:
    texts = {asked(label) for label in labels}
    trained, held_out = (
        len(texts & {text for lesson in lessons for text in lesson.questions(held_out)}) for held_out in (False, True)
    )
    assert trained + held_out > len(labels) / 3  # others are typed in other ways
    assert held_out / (trained + held_out) == pytest.approx(0.5, abs=0.1)


def test_an_earlier_turn_is_about_nothing_that_texts_leave_out(lessons: list[Lesson], labels: list[Label]) -> None:
    answers = {answer for lesson in lessons if lesson.kind == "known" for answer in lesson.answers()}
    earlier = [str(turn["content"]) for label in labels for turn in label.prompt[:-1]]  # type: ignore[index]
    messages, replies = earlier[::2], earlier[1::2]
    assert sum(reply in answers for reply in replies) / len(replies) == pytest.approx(0.5, abs=0.05)
    assert not [turn for turn in zip(messages, replies, strict=True) if hidden_names_in(" ".join(turn))]
