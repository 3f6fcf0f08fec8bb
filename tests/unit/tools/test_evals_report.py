"""The evaluation from end to end, with models that know nothing: every task gives figures and the report holds them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from transformers import PreTrainedTokenizerFast

from evals import tasks, transfer
from evals.answers import Answer
from evals.fitted import crossed, folds_of, isotonic, logistic, predicted, splits_by, text_only
from evals.questions import draw_items
from evals.rare import RareWorld
from evals.report.aggregate import Results, spread
from evals.report.at_hand import AtHand
from evals.report.page import report, tables
from evals.report.plots import plots
from evals.results import seed_figures, write
from evals.run import MODELS, run
from evals.score import SERVED, Table, judge
from evals.train import Subject
from evals.twin import Twin
from evals.view import ENSEMBLE, PLAIN, View
from evals.world.growing import GrowthRecipe, grown_config
from evals.world.people import World
from evals.world.tokenizer import train_tokenizer
from evals.world.training import Recipe, model_config, world_texts
from model_impl.reference.model import ReferenceTokenformer
from server.calibrate.figures import chance_eces
from server.uncertainty.features import GROUPS

RECIPE = Recipe(epochs=16, hidden_size=32, layers=2, heads=2, attention_tokens=32, ffn_tokens=64)


@dataclass(frozen=True)
class Untrained(Subject):
    """A subject whose models are as they were initialised."""

    @property
    def recipe(self) -> Recipe:
        return RECIPE

    @property
    def world(self) -> World:  # type: ignore[override]
        return RareWorld(seed=self.seed, known=24, unknown=12, rare=10, epochs=RECIPE.epochs)

    @property
    def world_b(self) -> World:  # type: ignore[override]
        return World(seed=self.seed, known=12, unknown=4, offset=36)

    def trained(self, model: str) -> bool:
        return model in MODELS

    def tokenformer(self, model: str) -> tuple[ReferenceTokenformer, PreTrainedTokenizerFast]:
        tokenizer = train_tokenizer(world_texts(self.world))
        config = grown_config(model_config(RECIPE, tokenizer), GrowthRecipe())
        torch.manual_seed(self.seed)
        return ReferenceTokenformer(config).eval().requires_grad_(False), tokenizer

    def twin(self) -> tuple[Twin, PreTrainedTokenizerFast]:
        tokenizer = train_tokenizer(world_texts(self.world))
        return Twin(model_config(RECIPE, tokenizer)).eval().requires_grad_(False), tokenizer


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evals.score.MEMBERS", 2)
    monkeypatch.setattr("evals.study.FEW", (2,))
    monkeypatch.setattr("evals.study.SOME", (2,))
    monkeypatch.setattr("evals.study.MANY", (2, 3))
    monkeypatch.setattr("evals.study.QUESTIONS", 8)
    monkeypatch.setattr("evals.matching.RESAMPLES", 20)
    monkeypatch.setattr("evals.answers.LIMIT", 4)
    monkeypatch.setattr("evals.score.SAMPLES", 2)


def test_an_evaluation_runs_from_models_to_the_report(
    tmp_path: Path, fast: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored = run(Untrained(1, tmp_path), share=0.2)
    assert set(scored.tables) == set(MODELS)
    again = run(Untrained(1, tmp_path), share=0.2)  # reads what was saved
    for name, table in scored.tables.items():
        assert again.tables[name].answers == table.answers
        assert all(np.isfinite(column).all() for column in table.signals.values())
    # Models that know nothing get all wrong; some answers called right give every task two sides.
    for name, table in scored.tables.items():
        for i, item in enumerate(scored.items_of(name)):
            if i % 3 or item.fact.kind == "known":
                table.answers[i] = item.fact.answer()
    figures = seed_figures(scored)
    written = write(figures, tmp_path)
    assert json.loads(written.read_text())["seed"] == 1
    results = Results.load(tmp_path)
    plots(results, tmp_path)
    monkeypatch.setattr("evals.tasks.FEWEST", 3)
    base = View(scored.items_of("base"), scored.tables["base"])
    views = base.where(base.world == "A"), View(scored.items_of("grown"), scored.tables["grown"])
    (tmp_path / "transfer.json").write_text(json.dumps(transfer.figures({1: views, 2: views})))
    at_hand = AtHand.load(tmp_path)
    text = report(results, at_hand, "commands", "machine") + tables(results, at_hand)
    found = at_hand.transfer("attributes", "WEPR (published)", "unseen", "ece")
    assert found.keys() == {1, 2} and 0 < found[1] == found[2] < 1
    assert f", {found[1]:.2f} |" in text and "not at hand:\n  every twin" in text
    value = figures["models"]["base"]["detection"]["all"]["signals"]["sequence probability"]["auroc"]["value"]
    assert f"| sequence probability | {value:.3f} |" in text
    assert all((tmp_path / f"{name}.svg").stat().st_size for name in ("study", "calibration", "exposure"))


def test_detection_is_scikit_learns_auroc_and_calibration_the_servers_figures() -> None:
    rng = np.random.default_rng(0)
    signal = rng.normal(size=200)
    wrong = rng.random(200) < 1 / (1 + np.exp(-2 * signal))
    folds = folds_of([f"person {i // 2}" for i in range(200)])
    assert all(folds[i] == folds[i + 1] for i in range(0, 200, 2)) and set(folds) == set(range(5))
    fitted = predicted(logistic(), signal[:, None], wrong, splits_by(folds))
    assert roc_auc_score(wrong, fitted) == pytest.approx(roc_auc_score(wrong, signal), abs=0.02)
    stepped = predicted(isotonic(), signal, wrong, splits_by(folds))
    assert ((stepped >= 0) & (stepped <= 1)).all() and roc_auc_score(wrong, stepped) > 0.75
    # |mean of 100 coins - 1/2| is sqrt(2 / pi) 0.5 / sqrt(100) on average.
    assert chance_eces(np.linspace(0.499, 0.501, 1500)).mean() == pytest.approx(0.04, abs=0.005)


def test_a_prediction_comes_from_a_fit_without_the_person() -> None:
    label = np.array([True, False] * 50)
    folds = folds_of([str(i) for i in range(100)])
    # Two people's examples are in both folds, and contradict the others': only a fit that has seen them knows.
    people, halves = ["a", "a", "b", "b", "c", "d", "e", "f"], np.array([0, 1] * 4)
    signal = np.array([1, 1, -1, -1, 0.1, 0.1, -0.1, -0.1])[:, None]
    others = np.array([True, True, False, False, False, False, True, True])
    judged = predicted(logistic(100.0), signal, others, splits_by(halves, people))
    assert (judged[:2] < 0.5).all() and (judged[2:4] > 0.5).all()
    # The words tell every example apart and nothing else: only a fit that has seen an example could know its label.
    found = predicted(text_only(), np.array([f"word{i}" for i in range(100)]), label, splits_by(folds))
    assert roc_auc_score(label, found) < 0.7


def test_a_transferred_prediction_comes_from_a_fit_without_the_person_and_the_kind() -> None:
    people, kinds = [f"person {i // 2}" for i in range(60)], np.array(["a", "b", "c"] * 20)
    names = np.array(people)
    splits = crossed(people, kinds)
    assert (sum(held.astype(int) for _, held in splits) == 1).all()
    for fit, held in splits:
        assert fit.any() and len(set(kinds[held])) == 1
        assert not set(names[fit]) & set(names[held]) and not set(kinds[fit]) & set(kinds[held])


def test_a_fit_that_fails_on_another_kind_loses_there_and_not_where_it_has_seen_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Entropy tells in each world, but in the second at other levels."""
    monkeypatch.setattr("evals.matching.RESAMPLES", 20)
    world = World(known=60, unknown=20)
    items = draw_items(world, World(known=60, unknown=20, offset=128), 1)
    rng = np.random.default_rng(0)
    second = np.array([item.world == "B" for item in items])
    wrong = rng.random(len(items)) < 0.5
    answers = ["?" if bad else item.fact.answer() for item, bad in zip(items, wrong, strict=True)]
    noise = {name: rng.random(len(items)) for name in (*PLAIN.values(), *ENSEMBLE.values(), "epr")}
    served = {f"{SERVED}{name}": rng.random(len(items)) for name in GROUPS["logits"]}
    served[f"{SERVED}max_entropy"] = wrong + 3.0 * second + 0.1 * rng.random(len(items))
    vectors = {name: rng.random((len(items), 2)) for name in ("wepr", "hidden")}
    found = transfer.transfer(View(items, Table(noise | served, vectors, answers)), np.where(second, "B", "A"))
    assert (found["answers"], found["kinds"]) == (len(items), ["A", "B"])
    figures = found["methods"]["calibrated (isotonic)"]
    assert figures["seen"]["auroc"]["value"] > 0.8 and figures["seen"]["ece"] < 0.1
    assert figures["unseen"]["auroc"]["value"] < 0.6 and figures["unseen"]["ece"] > 0.3
    assert figures["lost"]["low"] > 0.2


