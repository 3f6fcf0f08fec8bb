"""Training rows: short samples packed together, epoch after epoch, with old texts in between."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

import numpy as np
import torch
from torch.utils.data import Dataset

from model_impl.training.samples import Samples

IGNORED = -100
"""The label of a token that is not learned, in transformers and PyTorch."""

Row = list[int]
"""Numbers of the samples in a row, in their order."""


def pack(lengths: Sequence[int], order: Sequence[int], row_tokens: int) -> list[Row]:
    """The samples `order`, whole and in this order, in rows of at most `row_tokens` tokens; none may be longer."""
    rows: list[Row] = [[]]
    free = row_tokens
    for number in order:
        if lengths[number] > free:
            rows.append([])
            free = row_tokens
        rows[-1].append(number)
        free -= lengths[number]
    return rows


def shuffled_rows(samples: Samples, row_tokens: int, seed: str) -> Iterator[list[Row]]:
    """The rows of one epoch after another, each shuffled and packed anew, without end."""
    epoch, lengths = 0, samples.lengths.tolist()
    while True:
        order = list(range(len(samples)))
        Random(f"{seed}/{epoch}").shuffle(order)
        yield pack(lengths, order, row_tokens)
        epoch += 1


def mixed(new: Sequence[Row], old: Iterator[Row], share: float) -> Iterator[Row]:
    """All rows of `new` with rows of `old` evenly in between, which then are `share` of all."""
    owed = 0.0
    for row in new:
        yield row
        owed += share / (1 - share)
        while owed >= 1 - 1e-9:
            yield next(old)
            owed -= 1


class Rows(Dataset[dict[str, torch.Tensor]]):
    """The rows of a whole run in the order of training: ids and labels, both int64 [row_tokens]."""

    def __init__(self, samples: Samples, rows: Sequence[Row], row_tokens: int, separator: int) -> None:
        self.samples, self.rows, self.row_tokens, self.separator = samples, rows, row_tokens, separator

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        """A row's unused end is filled with separators, which are not learned."""
        ids = torch.full((self.row_tokens,), self.separator)
        labels = torch.full((self.row_tokens,), IGNORED)
        start = 0
        for sample in self.rows[number]:
            tokens, learned = self.samples[sample]
            place = slice(start, start + len(tokens))
            ids[place] = torch.from_numpy(tokens)
            labels[place] = torch.from_numpy(np.where(learned, tokens, IGNORED))
            start += len(tokens)
        return {"input_ids": ids, "labels": labels}


def training_rows(
    new: Samples, old: Samples | None, *, epochs: int, share: float, row_tokens: int, separator: int, seed: int
) -> Rows:
    """`epochs` passes over the new samples; where there are old ones, `share` of all rows is drawn from them."""
    passes = shuffled_rows(new, row_tokens, f"{seed}/new")
    rows = [row for _ in range(epochs) for row in next(passes)]
    if old is None:
        return Rows(new, rows, row_tokens, separator)
    drawn = (row for each in shuffled_rows(old, row_tokens, f"{seed}/old") for row in each)
    numbered = ([number + len(new) for number in row] for row in drawn)
    return Rows(joined(new, old), list(mixed(rows, numbered, share)), row_tokens, separator)


def evaluation_rows(samples: Samples, row_tokens: int, separator: int) -> Rows:
    return Rows(samples, pack(samples.lengths.tolist(), range(len(samples)), row_tokens), row_tokens, separator)


def joined(first: Samples, second: Samples) -> Samples:
    return Samples([samples[i] for samples in (first, second) for i in range(len(samples))])
