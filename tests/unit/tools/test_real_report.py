from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from demo.facts.fact import Answer, Fact
from evals.real import checked, figures, labels, methods
from evals.real.figures import all_figures, at_rates, within
from evals.real.questions import Question
from evals.real.report import report
from evals.real.spans import new_words
from evals.real.view import AGGREGATES, AGREEMENT, CLOSED, SOURCES, View, meant
from evals.results import rounded
from evals.view import UNPENALISED
from server.calibrate.labels import read_labels
from server.uncertainty.score import ChoiceScore
from server.uncertainty.tokens import TokenScore

ATTRIBUTES = {"country": ("capital", "language", "domain"), "element": ("symbol",), "invented": ("capital",)}


def token(doubt: float, text: str, start: int) -> TokenScore:
    return TokenScore(-doubt, doubt, doubt, 0.5, text, start, epistemic=doubt)


@pytest.fixture(scope="module")
def view() -> View:
    """60 countries, elements and places; entropy tells right from wrong, and the other signals are chance."""
    drawn = np.random.default_rng(0)
    questions, scores, wrong = [], [], []
    for kind, attributes in ATTRIBUTES.items():
        for number in range(60):
            for attribute in attributes:
                answers = () if kind == "invented" else (Answer("b", ("b",)),)
                fact = Fact(f"{kind} {number}", (), attribute, answers, f"{kind} {number}")
                questions.append(Question(f"What is the {attribute} of {kind} {number}?", fact, kind))
                wrong.append(kind == "invented" or attribute == "domain" or bool(drawn.random() < 0.5))
                doubt = float(drawn.uniform(1, 2) if wrong[-1] else drawn.uniform(0, 1))
                scores.append(ChoiceScore.of([token(0.1, "It is", 0), token(doubt, " b", 5), token(0.1, ".", 7)]))
    size = len(questions)
    names = [*(f"{name}, {how}" for name in (*SOURCES, *CLOSED) for how in AGGREGATES), "EPR", *AGREEMENT]
    signals = {name: drawn.random(size) for name in names}
    signals["entropy, max"] = np.array([score.scores[1].entropy for score in scores])
    signals["10 samples: disagreement"][::2] = np.nan
    return View(
        questions,
        ["It is b."] * size,
        np.array(wrong),
        signals,
        scores,
        drawn.random((size, 30)),
        drawn.random((size, 8)),
    )


@pytest.fixture(scope="module")
def found(view: View) -> Iterator[figures.Figures]:
    """With regressions for the methods, as the probe's search takes long."""
    with pytest.MonkeyPatch.context() as patch:
        quick = methods.regression(lambda part: part.signals["entropy, max"][:, None], UNPENALISED)
        patch.setattr(figures, "METHODS", dict.fromkeys(methods.METHODS, quick))
        patch.setattr(methods, "METHODS", dict.fromkeys(methods.METHODS, quick))
        yield all_figures(view)


def test_a_signal_that_tells_has_an_auroc_of_one_and_chance_has_half(found: figures.Figures) -> None:
    signals = found["countries"]["signals"]
    assert signals["entropy, max"]["auroc"]["value"] == signals["entropy, max"]["within"] == 1
    assert abs(signals["variance, mean"]["auroc"]["value"] - 0.5) < 0.15


def test_one_sided_attributes_have_counts_and_no_figures(found: figures.Figures) -> None:
    assert found["by attribute"]["domain"] == {"answers": 60, "wrong": 60}
    assert "auroc" in found["by attribute"]["capital"]


def test_signals_of_some_answers_are_judged_on_these(found: figures.Figures) -> None:
    assert found["countries"]["signals"]["10 samples: disagreement"]["answers"] == 90


def test_invented_places_are_judged_against_right_answers_about_countries(found: figures.Figures) -> None:
    signal = found["invented"]["signals"]["entropy, max"]
    assert found["invented"]["wrong"] == 60 and signal["auroc"] == 1


def test_the_report_shows_the_figures(found: figures.Figures) -> None:
    one = {"cost": 1, "country": {"pooled": 0.7, "within": 0.6}, "element": {"pooled": 0.5, "within": None}}
    text = report(rounded(found), {"last block, all units, max": one}, checked.checked(), "a model", "A machine.")  # type: ignore[arg-type]
    assert "| entropy, max | 1.000 [1.000, 1.000] | 1.000 |" in text
    assert "| last block, all units, max | 1 | 0.700 | 0.600 | 0.500 | - |" in text
    assert "{" not in text


def test_precision_and_recall_are_those_of_the_flagged_share() -> None:
    wrong = np.array([True, True, False, False, True, False, False, False, False, False])
    flagged = at_rates(wrong, np.arange(10, 0, -1).astype(float))
    assert flagged["30%"] == {"precision": pytest.approx(2 / 3), "recall": pytest.approx(2 / 3)}


def test_an_order_of_attributes_alone_counts_for_nothing_within_them(view: View) -> None:
    part = view.where(view.kind == "country")
    assert within(part, (part.attribute == "domain").astype(float)) == 0.5


def test_labels_can_be_calibrated_on_and_hold_no_element(view: View, tmp_path: Path) -> None:
    file = tmp_path / "labels.jsonl"
    labels.write_labels(view, file)
    found = read_labels(file).labels
    assert len(found) == 240 and not any(label.group.startswith("element") for label in found)
    assert [label.correct for label in found[:60]] == (~view.wrong[:60]).tolist()


def test_answers_mean_the_same_by_their_new_words() -> None:
    question = "What is the capital of Peru?"
    assert meant(question, "The capital of Peru is Lima.") == meant(question, "It is Lima. Yes.") == ("lima",)
    assert meant(question, "The capital of Peru is Lima, in the south of the coast.") == ("lima",)
    assert meant(question, "Cusco.") != meant(question, "Lima.")
    assert meant(question, "I do not know.") == ()


def test_new_words_are_neither_the_questions_nor_stop_words() -> None:
    text = "The capital of Peru is Lima, by the sea."
    assert [text[slice(*at)] for at in new_words("What is the capital of Peru?", text)] == ["Lima", "sea"]


def test_the_checked_labels_are_a_hundred_and_have_verdicts() -> None:
    assert checked.checked()["checked"] == 100
    assert all({"question", "answer", "right", "label_is_right"} <= row.keys() for row in checked.rows())
