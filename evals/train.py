"""Train the models that the benchmark needs and that are missing: `python -m evals.train --seeds 1 2`.

Seed 0 is committed (evals/world/checkpoint); the other seeds are smaller worlds with rare people, each with a grown
stage. Every seed has a twin. The training takes about 2 CPU hours in all. Models in the runs directory are not trained
again, and an interrupted training resumes after its last epoch.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast

from evals.rare import RareWorld
from evals.twin import Twin, TwinRun
from evals.world.evaluate import load_checkpoint
from evals.world.export import export
from evals.world.growing import GrowthRecipe, GrowthRun
from evals.world.people import WORLD_A, WORLD_B, World
from evals.world.tokenizer import load_tokenizer, train_tokenizer
from evals.world.training import Progress, Recipe, Run, progress_line, world_texts
from model_impl.checkpoint.grow import side_files
from model_impl.checkpoint.writing import write_checkpoint
from model_impl.reference.model import ReferenceTokenformer

PEOPLE = Path(__file__).parent / "world" / "checkpoint"
"""Seed 0: the demo of earlier versions."""

RUNS = Path(__file__).parent / "runs"
SEEDS = (0, 1, 2, 3, 4)

KINDS = ("tokenformer", "twin")


@dataclass(frozen=True)
class Subject:
    """One seed of the benchmark: its worlds, its recipe, and its models' directories. Seed 0 is committed."""

    seed: int
    runs: Path = RUNS

    @property
    def directory(self) -> Path:
        return self.runs / f"seed-{self.seed}"

    @property
    def recipe(self) -> Recipe:
        return Recipe() if self.seed == 0 else Recipe(epochs=70, short_epochs=24, seed=self.seed)

    @cached_property
    def world(self) -> World:
        """The world that the base stage learned."""
        if self.seed == 0:
            return WORLD_A
        return RareWorld(seed=self.seed, known=512, unknown=128, rare=128, epochs=self.recipe.epochs)

    @cached_property
    def world_b(self) -> World:
        """The world that the grown stage learned."""
        return WORLD_B if self.seed == 0 else World(seed=self.seed, known=128, unknown=64, offset=640)

    def checkpoint(self, model: str) -> Path:
        """The directory of the Tokenformer: its "base", or "grown", which holds both stages, as that of seed 0 does."""
        return PEOPLE if self.seed == 0 else self.directory / model

    def trained(self, model: str) -> bool:
        """Whether "base", "grown" or "twin" has been trained to its end."""
        if model != "twin":
            return self.checkpoint(model).exists()
        state = self.directory / "twin.pt"
        return state.exists() and self._twin_run().progress.epoch == self.recipe.epochs

    def tokenformer(self, model: str) -> tuple[ReferenceTokenformer, PreTrainedTokenizerFast]:
        return load_checkpoint(self.checkpoint(model))

    def twin(self) -> tuple[Twin, PreTrainedTokenizerFast]:
        run = self._twin_run()
        return run.model.eval().requires_grad_(False), run.tokenizer  # type: ignore[return-value]

    def train(self, kind: str, report: Callable[[Progress, Recipe], None]) -> None:
        """Train the missing models of this kind (`KINDS`)."""
        if kind == "twin":
            run = self._twin_run()
            run.train(lambda progress: report(progress, run.recipe))
        else:
            if not self.trained("base"):
                self._train_base(report)
            if not self.trained("grown"):
                self._grow(report)

    def _twin_run(self) -> TwinRun:
        tokenizer = load_tokenizer(PEOPLE) if self.seed == 0 else train_tokenizer(world_texts(self.world))
        return TwinRun(self.world, tokenizer, self.recipe, self.directory / "twin.pt")

    def _train_base(self, report: Callable[[Progress, Recipe], None]) -> None:
        run = Run(self.world, train_tokenizer(world_texts(self.world)), self.recipe, self.directory / "base.pt")
        run.train(lambda progress: report(progress, run.recipe))
        export(run, {}, self.checkpoint("base"))

    def _grow(self, report: Callable[[Progress, Recipe], None]) -> None:
        base, recipe = self.checkpoint("base"), GrowthRecipe(seed=self.seed)
        run = GrowthRun(base, load_tokenizer(base), self.world, self.world_b, recipe)
        run.train(lambda progress: report(progress, recipe))
        grown = self.checkpoint("grown")
        new = grown.with_suffix(".new")
        write_checkpoint(new, run.config, run.finished_model().state_dict().items(), side_files(base))
        new.rename(grown)


def show(name: str) -> Callable[[Progress, Recipe], None]:
    """A report of every epoch that prints its line."""
    return lambda progress, recipe: print(f"{name}  {progress_line(progress, recipe)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m evals.train", description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", choices=SEEDS, default=SEEDS)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--runs", type=Path, default=RUNS, help="where the models are kept")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for seed in arguments.seeds:
        for kind in arguments.kinds:
            Subject(seed, arguments.runs).train(kind, show(f"seed {seed} {kind}"))


if __name__ == "__main__":
    main()
