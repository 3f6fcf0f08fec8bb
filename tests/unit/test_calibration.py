"""Calibrations: fitted as scikit-learn predicts, saved as plain JSON, refused when they are something else."""

import json
import math
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from server.calibrate import Answers, figures, fit, risks_of, split, threshold
from server.calibration import FEATURES, METHODS, Calibration, CalibrationError, load_calibration, sigmoid
from server.labels import Label
from server.report import report


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the intervals are is tested with the figures."""
    monkeypatch.setattr("server.figures.RESAMPLES", 50)


def answers(size: int, seed: int = 0) -> Answers:
    """Wrong more often where the maximum entropy is high; the features have very different scales."""
    generator = np.random.default_rng(seed)
    features = generator.gamma(2, 1, (size, len(FEATURES))) * np.logspace(-2, 2, len(FEATURES))
    entropy = features[:, FEATURES.index("max_entropy")]
    return Answers(features, generator.random(size) < 1 / (1 + np.exp(3 - 60 * entropy)))


def fitted(method: Any, **changes: Any) -> Calibration:
    return replace(Calibration(method, "f" * 64, "base", **fit(method, answers(400))), **changes)


def test_logistic_risk_is_what_scikit_learn_predicts() -> None:
    train, held = answers(400), answers(300, seed=1)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(train.features, train.wrong)
    expected = model.predict_proba(held.features)[:, 1]
    assert risks_of(fitted("logistic"), held) == pytest.approx(expected, abs=1e-9)


def test_isotonic_risk_is_what_scikit_learn_predicts() -> None:
    train, held = answers(400), answers(300, seed=1)
    column = FEATURES.index("max_entropy")
    model = IsotonicRegression(y_min=1 / 402, y_max=401 / 402, out_of_bounds="clip")
    expected = model.fit(train.features[:, column], train.wrong).predict(held.features[:, column])
    assert risks_of(fitted("isotonic"), held) == pytest.approx(expected, abs=1e-9)
    assert 0 < expected.min() < expected.max() < 1


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_the_sigmoid_takes_any_number(x: float) -> None:
    assert 0 <= sigmoid(x) <= 1
    assert sigmoid(x) + sigmoid(-x) == pytest.approx(1)
    if abs(x) < 30:
        assert sigmoid(x) == pytest.approx(1 / (1 + math.exp(-x)))


@pytest.mark.parametrize("method", METHODS)
def test_a_saved_calibration_is_the_same_when_loaded(method: str, tmp_path: Path) -> None:
    held = answers(300, seed=1)
    made = fitted(method)
    made = replace(made, abstain=threshold(made, held, 0.1), figures=figures(made, held), data={"sha256": "0"})
    file = tmp_path / "calibration.json"
    file.write_text(json.dumps(made.to_dict()))
    loaded = load_calibration(file)
    assert loaded.name == made.name
    assert risks_of(loaded, held).tolist() == risks_of(made, held).tolist()
    assert loaded.abstain == made.abstain
    assert loaded.to_dict() == json.loads(json.dumps(made.to_dict()))


def test_names_tell_calibrations_apart() -> None:
    first = fitted("logistic")
    assert first.name.startswith("base-logistic-")
    assert len({first.name, fitted("isotonic").name, replace(first, intercept=first.intercept + 1).name}) == 3


@pytest.mark.parametrize(
    ("method", "changes", "message"),
    [
        ("logistic", {"format": "something-else"}, "not a calibration (tokenformer-calibration-2)"),
        ("logistic", {"format": "tokenformer-calibration-1"}, "which another version made; make it anew by"),
        ("logistic", {"method": "probe"}, "method 'probe' is unknown; known are logistic, isotonic"),
        ("logistic", {"features": ["max_entropy"]}, "logistic needs one coefficient per feature"),
        ("logistic", {"features": ["mood"] * len(FEATURES)}, "feature 'mood' is unknown"),
        ("logistic", {"intercept": math.nan}, "a parameter is no finite number"),
        ("logistic", {"intercept": "0"}, "a parameter is no finite number"),
        ("logistic", {"coefficients": 3}, "coefficients is no list"),
        ("logistic", {"stage": None}, "stage is no text"),
        ("logistic", {"surprise": 1}, "unexpected keyword argument 'surprise'"),
        ("logistic", {"abstain": {"error_rate": 0.1, "above": 1.5}}, "abstain needs error_rate"),
        ("logistic", {"abstain": [0.5]}, "abstain needs error_rate"),
        ("isotonic", {"knots": [1.0, 1.0], "risks": [0.1, 0.2]}, "knots do not increase"),
        ("isotonic", {"knots": [1.0, 2.0], "risks": [0.1, 1.2]}, "a risk is outside of 0 to 1"),
        ("isotonic", {"knots": [1.0], "risks": []}, "isotonic needs one feature and one risk per knot"),
    ],
)
def test_a_broken_file_is_refused_in_one_line(
    method: str, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    file = tmp_path / "calibration.json"
    file.write_text(json.dumps(fitted(method).to_dict() | changes))
    with pytest.raises(CalibrationError) as caught:
        load_calibration(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff\xfe", pickle.dumps({"format": "tokenformer-calibration-2"})])
def test_other_files_are_refused(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "calibration.json"
    file.write_bytes(content)
    with pytest.raises(CalibrationError, match="not"):
        load_calibration(file)


def test_answers_to_one_question_stay_together() -> None:
    labels = [Label(i, f"question {i % 50}", f"answer {i}", True) for i in range(200)]
    fit_rows, held_rows = split(labels)
    assert sorted(fit_rows + held_rows) == list(range(200))
    assert len(fit_rows) == 100
    assert {labels[i].question for i in fit_rows}.isdisjoint(labels[i].question for i in held_rows)


def test_an_error_rate_that_cannot_be_promised_is_an_error() -> None:
    held = answers(300, seed=1)
    with pytest.raises(CalibrationError, match=r"--abstain: 0\.003 cannot be promised"):
        threshold(fitted("logistic"), held, 0.003)


def test_the_report_holds_the_figures() -> None:
    held = answers(300, seed=1)
    made = fitted("logistic")
    found = figures(made, held)
    assert found["auroc"]["value"] > found["baselines"]["mean_entropy"]["auroc"]["value"]
    counts = {"sha256": "0" * 64, "labels": 700, "fitted_on": 400, "held_out": 300, "wrong": 99}
    text = report(replace(made, data=counts, figures=found, abstain=threshold(made, held, 0.1)))
    for name in ("auroc", "auprc", "prr", "ece", "brier"):
        assert f"| {found[name]['value']:.3f} [{found[name]['low']:.3f}, {found[name]['high']:.3f}] |" in text
    assert "at 10% or below" in text
    assert "No error rate" in report(replace(made, data=counts, figures=found))
