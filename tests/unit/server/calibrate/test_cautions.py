"""Cautions: what speaks against a calibration is said in one line each, with the number of labels that would tell."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from server.calibrate.cautions import cautions
from server.calibrate.command import judged
from server.calibrate.figures import chance_eces
from server.calibrate.fitting import Answers
from server.calibrate.report import report
from server.uncertainty.calibration import Calibration
from server.uncertainty.features import CERTAIN, GROUPS


def gain(value: float, reach: float) -> dict[str, Any]:
    return {"added": {"auroc": {"value": value, "low": value - reach, "high": value + reach}}}


def made(**figures: Any) -> Calibration:
    """Without fault, but for `figures`."""
    good = {
        "baselines": {"max_entropy": gain(0.1, 0.05), "min_logprob": gain(0.2, 0.05)},
        "ece": {"value": 0.02},
        "ece_by_chance": {"value": 0.01, "low": 0.005, "high": 0.02},
    }
    names = ["max_entropy", "min_logprob"]
    return Calibration("logistic", "f" * 64, "base", names, data={"labels": 1000}, figures=good | figures)


def test_a_good_calibration_has_none() -> None:
    assert cautions(made()) == []


def test_a_single_signal_as_good_as_the_fit_is_named_with_the_labels_that_would_tell() -> None:
    [line] = cautions(made(baselines={"max_entropy": gain(0.02, 0.04), "min_logprob": gain(0.05, 0.02)}))
    assert line == (
        "max_entropy alone orders the answers as well: the risk adds +0.020 [-0.020, +0.060] AUROC; about 4,000 labels "
        "would tell a gain of 0.020"
    )
    [line] = cautions(made(baselines={"max_entropy": gain(-0.01, 0.02)}))
    assert line.endswith("about 4,000 labels would tell a gain of 0.010")
    [line] = cautions(made(baselines={"max_entropy": gain(0.001, 0.004)}))
    assert line.endswith("these 1,000 labels are enough to tell a gain of 0.010")


def test_the_only_feature_of_a_calibration_is_not_held_against_it() -> None:
    as_good = made(baselines={"max_entropy": gain(0.0, 0.001), "min_logprob": gain(0.1, 0.05)})
    assert len(cautions(as_good)) == 1
    assert cautions(replace(as_good, features=["max_entropy"])) == []


def test_a_calibration_error_that_chance_may_make_asks_for_more_labels() -> None:
    chance = {"value": 0.07, "low": 0.04, "high": 0.1}
    [line] = cautions(made(ece={"value": 0.08}, ece_by_chance=chance))
    assert line == (
        "ECE 0.080 is above 0.05; chance alone makes up to 0.100; about 4,000 labels would tell an error of 0.05"
    )
    [line] = cautions(made(ece={"value": 0.08}))
    assert line.endswith("chance alone makes up to 0.020; these 1,000 labels are enough to tell an error of 0.05")


def test_a_calibration_error_on_unseen_topics_is_told() -> None:
    seen, unseen = ({"auroc": {"value": a}, "ece": e} for a, e in ((0.95, 0.02), (0.9, 0.12)))
    [line] = cautions(made(transfer={"methods": {"logistic": {"seen": seen, "unseen": unseen}}}))
    assert line == (
        "on topics that the fit has not seen, ECE is 0.120 and AUROC 0.900, against 0.020 and 0.950: label every topic "
        "that will be asked about"
    )
    assert cautions(made(transfer={"methods": {"logistic": {"seen": seen, "unseen": seen}}})) == []
    bad = made(ece={"value": 0.12}, transfer={"methods": {"logistic": {"seen": unseen, "unseen": unseen}}})
    [line] = cautions(bad)
    assert line.startswith("ECE 0.120 is above 0.05")


def test_the_error_of_chance_falls_with_the_root_of_the_number_of_answers() -> None:
    few, many = (chance_eces(np.full(size, 0.3)).mean() for size in (300, 4800))
    assert few / many == pytest.approx(4, rel=0.1)


def test_few_labels_of_one_telling_signal_end_in_cautions_in_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.calibrate.figures.RESAMPLES", 100)
    rng = np.random.default_rng(0)
    wrong = rng.random(160) < 0.5
    doubts = [name for name in GROUPS["logits"] if name != "tokens"]
    rows = [
        {name: CERTAIN.get(name, 0.0) + rng.exponential() for name in doubts}
        | {"tokens": float(rng.integers(3, 9)), "peak_margin": 0.5 - 0.2 * bad + 0.1 * rng.normal()}
        for bad in wrong.tolist()
    ]
    calibration = judged(Answers(rows, wrong, np.arange(160), [""] * 160), "probe", "f" * 64, "base", None)
    assert (
        "peak_margin" in calibration.figures["baselines"]
    )  # found on the fitted half, beside the three that are fixed
    found = cautions(calibration)
    assert any(line.startswith("peak_margin alone orders the answers as well") for line in found)
    assert any(line.startswith("ECE ") for line in found)
    text = report(replace(calibration, data=calibration.data | {"sha256": "0" * 64}), "calibration")
    assert all(f"\n**Caution:** {line}.\n" in text for line in found)
