"""A choice's summary, and the features of calibrations from it."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.uncertainty.calibration import Calibration
from server.uncertainty.features import GROUPS, LOWEST_LOGPROB
from server.uncertainty.score import WINDOW, ChoiceScore, EnsembleScore
from server.uncertainty.spans import DOUBTED_RISK
from server.uncertainty.tokens import TokenScore

Tokens = list[tuple[float, float, float, float]]
"""Logprob, entropy, variance and margin of each."""

TOKENS: Tokens = [(-0.1, 0.4, 0.7, 0.8), (-2.3, 2.9, 1.1, 0.1), (-0.5, 0.0, 0.0, 1.0)]


def score_of(tokens: Tokens) -> ChoiceScore:
    return ChoiceScore.of(TokenScore(*token, text="w", start=i) for i, token in enumerate(tokens))


def test_the_summary_aggregates_its_tokens() -> None:
    summary = score_of(TOKENS).summary()
    assert summary.tokens == 3
    assert summary.mean_entropy == pytest.approx((0.4 + 2.9) / 3)
    assert summary.max_entropy == 2.9
    assert summary.first_token_entropy == 0.4
    assert summary.worst_window_entropy == pytest.approx((0.4 + 2.9) / 3)
    assert summary.mean_variance == pytest.approx((0.7 + 1.1) / 3)
    assert summary.min_logprob == -2.3
    assert summary.standardised_surprisal == pytest.approx((0.1 - 0.4 + 2.3 - 2.9 + 0.5) / math.sqrt(1.8))
    assert summary.unit == "nat"
    assert (summary.risk, summary.calibrated, summary.calibration) == (None, False, None)
    assert summary.spans is None


WORDS = {"first": 1.0, "é": 2.0}


@pytest.mark.parametrize(
    "texts, entropy",
    [
        (["first", " ", "é"], 1.0),
        ([" ", "\n", "“", "é", "first"], 2.0),
        ([" first"], 1.0),
        ([" ", ".", "?"], 0.1),
        ([], None),
        (["<|end|>", "é"], 2.0),
        (["<|end|>"], 0.1),
    ],
)
def test_the_first_token_is_the_first_with_a_letter_or_digit(texts: list[str], entropy: float | None) -> None:
    """The first token of the answer's own words; the very first token where there is none."""
    tokens = [
        TokenScore(-0.1, WORDS.get(text.strip(), 0.1), 0.2, 0.5, text, special=text.startswith("<|")) for text in texts
    ]
    score = ChoiceScore.of(tokens)
    features = score.features()
    assert score.summary().first_token_entropy == entropy
    assert (features and features["first_token_entropy"]) == entropy


def test_a_letter_in_several_tokens_begins_with_the_first_of_them() -> None:
    parts = [(" ", 0.1), ("", 3.0), ("", 0.2), ("日", 0.3)]
    tokens = [TokenScore(-0.1, entropy, 0.2, 0.5, text) for text, entropy in parts]
    assert ChoiceScore.of(tokens).aggregates()["first_token_entropy"] == 3.0
    emoji = [*tokens[:3], TokenScore(-0.1, 0.3, 0.2, 0.5, "🙂"), TokenScore(-0.1, 0.7, 0.2, 0.5, "a")]
    assert ChoiceScore.of(emoji).aggregates()["first_token_entropy"] == 0.7
    assert ChoiceScore.of(tokens[:3]).aggregates()["first_token_entropy"] == 0.1, "the letter was never finished"


def test_nothing_generated_gives_null_and_no_sentinel() -> None:
    values = ChoiceScore().summary(CALIBRATION, abstain_above=0.5).model_dump()
    assert values.pop("tokens") == 0
    assert values.pop("unit") == "nat"
    assert values.pop("calibrated") is False
    assert values.pop("reason") == "empty"
    assert set(values.values()) == {None}


