"""The kinds of answers that a calibration holds for."""

from __future__ import annotations

from typing import get_args

import pytest

from server.uncertainty.reason import MEANINGS, AnswerKind, NoRisk, Population, is_of_sentences, unlike

CHATS: Population = {"forms": {"chat": 100}, "finish_reasons": {"stop": 100}, "units": {"answer": 100}}


def population(chats: int, completions: int, cut_off: int) -> Population:
    forms = {"chat": chats, "completion": completions}
    ends = {"stop": chats + completions - cut_off, "length": cut_off}
    return {"forms": forms, "finish_reasons": ends, "units": {"answer": 1}}  # type: ignore[typeddict-item]


def test_every_reason_has_a_meaning() -> None:
    assert tuple(MEANINGS) == get_args(NoRisk)
    assert all(MEANINGS.values())


@pytest.mark.parametrize(
    ("fitted_on", "kind", "expected"),
    [
        (CHATS, AnswerKind("chat", "stop"), None),
        (CHATS, AnswerKind("chat", None), None),
        (CHATS, AnswerKind("completion", "stop"), "other_form"),
        (CHATS, AnswerKind("chat", "length"), "truncated"),
        (CHATS, AnswerKind("chat", "repetition"), "truncated"),
        (CHATS, AnswerKind("chat", "stop", calls_only=True), "tool_calls"),
        (None, AnswerKind("chat", "stop", calls_only=True), "tool_calls"),
        (None, AnswerKind("chat", "stop", constrained=True), "constrained"),
        (None, AnswerKind("completion", "length"), None),
        (population(0, 100, 100), AnswerKind("completion", "length"), None),
        (population(0, 100, 100), AnswerKind("completion", "stop"), None),
        (population(0, 100, 100), AnswerKind("chat", "stop"), "other_form"),
        # A kind counts from one label in ten on.
        (population(90, 10, 10), AnswerKind("completion", "length"), None),
        (population(91, 9, 10), AnswerKind("completion", "stop"), "other_form"),
        (population(90, 10, 9), AnswerKind("completion", "length"), "truncated"),
    ],
)
def test_a_calibration_holds_for_answers_like_its_labels(
    fitted_on: Population | None, kind: AnswerKind, expected: NoRisk | None
) -> None:
    assert unlike(fitted_on, kind) == expected


def test_labels_are_of_sentences_where_hardly_any_calls_a_whole_answer_wrong() -> None:
    assert not is_of_sentences(None)
    for answers, of_sentences in ((0, True), (9, True), (10, False), (100, False)):
        assert is_of_sentences(CHATS | {"units": {"answer": answers, "sentence": 100 - answers}}) == of_sentences
