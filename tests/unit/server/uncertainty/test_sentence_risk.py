"""The uncertainty and the risk of an answer's sentences, and the answer's risk by theirs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from server.uncertainty.calibration import Calibration
from server.uncertainty.reason import Population
from server.uncertainty.score import ChoiceScore, EnsembleScore
from server.uncertainty.tokens import TokenScore

PARTS = [
    ("It", 0.2),
    (" rains", 0.3),
    (".", 0.0),
    (" She", 0.4),
    (" keeps", 0.1),
    (" a", 0.0),
    (" cat", 1.6),
    (".", 0.1),
]
TEXT = "".join(text for text, _ in PARTS)
SENTENCES: Population = {"forms": {"chat": 9}, "finish_reasons": {"stop": 9}, "units": {"sentence": 9}}


def score(echoed: str = "") -> ChoiceScore:
    tokens, start = [], len(echoed)
    for text, entropy in PARTS:
        tokens.append(TokenScore(-0.1 - entropy, entropy, 0.5, 0.1, text, start, epistemic=entropy / 100))
        start += len(text)
    return ChoiceScore.of([*tokens, TokenScore(-0.2, 0.05, 0.5, 0.9, "", start, special=True, epistemic=0.0)])


def linear(feature: str, coefficient: float, intercept: float) -> Calibration:
    return Calibration("logistic", "f" * 64, "base", [feature], [coefficient], intercept, lowest=[-1e9], highest=[1e9])


BY_ENTROPY = linear("max_entropy", 2.0, -1.0)


def test_sentences_have_the_numbers_of_their_own_tokens() -> None:
    whole = score()
    first, second = whole.summary(BY_ENTROPY, text=TEXT, sentences=True).sentences or ()
    assert (first.start, first.end, first.text) == (0, 10, "It rains. ")
    assert (second.start, second.end, second.text) == (10, 26, "She keeps a cat.")
    for sentence, tokens in ((first, whole.scores[:3]), (second, whole.scores[3:])):
        alone = ChoiceScore.of(tokens).summary(BY_ENTROPY)
        for name in ("mean_entropy", "max_entropy", "mean_variance", "min_logprob", "tokens", "risk"):
            assert getattr(sentence, name) == getattr(alone, name), name
        assert (sentence.mean_epistemic, sentence.max_epistemic) == (alone.mean_epistemic, alone.max_epistemic)
        assert sentence.max_epistemic is not None
    assert first.spans == []
    assert [span.text for span in second.spans] == ["cat"]


def test_sentences_are_listed_only_if_asked_for() -> None:
    assert score().summary(BY_ENTROPY, text=TEXT).sentences is None
    assert score().summary(BY_ENTROPY, text=TEXT, spans=False, sentences=True).spans is None
    assert score().summary(BY_ENTROPY, sentences=True).sentences is None, "their places are not known"
    (only,) = score().summary(text=TEXT[:8], sentences=True).sentences or ()
    assert (only.text, only.risk, only.tokens) == ("It rains", None, 9)
    assert score().summary(text="", sentences=True).sentences == []


def test_what_is_echoed_is_no_sentence_of_the_answer() -> None:
    echoed = "No. And "
    found = score(echoed).summary(text=echoed + TEXT, sentences=True).sentences or ()
    assert [(sentence.start, sentence.text) for sentence in found] == [(8, "It rains. "), (18, "She keeps a cat.")]


def test_the_answers_own_risk_limits_that_of_its_sentences() -> None:
    """A calibration that was fitted on whole answers judges the whole answer, and a part is no likelier wrong."""
    longer_is_better = linear("tokens", -1.0, 5.0)
    summary = score().summary(longer_is_better, text=TEXT, sentences=True)
    assert summary.risk == longer_is_better.risk({"tokens": 9})
    assert [sentence.risk for sentence in summary.sentences or ()] == [summary.risk] * 2


@pytest.mark.parametrize("text", [TEXT, None])
def test_by_a_calibration_of_sentences_the_answer_is_as_likely_wrong_as_its_worst(text: str | None) -> None:
    """Whether the sentences are shown or not."""
    calibration = replace(linear("tokens", 1.0, -5.0), population=SENTENCES)
    summary = score().summary(calibration, abstain_above=0.5, text=text, sentences=True)
    risks = [calibration.risk({"tokens": count}) for count in (3, 6)]
    assert (summary.risk, summary.reason, summary.abstain) == (max(risks), None, True)
    assert max(risks) < calibration.risk({"tokens": 9})
    if text is not None:
        assert [sentence.risk for sentence in summary.sentences or ()] == risks


def test_an_answer_without_words_is_one_sentence_to_such_a_calibration() -> None:
    calibration = replace(linear("tokens", 1.0, -5.0), population=SENTENCES)
    end = ChoiceScore.of(score().scores[-1:])
    assert end.summary(calibration, text="").risk == calibration.risk({"tokens": 1})


def test_a_sentence_is_judged_by_its_own_part_of_the_ensemble() -> None:
    reads_ensemble = linear("max_epistemic", 1.0, -1.0)
    ensemble = EnsembleScore(8, [0.0, 0.1, 0.0, 0.2, 0.0, 0.0, 0.9, 0.0, 0.0], [0.1] * 9, 18)
    summary = score().summary(reads_ensemble, None, TEXT, ensemble, ensemble, sentences=True)
    assert summary.risk == reads_ensemble.risk({"max_epistemic": 0.9})
    first, second = summary.sentences or ()
    assert (first.max_epistemic, second.max_epistemic) == (0.1, 0.9)
    assert (first.risk, second.risk) == (reads_ensemble.risk({"max_epistemic": 0.1}), summary.risk)
