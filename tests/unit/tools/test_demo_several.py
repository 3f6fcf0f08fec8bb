"""Answers to facts with several values, beside wrong ones."""

from __future__ import annotations

import pytest

from demo.measure import COURSES
from demo.several import SIGNALS, kind_of, separation


def test_any_right_value_counts_and_any_other_is_wrong() -> None:
    lessons = [lesson for course in COURSES["base"] for lesson in course.lessons]
    several = next(lesson for lesson in lessons if lesson.kind == "ambiguous")
    single = next(lesson for lesson in lessons if lesson.kind == "known")
    assert {kind_of(several, answer) for answer in several.answers()} == {"several"}
    assert kind_of(single, single.answers()[0]) == "single"
    assert kind_of(several, "I only know countries and elements.") == "wrong"


def test_a_signal_that_is_higher_for_wrong_answers_separates_them() -> None:
    right = [dict.fromkeys(SIGNALS, value) for value in (0.1, 0.3)]
    wrong = [dict.fromkeys(SIGNALS, value) for value in (0.2, 0.4)]
    assert separation(right, wrong) == pytest.approx(dict.fromkeys(SIGNALS, 0.75))
