"""Train the demo checkpoint from scratch: `python -m demo.train`.

About half an hour on one CPU core with bfloat16 products (AVX512-BF16 or AMX); use `--dtype float32` on older ones.
The state is saved after every epoch under demo/runs/: the same command resumes an interrupted run. At the end the
checkpoint is measured and written to demo/checkpoint/ with its log and model card.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from demo.card import model_card
from evals.world.evaluate import evaluate
from evals.world.export import export
from evals.world.people import World
from evals.world.tokenizer import train_tokenizer
from evals.world.training import Progress, Recipe, Run, machine, progress_line, world_texts

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m demo.train", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=HERE / "checkpoint", help="where the checkpoint goes")
    parser.add_argument("--state", type=Path, default=HERE / "runs" / "state.pt", help="where the run's state is kept")
    parser.add_argument("--epochs", type=int, default=Recipe.epochs, help="passes over the world")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default=Recipe.dtype, help="of the matrix products")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    world, recipe = World(), Recipe(epochs=arguments.epochs, dtype=arguments.dtype)
    log = arguments.state.with_suffix(".log")

    def report(progress: Progress) -> None:
        line = progress_line(progress, recipe)
        print(line, flush=True)
        with log.open("a") as file:
            file.write(line + "\n")

    try:
        run = Run(world, train_tokenizer(world_texts(world)), recipe, arguments.state)
    except ValueError as error:
        sys.exit(str(error))
    if run.progress.epoch == 0:
        log.unlink(missing_ok=True)
    print(f"training on {machine()}; state in {arguments.state}", flush=True)
    run.train(report)
    print("measuring (a few minutes)", flush=True)
    found = evaluate(run.model.eval(), run.tokenizer, world)
    head = f"machine: {machine()}\nseconds: {run.progress.seconds:.0f}\nrecipe: {recipe}\nworld: {world}\n"
    texts = {
        "README.md": model_card(run, found, machine()),
        "training.log": f"{head}\n{log.read_text()}\n{found.tables()}\n",
    }
    export(run, texts, arguments.out)
    print(f"{found.tables()}\n\nwritten to {arguments.out}")


if __name__ == "__main__":
    main()
