"""Score the trained models: signals of every question, and the ensemble's settings, saved beside the models."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from evals.members import Members, dropout_members, token_members
from evals.questions import Item, draw_items
from evals.score import Table, score, score_style
from evals.signals import Values
from evals.study import study, study_items
from evals.train import Subject
from model_impl.config import READING_OUT
from model_impl.reference.model import ReferenceTokenformer

RATE, MASKED = 0.03, READING_OUT
"""The ensemble's setting in all tasks but the study of settings: the default, which that study showed on seed 0."""

MODELS = ("base", "grown", "twin")

STYLE_NAMES = 300
"""Known people whose names begin a document, for the style positions."""


@dataclass(frozen=True)
class Scored:
    """The scores of one seed."""

    subject: Subject
    items: list[Item]
    tables: dict[str, Table]
    styles: dict[str, Table]
    studies: dict[str, dict[str, Values]]

    def items_of(self, model: str) -> list[Item]:
        return model_items(self.items, model)


def model_items(items: list[Item], model: str) -> list[Item]:
    """The questions for a model. Only the Tokenformer is asked about the grown stage's world. The grown stage is asked
    half of the questions about the base's world, and none about rare people."""
    if model == "base":
        return items
    if model == "twin":
        return [item for item in items if item.world == "A"]
    return [item for i, item in enumerate(items) if item.world == "B" or (i % 2 and not item.rare)]


def run(subject: Subject, models: Sequence[str] = MODELS, share: float = 1.0) -> Scored:
    """Score the trained models of a seed; saved scores are read."""
    scored = Scored(subject, draw_items(subject.world, subject.world_b, subject.recipe.epochs, share), {}, {}, {})
    for model in models:
        if subject.trained(model):
            run_model(scored, model)
    return scored


def run_model(scored: Scored, model: str) -> None:
    subject, items = scored.subject, scored.items_of(model)
    scored.tables[model] = answer_table(subject, model, items)
    if model == "grown":
        return
    network, stage, tokenizer, members = loaded(subject, model)
    directory = scores(subject)
    names = [person.name for person in subject.world.people if person.known][:STYLE_NAMES]
    scored.styles[model] = saved(
        directory / f"{model}-style.npz", partial(score_style, network, stage, tokenizer, members, names)
    )
    file = directory / f"{model}-study.npz"
    scored.studies[model] = saved(file, lambda: Table(study(network, stage, tokenizer, study_items(items)))).signals


def answer_table(subject: Subject, model: str, items: list[Item]) -> Table:
    """The answers of a trained model to its questions, with their signals."""
    compute = partial(score, *loaded(subject, model), items=items, sampled=model != "grown")
    return saved(scores(subject) / f"{model}.npz", compute)


def loaded(subject: Subject, model: str) -> tuple[ReferenceTokenformer, int, PreTrainedTokenizerFast, Members]:
    """A trained model, the stage that answers, its tokenizer, and the members of its ensemble."""
    if model == "twin":
        twin, tokenizer = subject.twin()
        return twin, 0, tokenizer, dropout_members(twin, RATE, "hidden")
    network, tokenizer = subject.tokenformer(model)
    return network, int(model == "grown"), tokenizer, token_members(network, RATE, MASKED)


def scores(subject: Subject) -> Path:
    """The directory of the saved tables, which exists."""
    directory = subject.directory / "scores"
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def saved(file: Path, compute: Callable[[], Table]) -> Table:
    if not file.exists():
        started = time.perf_counter()
        compute().save(file)
        print(f"{file.parent.parent.name}/{file.name}: {time.perf_counter() - started:.0f} s", flush=True)
    return Table.load(file)
