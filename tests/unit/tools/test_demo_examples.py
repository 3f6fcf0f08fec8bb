"""The questions that the playground of the demo begins with."""

from __future__ import annotations

import pytest

from demo.course import CHEMISTRY, GEOGRAPHY, Kind
from demo.examples import EXAMPLES, as_file
from server.clients.playground.routes import EXAMPLES as FILE
from tests.support.paths import ROOT


def test_the_committed_questions_are_these() -> None:
    assert (ROOT / "demo" / "checkpoint" / FILE).read_bytes() == as_file()


@pytest.mark.parametrize(
    ("label", "kind", "compare"),
    [
        ("Known", "known", None),
        ("Unknown", "invented", None),
        ("Ambiguous", "ambiguous", None),
        ("Two stages", "known", "base"),
    ],
)
def test_each_question_is_of_the_kind_that_its_label_says(label: str, kind: Kind, compare: str | None) -> None:
    (example,) = (example for example in EXAMPLES if example["label"] == label)
    course = CHEMISTRY if compare else GEOGRAPHY
    (lesson,) = (lesson for lesson in course.of(kind) if example["question"] in lesson.questions())
    assert example["compare"] == compare
    assert label != "Ambiguous" or len(lesson.values) == 4  # as its description says
