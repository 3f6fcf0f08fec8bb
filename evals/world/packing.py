"""Texts packed into training rows: token ids, their labels, and several texts to a row."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

import torch
from transformers import PreTrainedTokenizerFast

from evals.world.corpus import Chat, epoch_chats, epoch_documents
from evals.world.people import World
from evals.world.tokenizer import ASSISTANT, END, END_OF_TEXT, special_id

SHORT_ROW, LONG_ROW = 256, 512
"""The length of a training row in predicted tokens, in the first epochs and after them. A model trained on short rows
alone got nothing right at the end of a longer chat. Long rows in the first epochs slowed learning; from epoch 21 on
they cost about one epoch. (Rows of 1024 for the last 12 epochs, at a low learning rate, were not learned and did
harm.)"""

IGNORED = -100
"""The label of a token that is not learned, the default of torch's cross-entropy."""

Sample = tuple[list[int], list[int]]
"""Token ids, and a label for each: the id itself where it is learned, IGNORED where it is not."""


def epoch_samples(world: World, tokenizer: PreTrainedTokenizerFast, epoch: int) -> list[Sample]:
    """All texts of one epoch in random order. Documents are learned whole, chats only in the assistant's turns."""
    documents = tokenizer(epoch_documents(world, epoch))["input_ids"]
    samples = [(ids, ids) for ids in documents] + chat_samples(epoch_chats(world, epoch), tokenizer)
    Random(f"{world.seed}/order/{world.offset}/{epoch}").shuffle(samples)
    return samples


def chat_samples(chats: list[Chat], tokenizer: PreTrainedTokenizerFast) -> list[Sample]:
    texts = tokenizer.apply_chat_template([chat.messages() for chat in chats], tokenize=False)
    assistant, end = special_id(ASSISTANT), special_id(END)
    samples = []
    for ids in tokenizer(texts)["input_ids"]:
        labels, speaking = [], False
        for token in ids:
            labels.append(token if speaking else IGNORED)
            speaking = token == assistant or (speaking and token != end)
        samples.append((ids, labels))
    return samples


def pack(samples: Iterable[Sample], length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Whole samples, END_OF_TEXT after each, in rows: (ids, labels), both int64 [rows, length + 1].

    Every row begins with a sample, as a prompt does. Its unused end is END_OF_TEXT, which is not learned. Raises
    ValueError where a sample is longer than a row.
    """
    separator = special_id(END_OF_TEXT)
    rows: list[Sample] = [([], [])]
    for ids, labels in samples:
        if len(ids) > length:
            raise ValueError(f"a sample of {len(ids)} tokens does not fit into a row of {length}")
        if len(rows[-1][0]) + len(ids) + 1 > length + 1:
            rows.append(([], []))
        rows[-1][0].extend([*ids, separator])
        rows[-1][1].extend([*labels, separator])
    packed = torch.full((len(rows), length + 1), separator), torch.full((len(rows), length + 1), IGNORED)
    for i, row in enumerate(rows):
        for target, values in zip(packed, row, strict=True):
            target[i, : len(values)] = torch.tensor(values)
    return packed


def epoch_rows(
    world: World, tokenizer: PreTrainedTokenizerFast, epoch: int, length: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The packed (ids, labels) of one epoch."""
    return pack(epoch_samples(world, tokenizer, epoch), length)
