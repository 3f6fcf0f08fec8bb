"""Score the trained models: signals of every question, and the ensemble's settings, saved beside the models."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from evals.members import dropout_members, token_members
from evals.questions import Item, draw_items
from evals.score import Table, score, score_style
from evals.signals import Values
from evals.study import study, study_items
from evals.train import Subject
from evals.twin import Twin
from model_impl.config import READING_OUT

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
    network, tokenizer = subject.twin() if model == "twin" else subject.tokenformer(model)
    stage = 1 if model == "grown" else 0
    if isinstance(network, Twin):
        members = dropout_members(network, RATE, "hidden")
    else:
        members = token_members(network, RATE, MASKED)
    file = subject.directory / "scores" / f"{model}.npz"
    file.parent.mkdir(parents=True, exist_ok=True)
    scored.tables[model] = saved(
        file, partial(score, network, stage, tokenizer, items, members, sampled=model != "grown")
    )
    if model == "grown":
        return
    names = [person.name for person in subject.world.people if person.known][:STYLE_NAMES]
    scored.styles[model] = saved(
        file.with_stem(f"{model}-style"), partial(score_style, network, stage, tokenizer, names, members)
    )
    file = file.with_stem(f"{model}-study")
    scored.studies[model] = saved(file, lambda: Table(study(network, stage, tokenizer, study_items(items)))).signals


def saved(file: Path, compute: Callable[[], Table]) -> Table:
    if not file.exists():
        started = time.perf_counter()
        compute().save(file)
        print(f"{file.parent.parent.name}/{file.name}: {time.perf_counter() - started:.0f} s", flush=True)
    return Table.load(file)
