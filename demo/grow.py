"""Grow the demo checkpoint on a second world: `python -m demo.grow BASE DEST`.

BASE knows world A (`python -m demo.train`). The grown stage learns world B, other people with names from the same
parts, in new parameter tokens only; `--trained all` trains everything, which leaves only the last stage servable.
About eight CPU minutes. DEST gets the checkpoint, and BASE's model card with the figures of both stages.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean, median

import torch
from transformers import PreTrainedTokenizerFast

from demo.examples import as_file, examples
from evals.world.evaluate import draw_question, separation
from evals.world.growing import GrowthRecipe, GrowthRun
from evals.world.people import WORLD_A, WORLD_B, Fact
from evals.world.scoring import Logits, Question, encode, score_questions
from evals.world.tokenizer import load_tokenizer
from evals.world.training import Progress, machine, progress_line
from model_impl.checkpoint.grow import side_files
from model_impl.checkpoint.writing import write_checkpoint
from model_impl.reference.attribution import attribution
from model_impl.reference.model import ReferenceTokenformer
from server.calibrate.markdown import table
from server.clients.playground.routes import EXAMPLES


@dataclass(frozen=True)
class StageResult:
    """The accuracy of one stage on one world: over its known facts, half of them in wordings never seen in training."""

    stage: str
    world: str
    questions: int
    accuracy: float
    entropy_median: float


def measure_stage(model: Logits, run: GrowthRun, stage: str) -> list[StageResult]:
    results = []
    for name, world in (("A", run.old), ("B", run.new)):
        questions = [draw_question(fact, held) for fact in world.facts_of("known") for held in (False, True)]
        scores = score_questions(model, run.tokenizer, questions)
        entropies = [score.entropy for score in scores]
        accuracy = mean(score.correct for score in scores)
        results.append(StageResult(stage, name, len(scores), accuracy, median(entropies)))
    return results


def newest_growth(
    model: ReferenceTokenformer, tokenizer: PreTrainedTokenizerFast, facts: Sequence[Fact]
) -> list[float]:
    """The most that the new stage adds to a token of the right answer about each fact, nats."""
    found = []
    for fact in facts:
        prompt = encode(tokenizer, Question(fact, draw_question(fact).text))
        ids = torch.tensor([prompt.ids])
        parts = attribution(model, ids[:, :-1], ids[:, 1:])[0, prompt.start - 1 :]
        found.append(float(parts[:, -1].max()))
    return found


def card_section(run: GrowthRun, model: ReferenceTokenformer) -> str:
    stages = [stage.name for stage in run.config.stages]
    servable = run.config.servable_stages
    results = [r for i in servable for r in measure_stage(partial(model.forward, stage=i), run, stages[i])]
    rows = [(r.stage, r.world, f"{r.questions:,}", f"{r.accuracy:.2%}", f"{r.entropy_median:.3f}") for r in results]
    counts = [
        (
            name,
            *(str(run.config.token_count(p, i)) for p in ("query", "ffn")),
            f"{parameters(run, i):,}",
            f"{parameters(run, i) * 4 / 1e6:.1f} MB",
        )
        for i, name in enumerate(stages)
    ]
    sample_a, sample_b = (
        world.facts_of("known")[:: len(world.facts_of("known")) // 200] for world in (run.old, run.new)
    )
    growth_a, growth_b = (newest_growth(model, run.tokenizer, facts) for facts in (sample_a, sample_b))
    known, unknown = (
        [s.entropy for s in score_questions(model, run.tokenizer, [draw_question(f) for f in run.new.facts_of(kind)])]
        for kind in ("known", "unknown")
    )
    return f"""
## Grown

The checkpoint has grown once: stage `{run.recipe.name}` adds {run.recipe.growth:.0%} parameter tokens, a normalisation
group of their own, and learned world B, {run.new.known} other people with names from the same parts. Trained were
{"the new tokens only" if run.recipe.trained == "new" else "all parameters"}, half of every batch replayed from world A:
{run.progress.tokens / 1e6:.1f} M tokens in {run.progress.seconds / 60:.0f} minutes on {machine()}, by
`python -m demo.grow`.

{table(("stage", "tokens per attention projection", "in the feed-forward", "parameters", "weights"), counts)}

In output tokens per second the stages cost the same when they are served from one copy, because all resident tokens are
scored for every row: `python -m loadtest.stages --checkpoint demo/checkpoint`, results in
`loadtest/results/amd-avx512-bf16/demo-stages.json`.

Exactly right greedy answers about known facts (trained and never trained wordings, half each), and the entropy at the
first token of the value, in nats:

{table(("stage", "world", "questions", "accuracy", "median entropy"), rows)}

The most that the new stage adds to a token of the right answer, above what it adds to the token's rivals: median
{median(growth_a):.2f} nats for facts of world A, {median(growth_b):.2f} for facts of world B; B's is the higher one
with probability {separation(growth_a, growth_b):.3f}.
An unknown person of world B has more entropy than a known one with probability {separation(known, unknown):.4f}.

## Calibrated

`calibration.json` turns the statistics of an answer of stage `{run.recipe.name}` into the probability that it is wrong,
`calibration-base.json` those of stage `base`; `calibration.md` and `calibration-base.md` say how well, on people whom
they were not fitted on. `make calibration` makes them anew; `demo/labels.py` says what was asked.
"""


def parameters(run: GrowthRun, stage: int) -> int:
    """Parameters of the model as it was at `stage`."""
    total = sum(parameter.numel() for parameter in run.model.parameters())
    counts = [sum(run.config.token_count(p, i) for p in run.config.stages[0].tokens) for i in (-1, stage)]
    return total - 2 * run.config.num_hidden_layers * run.config.hidden_size * (counts[0] - counts[1])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m demo.grow", description=__doc__.split("\n")[0])
    parser.add_argument("base", type=Path, metavar="BASE", help="checkpoint directory of `python -m demo.train`")
    parser.add_argument("dest", type=Path, metavar="DEST", help="directory to write; what is there is replaced")
    parser.add_argument("--epochs", type=int, default=GrowthRecipe.epochs, help="passes over world B")
    parser.add_argument("--trained", choices=("new", "all"), default="new", help="the new tokens, or everything")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; two help little at this size")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    recipe = GrowthRecipe(epochs=arguments.epochs, trained=arguments.trained)
    run = GrowthRun(arguments.base, load_tokenizer(arguments.base), WORLD_A, WORLD_B, recipe)
    lines = []

    def report(progress: Progress) -> None:
        lines.append(progress_line(progress, recipe))
        print(lines[-1], flush=True)

    run.train(report)
    print("measuring (a few minutes)", flush=True)
    model = run.finished_model()
    section = card_section(run, model)
    files = side_files(arguments.base)
    files["README.md"] += section.encode()
    log = "\n".join([f"\ngrown by {recipe} on {machine()}", *lines, section])
    files["training.log"] += log.encode()
    files[EXAMPLES] = as_file(examples(WORLD_A, WORLD_B))
    new = arguments.dest.with_name(arguments.dest.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    write_checkpoint(new, run.config, model.state_dict().items(), files)
    shutil.rmtree(arguments.dest, ignore_errors=True)
    new.rename(arguments.dest)
    print(f"{section}\nwritten to {arguments.dest}")


if __name__ == "__main__":
    main()