def test_a_probability_of_zero_is_clamped_as_json_has_no_infinity() -> None:
    summary = score_of([(-math.inf, 0.5, 0.5, 0.5), (-1.0, 0.5, 0.5, 0.5)]).summary(CALIBRATION)
    assert summary.min_logprob == LOWEST_LOGPROB
    assert "Infinity" not in summary.model_dump_json()
    assert summary.risk is not None


statistic = st.floats(0, 20)
answers = st.lists(st.tuples(st.floats(-30, 0), statistic, statistic, st.floats(0, 1)), min_size=1, max_size=40)


@given(answers)
def test_every_prefix_has_the_summary_it_would_have_alone(tokens: Tokens) -> None:
    running = ChoiceScore()
    for length, token in enumerate(tokens, start=1):
        running.add(TokenScore(*token, text="w", start=length - 1))
        summary, prefix = running.summary(CALIBRATION), tokens[:length]
        assert summary == score_of(prefix).summary(CALIBRATION)
        assert summary.max_entropy == max(entropy for _, entropy, _, _ in prefix)
        assert summary.min_logprob == min(logprob for logprob, _, _, _ in prefix)
        assert summary.mean_entropy == pytest.approx(sum(entropy for _, entropy, _, _ in prefix) / length)
        assert summary.first_token_entropy == tokens[0][1]


@given(answers)
def test_features_equal_numpys(tokens: Tokens) -> None:
    logprob, entropy, variance, margin = np.array(tokens).T
    window = np.lib.stride_tricks.sliding_window_view(entropy, min(WINDOW, len(entropy)))
    expected = {
        "mean_entropy": entropy.mean(),
        "max_entropy": entropy.max(),
        "first_token_entropy": entropy[0],
        "worst_window_entropy": window.mean(axis=1).max(),
        "min_logprob": logprob.min(),
        "mean_variance": variance.mean(),
        "mean_margin": margin.mean(),
        "min_margin": margin.min(),
        "standardised_surprisal": (-logprob - entropy).sum() / np.sqrt(max(variance.sum(), 1e-6)),
        "tokens": len(tokens),
        "mean_logprob": logprob.mean(),
        "max_variance": variance.max(),
        "peak_variance": variance[entropy.argmax()],
        "peak_margin": margin[entropy.argmax()],
        "peak_logprob": logprob[entropy.argmax()],
        "peak_position": entropy.argmax() / len(tokens),
    }
    found = score_of(tokens).features()
    assert found is not None
    assert tuple(found) == GROUPS["logits"]
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_the_newest_stages_growth_is_a_feature_where_there_are_several() -> None:
    def features(*growth: dict[str, float]) -> dict[str, float]:
        return ChoiceScore.of([TokenScore(-0.1, 0.4, 0.7, 0.8, "w", growth=part) for part in growth]).features() or {}

    assert features({"base": 1.0, "new": 3.0}, {"base": 9.0, "new": -1.0})["newest_stage_growth"] == 3.0
    for other in (features({"base": 1.0}), features({})):
        assert tuple(other) == GROUPS["logits"]


EPISTEMIC = [("<|x|>", 0.9, 0.5), (" ", 0.1, 0.25), ("Lis", 0.4, 0.75), ("bon", 2.0, 0.0625)]
"""Text, entropy and epistemic uncertainty of each token."""


def with_epistemic(*epistemic: float | None) -> ChoiceScore:
    parts = zip(EPISTEMIC, epistemic, strict=True)
    return ChoiceScore.of(
        TokenScore(-0.1, entropy, 0.7, 0.8, text, special=text.startswith("<"), epistemic=value)
        for (text, entropy, _), value in parts
    )


