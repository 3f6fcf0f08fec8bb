"""An index of all corpus positions by their parameter tokens, to find texts that fire the same ones."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from model_impl.reference.contributions import strongest
from model_impl.reference.model import ReferenceTokenformer, with_weights
from server.api.trace import MAX_POSITIONS
from server.api.trace.batches import batches

KEPT = 64
"""Parameter tokens that the index keeps per position, those that contribute most."""


CHUNK = 1 << 15
"""Positions compared at once: 16 MB."""


class Match(NamedTuple):
    """The position of a text (by number) most similar to the query, and the cosine between them."""

    text: int
    position: int
    similarity: float


class CorpusIndex:
    """The strongest contributions w^2 ||v||^2 at every position of the `sequences` that fit."""

    def __init__(self, sequences: Sequence[Sequence[int]]) -> None:
        ends = list(accumulate(map(len, sequences)))
        self.texts = sum(end <= MAX_POSITIONS for end in ends)
        self.sequences = sequences[: self.texts]
        self.starts = np.array([0, *ends[: self.texts]])
        self.positions = int(self.starts[-1])
        self.tokens = np.zeros((self.positions, KEPT), dtype=np.int32)
        self.shares = np.zeros((self.positions, KEPT), dtype=np.float16)
        self.done = 0

    def build(self, model: ReferenceTokenformer, stage: int) -> None:
        torch.set_num_threads(1)  # of this thread: the engine has the other cores
        for numbers, ids in batches(self.sequences):
            found = strongest(model, ids, KEPT, stage)
            shares = F.normalize(found.contributions, dim=-1)
            for number, tokens, values in zip(numbers, found.tokens.numpy(), shares.numpy(), strict=True):
                rows = slice(self.starts[number], self.starts[number + 1])
                self.tokens[rows, : tokens.shape[-1]] = tokens
                self.shares[rows, : values.shape[-1]] = values
            self.done += ids.numel()

    def start(self, model: ReferenceTokenformer, stage: int) -> None:
        """Build in a daemon thread, with its own modules around the same weights."""
        own = with_weights(model.config, model.state_dict())
        threading.Thread(target=self.build, args=(own, stage), name="trace-corpus", daemon=True).start()

    @property
    def ready(self) -> bool:
        return self.done == self.positions

    def nearest(self, contributions: NDArray[np.float32], count: int) -> list[Match]:
        """The `count` texts most similar to contributions [N], best first, each at its best position. The similarity is
        the cosine of the KEPT strongest contributions on either side; the others count as 0."""
        if not self.positions:
            return []
        query = np.where(contributions >= np.sort(contributions)[-KEPT:][0], contributions, np.float32(0))
        query /= np.linalg.norm(query).clip(np.finfo(np.float32).tiny)
        similarity = np.concatenate(
            [
                np.einsum("pk,pk->p", query[self.tokens[start : start + CHUNK]], self.shares[start : start + CHUNK])
                for start in range(0, self.positions, CHUNK)
            ]
        )
        best = [float(similarity[a:b].max(initial=-1)) for a, b in zip(self.starts, self.starts[1:], strict=False)]
        order = sorted(range(self.texts), key=best.__getitem__, reverse=True)[:count]
        spans = [slice(self.starts[i], self.starts[i + 1]) for i in order]
        return [Match(i, int(similarity[span].argmax()), best[i]) for i, span in zip(order, spans, strict=True)]
