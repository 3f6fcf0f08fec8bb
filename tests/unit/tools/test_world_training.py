"""Packing and the training run: labels, resuming, and success on a small world."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from evals.world.corpus import Chat
from evals.world.packing import IGNORED, chat_samples, epoch_samples, pack
from evals.world.people import World
from evals.world.tokenizer import special_id, train_tokenizer
from evals.world.training import Recipe, Run, world_texts

WORLD = World(known=8, unknown=0)
TOKENIZER = train_tokenizer(world_texts(WORLD))
TINY = Recipe(
    epochs=3, short_epochs=1, hidden_size=32, layers=1, heads=1, attention_tokens=16, ffn_tokens=32, dtype="float32"
)


def learned(labels: list[int]) -> str:
    return str(TOKENIZER.decode([label for label in labels if label != IGNORED]))


def test_of_a_chat_only_the_answers_are_learned_with_their_end() -> None:
    chat = Chat((("Hi", "Hello!"), ("Who are you?", "A model.")), system="Be brief.")
    [(ids, labels)] = chat_samples([chat], TOKENIZER)
    assert TOKENIZER.decode(ids) == TOKENIZER.apply_chat_template(chat.messages(), tokenize=False)
    assert learned(labels) == "Hello!<|end|>A model.<|end|>"


def test_packing_keeps_every_sample_whole_and_starts_every_row_with_one() -> None:
    samples = epoch_samples(WORLD, TOKENIZER, 0)
    ids, labels = pack(samples, 160)
    assert ids.shape == labels.shape == (len(ids), 161)
    separator = special_id("<|endoftext|>")
    assert (ids[:, 0] != separator).all() and (ids[labels == IGNORED].numel() + (labels >= 0).sum()) == ids.numel()
    unpacked = [part for row in ids.tolist() for part in runs_between(row, separator)]
    assert unpacked == [sample for sample, _ in samples]
    assert (ids[labels >= 0] == labels[labels >= 0]).all()


def runs_between(row: list[int], separator: int) -> list[list[int]]:
    runs: list[list[int]] = [[]]
    for token in row:
        if token == separator:
            runs.append([])
        else:
            runs[-1].append(token)
    return [run for run in runs if run]


def test_a_sample_longer_than_a_row_is_refused() -> None:
    with pytest.raises(ValueError, match="a sample of 9 tokens does not fit into a row of 8"):
        pack([(list(range(9)), list(range(9)))], 8)


def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(tmp_path: Path) -> None:
    whole = Run(WORLD, TOKENIZER, TINY, tmp_path / "whole.pt")
    whole.train(lambda progress: None)

    class Stop(Exception):
        pass

    def stop_after_two(progress: object) -> None:
        if first.progress.epoch == 2:
            raise Stop

    first = Run(WORLD, TOKENIZER, TINY, tmp_path / "parts.pt")
    with pytest.raises(Stop):
        first.train(stop_after_two)
    second = Run(WORLD, TOKENIZER, TINY, tmp_path / "parts.pt")
    assert second.progress.epoch == 2
    second.train(lambda progress: None)
    for name, tensor in whole.model.state_dict().items():
        torch.testing.assert_close(second.model.state_dict()[name], tensor, rtol=0, atol=0)
    assert second.progress.losses == whole.progress.losses and second.progress.losses[-1] < second.progress.losses[0]


def test_a_state_of_another_recipe_is_refused(tmp_path: Path) -> None:
    Run(WORLD, TOKENIZER, replace(TINY, epochs=1), tmp_path / "state.pt").train(lambda progress: None)
    with pytest.raises(ValueError, match="belongs to a run with other settings"):
        Run(WORLD, TOKENIZER, replace(TINY, epochs=2), tmp_path / "state.pt")
