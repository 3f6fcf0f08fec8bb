"""Calibrations: fitted as scikit-learn predicts, saved as plain JSON, refused when they are something else."""

import json
import math
import pickle
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from server.calibrate.command import figures, threshold, what_groups_add
from server.calibrate.fitting import (
    FOLDS,
    INVERSE_PENALTIES,
    Answers,
    check_both_kinds,
    fit,
    probe_of,
    risks_of,
    split,
)
from server.calibrate.labels import Label
from server.calibrate.plots import reliability_plot, risk_coverage_plot
from server.calibrate.report import report
from server.uncertainty.calibration import METHODS, Calibration, CalibrationError, load_calibration, sigmoid
from server.uncertainty.features import AGGREGATES, CERTAIN, FEATURES, GROUPS, term, terms


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests of the figures check the intervals."""
    monkeypatch.setattr("server.calibrate.figures.RESAMPLES", 50)


GROWN = GROUPS["logits"] + GROUPS["growth"]


def answers(size: int, seed: int = 0, names: Sequence[str] = GROWN) -> Answers:
    """Two to a question, wrong more often where the maximum entropy is high; the features' scales differ greatly."""
    generator = np.random.default_rng(seed)
    columns = generator.gamma(2, 1, (size, len(FEATURES))) * np.logspace(-2, 2, len(FEATURES))
    entropy = columns[:, FEATURES.index("max_entropy")]
    wrong = generator.random(size) < 1 / (1 + np.exp(3 - 60 * entropy))
    rows = [{name: row[FEATURES.index(name)] for name in names} for row in columns.tolist()]
    return Answers(rows, wrong, np.arange(size) // 2, [""] * size)


def fitted(method: Any, **changes: Any) -> Calibration:
    return replace(Calibration(method, "f" * 64, "base", **fit(method, answers(400))), **changes)


def measured(made: Calibration, held: Answers) -> dict[str, Any]:
    return figures(made, {name: fitted(name) for name in METHODS if name != made.method}, held)


def test_logistic_risk_is_what_scikit_learn_predicts() -> None:
    train, held = answers(400), answers(300, seed=1)
    x, x_held = (np.array([[row[name] for name in AGGREGATES] for row in part.features]) for part in (train, held))
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(x, train.wrong)
    expected = model.predict_proba(x_held.clip(x.min(axis=0), x.max(axis=0)))[:, 1]
    assert risks_of(fitted("logistic"), held) == pytest.approx(expected, abs=1e-9)
    inside = ((x_held >= x.min(axis=0)) & (x_held <= x.max(axis=0))).all(axis=1)
    assert 200 < inside.sum() < 300  # so that both are tried
    assert expected[inside] == pytest.approx(model.predict_proba(x_held)[inside, 1])


def test_isotonic_risk_is_what_scikit_learn_predicts() -> None:
    train, held = answers(400), answers(300, seed=1)
    x, x_held = ([row["max_entropy"] for row in part.features] for part in (train, held))
    model = IsotonicRegression(y_min=1 / 402, y_max=401 / 402, out_of_bounds="clip")
    expected = model.fit(x, train.wrong).predict(x_held)
    assert risks_of(fitted("isotonic"), held) == pytest.approx(expected, abs=1e-9)
    assert 0 < expected.min() < expected.max() < 1


def test_probe_risk_is_what_scikit_learns_own_search_predicts() -> None:
    """But for the scale of each fold's features, which its search takes from all of them."""
    train, held = answers(400), answers(300, seed=1)
    names = GROUPS["logits"]

    def columns(part: Answers) -> Any:
        raw = np.array([[row[name] for name in names] for row in part.features])
        doubts = [np.abs(raw[:, names.index(name)] - CERTAIN[name]) for name in names if name in CERTAIN]
        return np.column_stack([raw, *(np.log(doubt + 1e-4) for doubt in doubts)])

    x = columns(train)
    scaler = StandardScaler().fit(x)
    folds = list(StratifiedGroupKFold(FOLDS).split(x, train.wrong, train.clusters))
    model = LogisticRegressionCV(
        Cs=INVERSE_PENALTIES,
        cv=folds,
        scoring="neg_log_loss",
        max_iter=5000,
        l1_ratios=(0,),
        use_legacy_attributes=False,
    )
    model.fit(scaler.transform(x), train.wrong)
    expected = model.predict_proba(scaler.transform(columns(held).clip(x.min(axis=0), x.max(axis=0))))[:, 1]
    made = Calibration("probe", "f" * 64, "base", **probe_of(train, names))
    assert risks_of(made, held) == pytest.approx(expected, abs=5e-3)  # both stop short of the minimum


def test_a_probe_takes_a_further_group_only_where_it_helps() -> None:
    train = answers(600)
    assert "newest_stage_growth" not in fit("probe", train)["features"]
    telling = [
        row | {"newest_stage_growth": float(wrong)} for row, wrong in zip(train.features, train.wrong, strict=True)
    ]
    told = fit("probe", replace(train, features=telling))
    assert told["features"] == terms(GROWN)
    assert fit("probe", answers(600, names=GROUPS["logits"]))["features"] == terms(GROUPS["logits"])


def test_terms_are_finite_at_certainty_and_logarithms_of_doubt_elsewhere() -> None:
    certain = dict.fromkeys(FEATURES, 0.0) | CERTAIN
    assert all(math.isfinite(term(certain, name)) for name in terms(FEATURES))
    assert term({"max_entropy": 0.5}, "log max_entropy") == pytest.approx(math.log(0.5001))
    assert term({"min_margin": 0.9}, "log min_margin") == pytest.approx(math.log(0.1001))
    assert term({"min_logprob": -2.0}, "log min_logprob") == pytest.approx(math.log(2.0001))
    assert term({"tokens": 7.0}, "tokens") == 7
    assert not {"log tokens", "log standardised_surprisal"} & set(terms(FEATURES))


def test_what_a_group_adds_is_measured_against_entropy_and_max_probability() -> None:
    train, held = answers(400), answers(300, seed=1)
    found = what_groups_add("f" * 64, "base", train, held)
    assert list(found) == ["pair", "logits", "growth"]

    def auroc(names: Sequence[str]) -> float:
        made = Calibration("probe", "f" * 64, "base", **probe_of(train, names))
        return float(roc_auc_score(held.wrong, risks_of(made, held)))

    pair = ["max_entropy", "min_logprob"]
    assert found["pair"]["auroc"]["value"] == pytest.approx(auroc(pair))
    assert found["growth"]["auroc"]["value"] == pytest.approx(auroc([*pair, "newest_stage_growth"]) - auroc(pair))


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
    made = replace(made, abstain=threshold(made, held, 0.1), figures=measured(made, held), data={"sha256": "0"})
    file = tmp_path / "calibration.json"
    file.write_text(json.dumps(made.to_dict()))
    loaded = load_calibration(file)
    assert loaded.name == made.name
    assert risks_of(loaded, held).tolist() == risks_of(made, held).tolist()
    assert loaded.abstain == made.abstain
    assert loaded.to_dict() == json.loads(json.dumps(made.to_dict()))


def test_one_that_reads_the_ensemble_says_of_how_many_members(tmp_path: Path) -> None:
    """And judges no answer that was not scored under it."""
    train = answers(600, names=GROUPS["logits"])
    rows = [
        row | dict.fromkeys(GROUPS["ensemble"], float(wrong))
        for row, wrong in zip(train.features, train.wrong, strict=True)
    ]
    found = fit("probe", replace(train, features=rows))
    made = Calibration(
        "probe", "f" * 64, "base", **found, ensemble={"members": 8, "rate": 0.03, "projections": ["output", "ffn"]}
    )
    file = tmp_path / "calibration.json"
    file.write_text(json.dumps(made.to_dict()))
    loaded = load_calibration(file)
    assert loaded.members == 8
    assert loaded.judges(rows[0])
    assert not loaded.judges(train.features[0])
    assert fitted("probe").members is None


def test_names_tell_calibrations_apart() -> None:
    first = fitted("logistic")
    assert first.name.startswith("base-logistic-")
    assert len({first.name, fitted("isotonic").name, replace(first, intercept=first.intercept + 1).name}) == 3


@pytest.mark.parametrize(
    ("method", "changes", "message"),
    [
        ("logistic", {"format": "something-else"}, "not a calibration (tokenformer-calibration-2)"),
        ("logistic", {"format": "tokenformer-calibration-1"}, "which another version made; make it anew by"),
        ("logistic", {"method": "magic"}, "method: should be 'logistic', 'isotonic' or 'probe'"),
        ("logistic", {"features": ["max_entropy"]}, "logistic needs one coefficient, one lowest and one highest value"),
        ("logistic", {"highest": []}, "logistic needs one coefficient, one lowest and one highest value per feature"),
        (
            "logistic",
            {"features": ["mood"] * len(AGGREGATES)},
            "features[0]: 'mood' is no feature of this version; make the file anew by `tokenformer calibrate`",
        ),
        ("probe", {"features": ["log tokens"]}, "features[0]: 'log tokens' is no feature of this version"),
        ("probe", {"features": ["ffn_kurtosis"]}, "features[0]: 'ffn_kurtosis' is no feature of this version"),
        ("probe", {"features": ["newest_stage_share"]}, "features[0]: 'newest_stage_share' is no feature of this"),
        (
            "probe",
            {"ensemble": {"members": 8, "rate": 0.03, "projections": ["output", "ffn"]}},
            "ensemble must say what the features of that group",
        ),
        ("probe", {"features": ["max_epistemic"] * 29}, "ensemble must say what the features of that group come from"),
        (
            "probe",
            {"features": ["max_epistemic"] * 29, "ensemble": {"members": 1, "rate": 0.03, "projections": ["ffn"]}},
            "ensemble.members: should be greater than or equal to 2",
        ),
        ("probe", {"features": ["max_epistemic"] * 29, "ensemble": {"members": 8}}, "ensemble.rate: is missing"),
        ("probe", {"coefficients": []}, "probe needs one coefficient, one lowest"),
        ("logistic", {"intercept": math.nan}, "intercept: should be a finite number"),
        ("logistic", {"intercept": "0"}, "intercept: should be a valid number"),
        ("logistic", {"coefficients": 3}, "coefficients: should be an instance of Sequence"),
        ("logistic", {"stage": None}, "stage: should be a valid string"),
        ("logistic", {"surprise": 1}, "'surprise': unknown field"),
        (
            "logistic",
            {"abstain": {"error_rate": 0.1, "above": 1.5}},
            "abstain.above: should be less than or",
        ),
        ("logistic", {"abstain": [0.5]}, "abstain: should be a valid dictionary"),
        ("isotonic", {"knots": [1.0, 1.0], "risks": [0.1, 0.2]}, "knots: must increase"),
        ("isotonic", {"knots": [1.0, 2.0], "risks": [0.1, 1.2]}, "risks[1]: should be less than or equal to 1"),
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


def test_answers_of_one_cluster_stay_together() -> None:
    clusters = np.arange(200) % 50
    fit_rows, held_rows = split(clusters)
    assert sorted(fit_rows + held_rows) == list(range(200))
    assert len(fit_rows) == 100
    assert set(clusters[fit_rows]).isdisjoint(clusters[held_rows])
    part = Answers([{}] * 200, clusters > 20, clusters, [""] * 200)[held_rows]
    assert sorted(set(part.clusters.tolist())) == list(range(25))
    assert len(part.features) == len(part.wrong) == 100


def test_a_group_of_labels_is_a_cluster_and_so_are_the_answers_to_a_question() -> None:
    plain = [Label(i, f"question {i % 2}", f"answer {i}", True) for i in range(4)]
    assert plain[0].cluster == plain[2].cluster != plain[1].cluster
    grouped = [replace(label, group="Peru") for label in plain]
    assert len({label.cluster for label in grouped}) == 1


def test_too_few_questions_are_an_error() -> None:
    found = answers(100)
    check_both_kinds("held out", ~found.wrong, found.wrong, found.clusters)
    with pytest.raises(CalibrationError, match="--data: too few questions: of the answers held out, 4 have ones that"):
        check_both_kinds("held out", ~found.wrong, found.wrong, np.arange(100) % 4)


def test_an_error_rate_that_cannot_be_promised_is_an_error() -> None:
    held = answers(300, seed=1)
    with pytest.raises(CalibrationError, match=r"--abstain: 0\.003 cannot be promised"):
        threshold(fitted("logistic"), held, 0.003)


def test_the_report_holds_the_figures() -> None:
    held = answers(300, seed=1)
    made = fitted("probe")
    found = measured(made, held)
    assert found["auroc"]["value"] > found["baselines"]["mean_entropy"]["auroc"]["value"]
    added = found["baselines"]["mean_entropy"]["added"]["auroc"]
    assert added["value"] == pytest.approx(
        found["auroc"]["value"] - found["baselines"]["mean_entropy"]["auroc"]["value"]
    )
    counts = {"sha256": "0" * 64, "labels": 700, "fitted_on": 400, "held_out": 300, "wrong": 99}
    groups = {"groups": what_groups_add("f" * 64, "base", answers(400), held)}
    made = replace(made, data=counts, figures=found | groups, abstain=threshold(made, held, 0.1))
    text = report(made, "calibration-base")
    for name in ("auroc", "auprc", "prr", "ece", "brier"):
        assert f"| {found[name]['value']:.3f} [{found[name]['low']:.3f}, {found[name]['high']:.3f}] |" in text
    assert f"| mean_entropy | {added['value']:+.3f} [{added['low']:+.3f}, {added['high']:+.3f}] |" in text
    for name in ("max_entropy", "min_logprob", "logistic", "isotonic", "the pair", "+ logits", "+ growth"):
        assert f"\n| {name} | " in text
    assert "![Reliability diagram](calibration-base-reliability.svg)" in text
    assert "![Risk-coverage curve](calibration-base-risk-coverage.svg)" in text
    assert "at 10% or below" in text
    plain = report(replace(made, figures=found, abstain=None), "calibration")
    assert "No error rate" in plain
    assert "the pair" not in plain


def test_plots_are_valid_and_always_the_same() -> None:
    held = answers(300, seed=1)
    found = measured(fitted("isotonic"), held)
    for plot, points in ((reliability_plot, found["reliability"]), (risk_coverage_plot, found["risk_coverage"])):
        svg = plot(found)
        root = ElementTree.fromstring(svg)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert plot(json.loads(json.dumps(found))) == svg
        assert plot(found | {"reliability": points[1:], "risk_coverage": points[1:]}) != svg
        assert len(svg) < 50_000