def test_the_closed_form_is_summarised_and_a_feature() -> None:
    score = with_epistemic(*(value for *_, value in EPISTEMIC))
    features, summary = score.features(), score.summary()
    assert features is not None
    expected = {
        "mean_closed_form": 1.5625 / 4,
        "max_closed_form": 0.75,
        "first_token_closed_form": 0.75,
        "peak_closed_form": 0.0625,
    }
    assert {name: features[name] for name in GROUPS["closed_form"]} == expected
    assert summary.estimator == "closed-form"
    assert summary.mean_epistemic == 1.5625 / 4
    assert summary.max_epistemic == summary.first_token_epistemic == 0.75
    assert (summary.epistemic, summary.aleatoric, summary.mean_aleatoric) == (None, None, None)


def test_an_ensembles_numbers_replace_those_of_the_closed_form() -> None:
    score = with_epistemic(*(value for *_, value in EPISTEMIC))
    ensemble = EnsembleScore(4, [0.0, 0.1, 0.2, 0.3], [1.0, 1.0, 1.0, 1.0], 9)
    summary = score.summary(ensemble=ensemble)
    assert summary.estimator == "ensemble"
    assert summary.mean_epistemic == pytest.approx(0.15)
    assert (summary.max_epistemic, summary.first_token_epistemic) == (0.3, 0.2)
    features = score.features(ensemble.features())
    assert features is not None
    assert (features["max_closed_form"], features["max_epistemic"]) == (0.75, 0.3)


@pytest.mark.parametrize("values", [[None] * 4, [0.1, None, 0.1, 0.1]])
def test_without_the_closed_form_of_every_token_there_is_none(values: list[float | None]) -> None:
    score = with_epistemic(*values)
    features, summary = score.features(), score.summary()
    assert features is not None
    assert tuple(features) == GROUPS["logits"]
    assert (summary.estimator, summary.mean_epistemic, summary.first_token_epistemic) == (None, None, None)


def test_the_growth_of_an_answer_is_the_mean_over_its_tokens() -> None:
    grown = [{"base": 1.0, "new": 3.0}, {"base": 2.0, "new": -1.0}]
    score = ChoiceScore.of(TokenScore(-0.1, 0.4, 0.7, 0.8, "w", growth=part) for part in grown)
    assert score.summary().growth == {"base": 1.5, "new": 1.0}
    assert score_of(TOKENS).summary().growth is None


def test_a_calibration_that_reads_what_an_answer_lacks_judges_nothing() -> None:
    reads_growth = linear(["max_entropy", "newest_stage_growth"], [1.0, 1.0], 0.0)
    summary = score_of(TOKENS).summary(reads_growth, abstain_above=0.5, text="w")
    assert (summary.risk, summary.calibrated, summary.calibration, summary.abstain) == (None, False, None, None)
    assert summary.reason == "feature_missing"
    assert [span.risk for span in summary.spans or ()] == [None] * len(summary.spans or ())


def test_the_worst_window_is_the_worst_of_full_ones() -> None:
    """One uncertain token at the start counts for an eighth as soon as there are eight tokens."""
    first = [(-1.0, 8.0, 1.0, 0.1)]
    sure = [(-0.1, 0.0, 1.0, 0.9)] * 20
    assert score_of(first).aggregates()["worst_window_entropy"] == 8.0
    assert score_of(first + sure).aggregates()["worst_window_entropy"] == 1.0
    assert score_of(sure + first * 2 + sure).aggregates()["worst_window_entropy"] == 2.0


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("column", [1, 2, 3])
def test_statistics_of_a_broken_model_have_no_risk(place: int, column: int) -> None:
    tokens = [list(token) for token in TOKENS]
    tokens[place][column] = math.nan
    score = score_of([(a, b, c, d) for a, b, c, d in tokens])
    assert score.features() is None
    summary = score.summary(CALIBRATION, abstain_above=0.5)
    assert (summary.risk, summary.calibrated, summary.abstain) == (None, False, None)
    assert summary.reason == "not_finite"


def linear(features: list[str], coefficients: list[float], intercept: float) -> Calibration:
    far = [1e9] * len(features)
    lowest = [-limit for limit in far]
    return Calibration("logistic", "f" * 64, "base", features, coefficients, intercept, lowest=lowest, highest=far)


