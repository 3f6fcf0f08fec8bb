"""Labels that the checks accept end in a calibration with its figures; all others are refused in one line."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st

from server.calibrate.command import check_labels, judged, numbered
from server.calibrate.fitting import Answers, split
from server.calibrate.labels import Label
from server.calibrate.plots import reliability_plot, risk_coverage_plot
from server.calibrate.report import report
from server.uncertainty.calibration import METHODS, CalibrationError, Method, load_calibration
from server.uncertainty.features import CERTAIN, GROUPS

NAMES = GROUPS["logits"] + GROUPS["growth"]


@dataclass(frozen=True)
class Question:
    right: int
    wrong: int


@st.composite
def questions(draw: st.DrawFn) -> list[Question]:
    """Some with many answers and most with few, as by Zipf's law, or any; answers of one kind, or of both."""
    count = draw(st.integers(8, 60))
    exponent = draw(st.sampled_from([0.0, 0.5, 1.0, 2.0]))
    most = draw(st.integers(2, 40))
    share = draw(st.sampled_from([0.1, 0.4, 0.6]))
    mixed = draw(st.booleans())
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    found = []
    for rank in range(1, count + 1):
        size = max(1, round(most / rank**exponent))
        wrong = int(generator.binomial(size, share) if mixed else size * (generator.random() < share))
        found.append(Question(size - wrong, wrong))
    return found


def labels_of(found: list[Question], topics: int = 1) -> list[Label]:
    kinds = [(i, correct) for i, q in enumerate(found) for correct in [True] * q.right + [False] * q.wrong]
    return [
        Label(line, f"question {i:03}", "answer", correct, topic=f"topic {i % topics}")
        for line, (i, correct) in enumerate(kinds, 1)
    ]


def answers_of(labels: list[Label], telling: float, generator: np.random.Generator) -> Answers:
    """Doubts at random, larger for wrong answers by `telling`; 0: all answers are the same."""
    wrong = np.array([not label.correct for label in labels])
    doubt = generator.gamma(1, 1, (len(labels), len(NAMES))) + wrong[:, None]
    rows = [
        {name: CERTAIN.get(name, 0.0) + telling * value for name, value in zip(NAMES, row, strict=True)}
        for row in doubt.tolist()
    ]
    return Answers(rows, wrong, numbered([label.cluster for label in labels]), [label.topic for label in labels])


def accepts(labels: list[Label]) -> bool:
    try:
        check_labels(labels, None)
    except CalibrationError as error:
        assert str(error).startswith("--data: ")
        assert "\n" not in str(error)
        return False
    return True


def numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from numbers(part)
    elif isinstance(value, int | float):
        yield value


def halves(fitted: list[Question], held: list[Question]) -> list[Question]:
    """Questions that the split puts on these sides."""
    assert len(fitted) == len(held)
    found = [Question(0, 0)] * (2 * len(held))
    for rows, part in zip(split(np.arange(len(found))), (fitted, held), strict=True):
        for row, question in zip(rows, part, strict=True):
            found[row] = question
    return found


FEW = [Question(6, 6), *[Question(1, 1)] * 4]
EVEN = [Question(2, 2)] * 5
WRONG_FOLD = [Question(4, 7), Question(6, 1), Question(7, 2), Question(0, 6), Question(1, 3), Question(6, 2)]
"""The fourth is a fold by itself."""


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(METHODS), questions(), st.sampled_from([0.0, 1e-9, 1.0, 1e4]), st.integers(0, 9), st.integers(1, 20)
)
@example("logistic", halves(EVEN, FEW), 1.0, 0, 1)
@example("isotonic", halves(FEW, EVEN), 1.0, 0, 3)
@example("probe", halves(WRONG_FOLD, WRONG_FOLD), 1.0, 0, 2)
def test_accepted_labels_end_in_figures(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: Method,
    found: list[Question],
    telling: float,
    seed: int,
    topics: int,
) -> None:
    monkeypatch.setattr("server.calibrate.figures.RESAMPLES", 30)
    labels = labels_of(found, topics)
    accepted = accepts(labels)
    event("accepted" if accepted else "refused")
    if not accepted:
        return
    answers = answers_of(labels, telling, np.random.default_rng(seed))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a fold that has no score is but a warning to scikit-learn
        made = judged(answers, method, "f" * 64, "base", None)
    made = replace(made, data=made.data | {"sha256": "0" * 64})
    assert all(map(math.isfinite, numbers(made.to_dict())))
    assert sum(entry["answers"] for entry in made.figures["reliability"]) == made.data["held_out"]
    file = tmp_path / "calibration.json"
    file.write_text(json.dumps(made.to_dict(), allow_nan=False))
    assert load_calibration(file).to_dict() == json.loads(file.read_text())
    assert "nan" not in report(made, "calibration")
    for plot in (reliability_plot, risk_coverage_plot):
        assert b"nan" not in plot(made.figures)


@settings(deadline=None)
@given(questions(), st.randoms(use_true_random=False))
def test_labels_that_ask_the_model_are_refused_only_where_no_answers_would_do(found: list[Question], draw: Any) -> None:
    labels = labels_of(found)
    asking = [
        replace(label, answer=None, correct=None, expected=("answer",)) if draw.random() < 0.5 else label
        for label in labels
    ]
    if accepts(labels):
        assert accepts(asking)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ([Question(30, 30)], "all labels are of one group, or of one prompt"),
        (
            [Question(3, 0)] * 40,
            "of the 60 answers fitted on, 60 are right and 0 wrong; at least 10 of each are needed",
        ),
        (
            [Question(30, 30)] * 8,
            "too few questions: of the answers fitted on, 4 have ones that are right and 4 ones that are wrong; at "
            "least 5 are needed for each",
        ),
    ],
)
def test_the_message_says_what_is_lacking(found: list[Question], message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        check_labels(labels_of(found), None)


def test_labels_that_ask_the_model_are_refused_before_it_is_asked() -> None:
    asking = [Label(line, f"question {line}", None, None, ("answer",)) for line in range(38)]
    right = [Label(line, "question", "answer", True) for line in range(38, 100)]
    with pytest.raises(CalibrationError, match=r"the \d+ answers .*, \d+ can be right and \d+ wrong"):
        check_labels(asking[:8] + right, None)


def test_an_error_rate_that_no_so_few_answers_can_promise() -> None:
    labels = labels_of([Question(1, 1)] * 40)
    check_labels(labels, 0.05)
    with pytest.raises(
        CalibrationError, match=r"--abstain: 0.02 cannot be promised by 40 held-out answers; it takes 49"
    ):
        check_labels(labels, 0.02)
