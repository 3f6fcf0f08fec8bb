"""Transfer: the same held-out answers are judged by fits with and without other answers of their topics."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.model_selection import LeaveOneGroupOut

from server.calibrate.fitting import Answers, fit, risks_of
from server.calibrate.transfer import splits, transfer
from server.uncertainty.calibration import METHODS, Calibration, Method
from server.uncertainty.features import CERTAIN, GROUPS


def fit_to(name: Method, part: Answers) -> Calibration:
    return Calibration(name, "f" * 64, "base", **fit(name, part))


def drawn(seed: int, topics: list[str]) -> Answers:
    """In the topic "torn" right answers have as much entropy as wrong ones have elsewhere, and their variance tells."""
    rng = np.random.default_rng(seed)
    wrong, torn = rng.random(len(topics)) < 0.5, np.array(topics) == "torn"
    rows = []
    for bad, apart in zip(wrong.tolist(), torn.tolist(), strict=True):
        row = {name: CERTAIN.get(name, 0.0) + rng.exponential(0.1) for name in GROUPS["logits"]}
        row["max_entropy"] = float(rng.normal(3.0 if bad or apart else 1.0, 0.5))
        row["mean_variance"] = float(rng.normal(2.0 if bad and apart else 1.0, 0.2))
        rows.append(row)
    return Answers(rows, wrong, np.arange(len(topics)), topics)


TOPICS = ["torn", "plain", "clear", "short"] * 60


@pytest.fixture(scope="module")
def halves() -> tuple[Answers, Answers]:
    return drawn(0, TOPICS), drawn(1, TOPICS)


def test_no_fit_sees_a_topic_that_it_judges_and_every_answer_is_judged_once() -> None:
    fitted, held = ["a", "b", "c", "a"], ["c", "a", "d", "a"]
    found = list(splits(fitted, held))
    assert sorted(row for _, out in found for row in out) == [0, 1, 2, 3]
    for rows, out in found:
        assert not {fitted[i] for i in rows} & {held[i] for i in out}
    both = np.array(fitted + held)
    alone = {frozenset(both[out]) for _, out in LeaveOneGroupOut().split(both, groups=both)}
    assert {frozenset(held[i] for i in out) for _, out in found if out} == {one for one in alone if one & set(held)}
    assert not list(splits(["a"], ["a", "a"]))
    many = [str(i) for i in range(40)]
    assert len(list(splits(many, many))) == 10


def test_the_risks_without_a_topic_are_those_of_a_fit_without_it(
    halves: tuple[Answers, Answers], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.calibrate.figures.RESAMPLES", 50)
    fitted, held = halves
    found = transfer("logistic", fit_to, {name: fit_to(name, fitted) for name in METHODS}, fitted, held)
    assert found is not None
    assert (found["answers"], found["left_out"]) == (len(TOPICS), [])
    by_topic = {part["topic"]: part for part in found["topics"]}
    for topic in ("torn", "plain"):
        others = fitted[[i for i, name in enumerate(TOPICS) if name != topic]]
        own = held[[i for i, name in enumerate(TOPICS) if name == topic]]
        assert by_topic[topic]["unseen"] == pytest.approx(risks_of(fit_to("logistic", others), own).mean())
        assert by_topic[topic]["seen"] == pytest.approx(risks_of(fit_to("logistic", fitted), own).mean())
        assert by_topic[topic]["wrong"] == pytest.approx(own.wrong.mean())
    # Without the torn topic nothing shows that high entropy can go with a right answer.
    assert by_topic["torn"]["unseen"] > by_topic["torn"]["wrong"] + 0.2
    for method in ("logistic", "probe"):
        figures = found["methods"][method]
        assert figures["unseen"]["ece"] > figures["seen"]["ece"] + 0.02
        assert figures["lost"]["value"] == pytest.approx(
            figures["seen"]["auroc"]["value"] - figures["unseen"]["auroc"]["value"]
        )


def test_topics_without_which_too_few_labels_are_left_are_named(
    halves: tuple[Answers, Answers], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.calibrate.figures.RESAMPLES", 50)
    fitted, held = halves
    rows = [i for i, name in enumerate(TOPICS) if name == "torn"] + [1, 5, 9]
    found = transfer("logistic", fit_to, {name: fit_to(name, fitted) for name in METHODS}, fitted[rows], held)
    assert found is not None
    assert found["left_out"] == ["torn"]
    assert found["answers"] == sum(name != "torn" for name in TOPICS)
    assert {part["topic"] for part in found["topics"]} == {"plain", "clear", "short"}


def test_labels_of_one_topic_have_no_transfer(halves: tuple[Answers, Answers]) -> None:
    rows = [i for i, name in enumerate(TOPICS) if name == "plain"]
    fitted, held = (part[rows] for part in halves)
    assert transfer("logistic", fit_to, {name: fit_to(name, fitted) for name in METHODS}, fitted, held) is None
