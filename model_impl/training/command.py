"""`tokenformer train`: its flags, and what it prints. Imports wait, as every other command imports this module."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path


def add_arguments(train: argparse.ArgumentParser) -> None:
    train.description = "Train MODEL on texts by transformers' Trainer, and write a checkpoint (see docs/training.md)."
    train.add_argument(
        "model",
        type=Path,
        metavar="MODEL",
        help="checkpoint directory, or the official yml or json file of a new model's shape",
    )
    train.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="F",
        help='JSON lines with a "text", which is learned whole, or "messages", of which the assistant\'s are learned',
    )
    train.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="directory to write; must be new or empty"
    )
    train.add_argument("--stage", metavar="NAME", help="train this growth stage alone; what came before keeps its bits")
    train.add_argument("--replay", type=Path, metavar="F", help="texts that the model has learned and must not forget")
    train.add_argument(
        "--tokenizer",
        type=Path,
        metavar="F",
        help="tokenizer.json or its directory, for a new model (default: byte-level BPE trained on the data)",
    )
    train.add_argument(
        "--resume", action="store_true", help="continue the interrupted run whose state is in DIR.training"
    )
    numbers: dict[str, tuple[type, str]] = {
        "replay-share": (float, "share of old texts in every batch (default: 0.5)"),
        "epochs": (int, "passes over the data (default: 1)"),
        "batch-tokens": (int, "tokens of an update, over all devices (default: 2048)"),
        "row-tokens": (int, "tokens of a row of packed texts (default: what model and update take, at most 2048)"),
        "accumulate": (int, "parts in which a device computes its share of an update, to save memory (default: 1)"),
        "learning-rate": (float, "peak of the parameter tokens' (default: 0.005; 0.001 if trained ones go on)"),
        "weight-decay": (float, "of every parameter that is trained (default: 0.01)"),
        "eval-share": (float, "share of the texts to hold out, whose loss is reported (default: 0)"),
        "vocabulary": (int, "most ids of a tokenizer that is trained on the data (default: 16384)"),
        "seed": (int, "of new weights and of the texts' order (default: 0)"),
    }
    for name, (kind, text) in numbers.items():
        train.add_argument(f"--{name}", type=kind, metavar="N", help=text, default=argparse.SUPPRESS)
    train.add_argument(
        "--dtype",
        metavar="auto|bfloat16|float32",
        default=argparse.SUPPRESS,
        help="of matrix products; auto: bfloat16 where the device has it; weights are trained in float32",
    )
    train.add_argument(
        "--gradient-checkpointing",
        action="store_true",
        default=argparse.SUPPRESS,
        help="compute activations twice instead of keeping them, to save memory",
    )


def run(arguments: argparse.Namespace) -> None:
    from model_impl.training.main_process import is_main_process, warn
    from model_impl.training.recipe import Recipe
    from model_impl.training.task import Task

    given = vars(arguments)
    recipe = Recipe(**{field.name: given[field.name] for field in fields(Recipe) if field.name in given})
    out = arguments.out
    task = Task(arguments.model, arguments.data, out, arguments.stage, arguments.replay, arguments.tokenizer)
    if not task.new and task.replay is None:
        warn("without --replay the model forgets: in a measurement 18 % of the old facts were left")
    from model_impl.training.run import train  # seconds: the faults above are reported without

    config = train(task, recipe, arguments.resume)
    if is_main_process():
        print(f"{out}: stage {config.stages[-1].name}, {config.num_hidden_layers} layers of {config.hidden_size}")
