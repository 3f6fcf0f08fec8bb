"""The protocol between the API process and the engine process, beyond vLLM's own.

A request asks by keys in its `extra_args`. The engine answers in extra columns of the request's logprobs rows, which
travel through vLLM's scheduling, preemption and streaming under pseudo token ids that no tokenizer has:

    chosen token and alternatives | statistics | provenance | internals

All rows of a matrix have the same extra columns. Provenance has one column per place (the growth stages, then the
delta). Internals have, per Pattention, `INTERNALS` and then again one column per place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import IntEnum
from functools import lru_cache
from typing import Any

STATISTICS = ("entropy", "variance", "margin")
"""Nats, nats^2, and p(most likely token) - p(second)."""

INTERNALS = ("score_norm", "kurtosis", "participation", "positive_share")
"""The formulas are in `model_impl.reference.internals`."""

STATISTICS_ID, PROVENANCE_ID, INTERNALS_ID = -1, -2, -3

ARG_PREFIX = "tokenformer_"
"""Every key of `extra_args` below begins so. A client may set none of them."""

PROVENANCE_ARG = f"{ARG_PREFIX}provenance"
INTERNALS_ARG = f"{ARG_PREFIX}internals"
"""Asks for internals beside the provenance."""

UNSHOWN_ARG = f"{ARG_PREFIX}unshown"
"""The client has not asked for the logprobs that come with the statistics."""

MEMBER_ARG = f"{ARG_PREFIX}member"
"""Makes the request an ensemble member's; the value holds the fields of `Membership`."""


def report_args(*, internals: bool, unshown: bool = False) -> dict[str, bool]:
    """The `extra_args` that ask for provenance, and perhaps for internals."""
    return {PROVENANCE_ARG: True, INTERNALS_ARG: internals, UNSHOWN_ARG: unshown}


def is_unshown(extra_args: Mapping[str, Any] | None) -> bool:
    return bool(extra_args and extra_args.get(UNSHOWN_ARG))


class ReportLevel(IntEnum):
    """How much the engine reports of a request; a step reports as much as the most demanding of its requests gets."""

    NOTHING = 0
    PROVENANCE = 1
    INTERNALS = 2

    @classmethod
    def of(cls, extra_args: Mapping[str, Any] | None, *, provenance: bool, internals: bool) -> ReportLevel:
        """The level that a request with these `extra_args` gets. `provenance`, `internals`: whether the engine has it
        to report."""
        if not extra_args:
            return cls.NOTHING
        if internals and extra_args.get(INTERNALS_ARG):
            return cls.INTERNALS
        return cls.PROVENANCE if provenance and extra_args.get(PROVENANCE_ARG) else cls.NOTHING

    def width(self, places: int, pattentions: int) -> int:
        """Number of columns after the statistics."""
        return (0, places, places + pattentions * (len(INTERNALS) + places))[self]


@dataclass(frozen=True)
class Membership:
    """Makes a request member number `member` of the `size` members of one ensemble.

    The engine adds up the distributions of its prompt's positions from `start` on. Up to `start` the request may reuse
    KV cache blocks, which only the same member's requests share.
    """

    ensemble: str
    member: int
    size: int
    start: int

    @classmethod
    def of(cls, extra_args: Mapping[str, Any] | None) -> Membership | None:
        """None for an ordinary request."""
        fields = (extra_args or {}).get(MEMBER_ARG)
        return None if fields is None else cls(**fields)

    def extra_args(self) -> dict[str, Any]:
        return {MEMBER_ARG: asdict(self)}


@lru_cache(maxsize=64)
def pseudo_ids(reported: int, places: int) -> Sequence[int]:
    """Token ids of the extra columns: the statistics, then `reported` columns, of which the first `places` are
    provenance."""
    provenance = min(reported, places)
    return [STATISTICS_ID] * len(STATISTICS) + [PROVENANCE_ID] * provenance + [INTERNALS_ID] * (reported - provenance)


def find_columns(token_ids: Any) -> tuple[int, int] | None:
    """Where the extra columns of a matrix [N, columns] (NumPy's or PyTorch's) lie; None where it has none.

    Statistics and provenance lie from the first to the second position, internals from the second one on. Raises
    ValueError for an order other than that of `pseudo_ids`. It runs for every token, hence the plain tuple.
    """
    row = token_ids[0].tolist() if len(token_ids) else []
    if STATISTICS_ID not in row:
        return None
    start, end = row.index(STATISTICS_ID), len(row) - row.count(INTERNALS_ID)
    places = end - start - len(STATISTICS)
    if row[start - 1] < 0 or row[start:end] != pseudo_ids(places, places):
        raise ValueError("the extra columns of the engine's logprobs are in an unknown order")
    return start, end