CALIBRATION = linear(["max_entropy", "min_logprob"], [1.0, -2.0], -6.0)


def test_a_calibration_gives_risk_and_name() -> None:
    summary = score_of(TOKENS).summary(CALIBRATION)
    assert summary.risk == pytest.approx(1 / (1 + math.exp(-(2.9 + 4.6 - 6))))
    assert summary.calibrated
    assert summary.calibration == CALIBRATION.name
    assert summary.abstain is None


def test_abstaining_is_a_risk_above_the_limit() -> None:
    score = score_of(TOKENS)
    risk = score.summary(CALIBRATION).risk
    assert risk is not None
    assert score.summary(CALIBRATION, abstain_above=risk).abstain is False
    assert score.summary(CALIBRATION, abstain_above=math.nextafter(risk, 0)).abstain is True
    assert score.summary(None, abstain_above=0.0).abstain is None


def test_a_spans_risk_is_that_of_its_tokens_alone_and_at_most_the_answers() -> None:
    parts = [("Lis", -2.0, 2.9), ("bon", -0.1, 0.1), (" ", -4.0, 0.1), ("or", -1.2, 1.5)]
    tokens, start = [], 0
    for text, logprob, entropy in parts:
        tokens.append(TokenScore(logprob, entropy, 0.5, 0.1, text, start))
        start += len(text)
    score = ChoiceScore.of(tokens)
    summary = score.summary(CALIBRATION, text="Lisbon or")
    assert summary.spans is not None
    assert [(span.start, span.end, span.text) for span in summary.spans] == [(0, 6, "Lisbon"), (7, 9, "or")]
    assert [span.kind for span in summary.spans] == ["doubted", "doubted"]
    alone = [ChoiceScore.of(part).summary(CALIBRATION).risk for part in (tokens[:2], tokens[3:])]
    assert [span.risk for span in summary.spans] == alone
    undecided = score.summary(text="Lisbon or").spans or ()
    assert [(span.kind, span.risk) for span in undecided] == [("undecided", None)] * 2
    # Here the whole is less risky than its parts: length makes it so.
    longer_is_better = linear(["tokens"], [-1.0], 3.0)
    summary = score.summary(longer_is_better, text="Lisbon or")
    assert [span.risk for span in summary.spans or ()] == [summary.risk] * 2
    assert ChoiceScore().summary(CALIBRATION, text="").spans == []


def test_a_word_is_doubted_above_a_risk_only() -> None:
    sure = TokenScore(-0.1, 0.1, 0.5, 0.9, "So", 0)
    unsure = TokenScore(-1.2, 1.5, 0.5, 0.1, " it", 2)
    score = ChoiceScore.of([sure, unsure])

    def spans(calibration: Calibration | None) -> list[tuple[str, str, float | None]]:
        return [(span.text, span.kind, span.risk) for span in score.summary(calibration, text="So it").spans or ()]

    def judge(risk: float, feature: str = "max_entropy") -> Calibration:
        return linear([feature], [0.0], math.log(risk / (1 - risk)))

    assert spans(None) == [("it", "undecided", None)]
    assert spans(judge(0.01)) == spans(judge(DOUBTED_RISK - 1e-9)) == []
    assert spans(judge(0.11)) == [("it", "doubted", pytest.approx(0.11))]
    # A calibration that reads the ensemble judges whole answers only.
    ensemble = EnsembleScore(2, [0.0, 0.4], [0.1, 1.1], 4)

    def whole(risk: float) -> list[tuple[str, str, float | None]]:
        found = score.summary(judge(risk, "max_epistemic"), None, "So it", ensemble, ensemble)
        assert found.risk == pytest.approx(risk)
        return [(span.text, span.kind, span.risk) for span in found.spans or ()]

    assert whole(0.01) == []
    assert whole(0.5) == [("it", "undecided", None)]
