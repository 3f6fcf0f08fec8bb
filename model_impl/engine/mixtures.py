"""The engine's side of the parameter-token ensemble: sums of the members' distributions at the same positions.

Members are ordinary requests, scheduled as such. They reach a position in different steps, in chunks, and again after a
preemption. The worker adds each member's distribution once to the mixture of its ensemble, where the API fetches it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch

from model_impl.kernels.statistics import token_statistics
from model_impl.reference.ensemble import decompose
from model_impl.wire import STATISTICS, Membership

ROWS_AT_ONCE = 256
"""Rows whose logits [rows, V] are held at a time."""


class Mixture:
    """Sums over members: probabilities float32 [A, V] and entropies [A], for A positions."""

    def __init__(self, size: int, positions: int, like: torch.Tensor) -> None:
        self.size = size
        self.probabilities = torch.zeros(positions, like.shape[-1], dtype=torch.float32, device=like.device)
        self.entropies = torch.zeros(positions, dtype=torch.float32, device=like.device)
        self.added = [0] * size

    def add(self, member: int, first: int, logits: torch.Tensor) -> None:
        """Add the logits [N, V] of the positions from `first` on."""
        stop = first + len(logits)
        self.probabilities[first:stop] += logits.float().softmax(dim=-1)
        self.entropies[first:stop] += token_statistics(logits)[:, STATISTICS.index("entropy")]
        self.added[member] = stop

    def result(self) -> list[list[float]]:
        """Epistemic and aleatoric uncertainty of every position, nats. Raises RuntimeError if a member is missing."""
        if any(count < len(self.entropies) for count in self.added):
            raise RuntimeError("a member of the ensemble has not scored every position")
        rows: list[list[float]] = decompose(self.probabilities / self.size, self.entropies / self.size).tolist()
        return rows


@dataclass(frozen=True)
class ScoredRows:
    """A member's hidden states [N, d] in a step: those from position `first` on of its prompt of `prompt` tokens."""

    own: Membership
    prompt: int
    first: int
    rows: torch.Tensor


class Mixtures:
    """The ensembles under way, by their names."""

    def __init__(self) -> None:
        self.open: dict[str, Mixture] = {}

    def wanted(self, own: Membership, first: int, stop: int) -> range:
        """Which of the rows at the prompt positions `first` to `stop` have not been added yet."""
        known = self.open.get(own.ensemble)
        done = own.start + (known.added[own.member] if known else 0)
        return range(max(first, done), max(stop, done))

    def add(self, own: Membership, positions: int, first: int, logits: torch.Tensor) -> None:
        """Add a member's logits [N, V] of the prompt positions from `first` on; `positions` counts those wanted."""
        if own.ensemble not in self.open:
            self.open[own.ensemble] = Mixture(own.size, positions, logits)
        self.open[own.ensemble].add(own.member, first - own.start, logits)

    def add_step(self, parts: Iterable[ScoredRows], logits_of: Callable[[torch.Tensor], torch.Tensor | None]) -> None:
        """Add the wanted rows of all members in a step. Members' logits are computed together, as each product reads
        the whole vocabulary's weights."""
        pieces: list[ScoredRows] = []
        for part in parts:
            wanted = self.wanted(part.own, part.first, min(part.first + len(part.rows), part.prompt))
            for start in range(wanted.start, wanted.stop, ROWS_AT_ONCE):
                rows = part.rows[start - part.first : min(start + ROWS_AT_ONCE, wanted.stop) - part.first]
                if sum(len(piece.rows) for piece in pieces) + len(rows) > ROWS_AT_ONCE:
                    self._add_pieces(pieces, logits_of)
                    pieces = []
                pieces.append(replace(part, first=start, rows=rows))
        if pieces:
            self._add_pieces(pieces, logits_of)

    def _add_pieces(
        self, pieces: Sequence[ScoredRows], logits_of: Callable[[torch.Tensor], torch.Tensor | None]
    ) -> None:
        logits = logits_of(torch.cat([piece.rows for piece in pieces]))
        assert logits is not None  # vLLM gathers them on every rank of this pipeline stage
        for piece, part in zip(pieces, logits.split([len(piece.rows) for piece in pieces]), strict=True):
            self.add(piece.own, piece.prompt - piece.own.start, piece.first, part)

    def take(self, ensemble: str) -> Mixture | None:
        """End an ensemble, whether it is complete or not."""
        return self.open.pop(ensemble, None)