def test_the_value_is_between_the_expected_beginning_and_the_full_stop() -> None:
    world = World(known=4, unknown=0)
    tokenizer = train_tokenizer(world_texts(world))
    item = next(i for i in draw_items(world, world, 1) if " " in i.fact.value)
    prompt = item.prompt(tokenizer)
    expected = tuple(prompt.ids[prompt.start :])
    span = judge(prompt, Answer(expected, 1, 0.0)).span
    assert tokenizer.decode(expected[span]).strip() == item.fact.value
    other = judge(prompt, Answer((expected[0], 7, *expected[-2:]), 1, 0.0))
    assert other.span == slice(0, 2)
    assert judge(prompt, Answer((7, 8), 1, 0.0)).span == slice(0, 2)


def test_answers_are_right_with_any_value_that_texts_state() -> None:
    world = World(known=64, unknown=4)
    items = draw_items(world, World(known=4, unknown=0, offset=68), 1)
    ambiguous = next(item for item in items if item.fact.kind == "ambiguous")
    assert all(ambiguous.right(ambiguous.fact.answer(value)) for value, _ in ambiguous.fact.distribution)
    assert not ambiguous.right(ambiguous.fact.answer("nowhere")) and not ambiguous.right("")
    assert {item.held_out_wording for item in items} == {True, False}
    for item in items:
        assert item.text in item.fact.questions(item.held_out_wording)


def test_flags_are_the_budget_and_views_keep_rows_together() -> None:
    signal = np.array([0.1, 0.9, 0.5, 0.5, 0.2])
    assert tasks.flags(signal).tolist() == [False, True, False, False, False]
    world = World(known=64, unknown=4)
    items = draw_items(world, world, 1)[:3]
    view = View(items, Table({"x": np.arange(3.0)}, {}, [item.fact.answer() for item in items]))
    assert not view.wrong.any()
    assert view.where(np.array([True, False, True])).column("x").tolist() == [0.0, 2.0]


def test_aggregates_are_means_over_the_seeds_that_have_the_figure() -> None:
    models = {0: {"base": {"a": {"value": 0.5}}}, 1: {"base": {"a": None}}, 2: {"base": {"a": {"value": 0.7}}}}
    results = Results({seed: {"seed": seed, "models": found} for seed, found in models.items()})
    assert results.values("base", "a") == {0: 0.5, 2: 0.7}
    assert spread(results.values("base", "a")) == "0.600 ± 0.141" and spread({}) == "-"
    assert list(results.held_out.seeds) == [2] and list(results.development.seeds) == [0, 1]
