"""The rows of a run: from texts, some of them held out, to tokens in packed rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from model_impl.checkpoint.reading import load_config
from model_impl.texts import Text, TextTokenizer, TokenizedCheckpoint
from model_impl.training.main_process import warn
from model_impl.training.recipe import Recipe, TrainingError
from model_impl.training.rows import Rows, evaluation_rows, training_rows
from model_impl.training.samples import read_samples, separator_id
from model_impl.training.task import Task

LONGEST_ROW = 2048
"""The tokens of a row where the recipe does not say, and model and update take more."""


@dataclass(frozen=True)
class TrainingData:
    """`held_out` has rows of the texts that are not trained on, by name: new and old ones."""

    rows: Rows
    held_out: dict[str, Rows]


def prepare(
    task: Task, recipe: Recipe, parts: int, checkpoint: Path, texts: Sequence[Text], old: Sequence[Text]
) -> TrainingData:
    """The rows of a model with the tokenizer of `checkpoint`; `old` are the texts to replay.

    An update is computed in `parts`, over all devices, each of one row or more.
    """
    row_tokens = chosen_row_tokens(recipe, load_config(checkpoint).max_position_embeddings, parts, bool(old))
    tokenizer = TextTokenizer(TokenizedCheckpoint(checkpoint))
    separator = separator_id(tokenizer)
    trained, held_out = {}, {}
    for name, file, part in (("new", task.data, texts), ("old", task.replay, old)):
        if file is not None:
            kept, aside = split(part, recipe)
            trained[name] = read_samples(file, kept, tokenizer, row_tokens)
            cut = trained[name].cut
            if aside:
                samples = read_samples(file, aside, tokenizer, row_tokens)
                held_out[name] = evaluation_rows(samples, row_tokens, separator)
                cut = [*cut, *samples.cut]
            if cut:
                longer = f"{len(cut)} of {len(part)} texts are chats of more than {row_tokens} tokens (--row-tokens)"
                warn(f"{file}, line {min(cut)}: {longer}, which lose their end or are left out; this is the first")
    rows = training_rows(
        trained["new"],
        trained.get("old"),
        epochs=recipe.epochs,
        share=recipe.replay_share,
        row_tokens=row_tokens,
        separator=separator,
        seed=recipe.seed,
    )
    return TrainingData(rows, held_out)


def chosen_row_tokens(recipe: Recipe, limit: int, parts: int, replay: bool) -> int:
    """The recipe's, or as many as the model takes where every part has a row and old texts find place beside new."""
    rows = max(parts, 2) if replay else parts
    chosen = min(LONGEST_ROW, limit, max(2, recipe.batch_tokens // rows))
    row_tokens = chosen if recipe.row_tokens is None else recipe.row_tokens
    if row_tokens > limit:
        raise TrainingError(f"--row-tokens: the model takes at most {limit}")
    if recipe.batch_tokens < parts * row_tokens:
        raise TrainingError(f"--batch-tokens: an update of {parts} x {row_tokens} tokens does not fit")
    return row_tokens


def split(texts: Sequence[Text], recipe: Recipe) -> tuple[list[Text], list[Text]]:
    """Texts to train on, of which there is always one, and texts held out at random."""
    wanted = max(1, round(len(texts) * recipe.eval_share)) if recipe.eval_share else 0
    count = min(wanted, len(texts) - 1)
    aside = set(Random(f"{recipe.seed}/held out").sample(range(len(texts)), count))
    kept = [text for i, text in enumerate(texts) if i not in aside]
    return kept, [text for i, text in enumerate(texts) if i in aside]
