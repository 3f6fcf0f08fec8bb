"""How fast `tokenformer train` trains, beside the evaluation's own loop: `python -m loadtest.training`.

Both take the same rows of the evaluation's world A through a model of its shape, by turns. A step is an update on 2048
tokens: forward, backward, clipping, Muon and AdamW.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from transformers import TrainerCallback, TrainingArguments

from evals.world.packing import SHORT_ROW, epoch_rows
from evals.world.people import WORLD_A
from evals.world.tokenizer import train_tokenizer
from evals.world.training import Recipe as WorldRecipe
from evals.world.training import Run, model_config, world_texts
from model_impl.huggingface import HuggingFaceConfig, TokenformerForCausalLM
from model_impl.training.recipe import Recipe
from model_impl.training.run import TokenformerTrainer, training_arguments

DISCARDED = 3
"""The first steps, which allocate memory and choose kernels."""


class Clock(TrainerCallback):
    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_end(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        self.times.append(time.perf_counter())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=30)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    world, recipe = WORLD_A, WorldRecipe()
    tokenizer = train_tokenizer(world_texts(world))
    ids, labels = epoch_rows(world, tokenizer, 0, SHORT_ROW)
    size = recipe.batch_tokens // SHORT_ROW
    ids, labels = ids[: arguments.steps * size], labels[: arguments.steps * size]
    with tempfile.TemporaryDirectory() as directory:
        found: dict[str, list[float]] = {"evals": [], "train": []}
        for number in range(arguments.rounds):
            run = Run(world, tokenizer, recipe, Path(directory) / "state.pt")
            times = [time.perf_counter()]
            for batch in zip(ids.split(size), labels.split(size), strict=True):
                run._step(*batch, 0.5)
                times.append(time.perf_counter())
            found["evals"].append(step_time(times))
            times = trainer_times(ids, labels, run, Path(directory) / str(number))
            found["train"].append(step_time(times))
            print(f"{1e3 * found['evals'][-1]:.1f} ms  {1e3 * found['train'][-1]:.1f} ms", flush=True)
    ratios = [train / own for train, own in zip(found["train"], found["evals"], strict=True)]
    medians = {name: median(values) for name, values in found.items()}
    print(f"a step: evals {1e3 * medians['evals']:.1f} ms, train {1e3 * medians['train']:.1f} ms")
    print(f"ratio: median {median(ratios):.3f}, {min(ratios):.3f} to {max(ratios):.3f}")


def trainer_times(ids: torch.Tensor, labels: torch.Tensor, run: Run, directory: Path) -> list[float]:
    fields = {name: value for name, value in vars(model_config(run.recipe, run.tokenizer)).items() if name[0] != "_"}
    model = TokenformerForCausalLM(HuggingFaceConfig(**fields))
    arguments = training_arguments(directory, Recipe(dtype=run.recipe.dtype))
    arguments.learning_rate = run.recipe.muon_lr
    arguments.per_device_train_batch_size = run.recipe.batch_tokens // SHORT_ROW
    arguments.save_strategy, arguments.logging_steps = "no", 10
    # The evaluation's loop cuts the last token off before the model, whose rows then have SHORT_ROW positions.
    rows = [{"input_ids": row[:SHORT_ROW], "labels": label[:SHORT_ROW]} for row, label in zip(ids, labels, strict=True)]
    clock = Clock()
    TokenformerTrainer(model, arguments, train_dataset=rows, callbacks=[clock]).train()
    return clock.times


def step_time(times: list[float]) -> float:
    return median(b - a for a, b in zip(times[DISCARDED:], times[DISCARDED + 1 :], strict=False))


if __name__ == "__main__":
    main()
