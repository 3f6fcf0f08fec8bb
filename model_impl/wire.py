"""The protocol between the API process and the engine process, beyond vLLM's own.

A request asks by keys in its `extra_args`. The engine answers in extra columns of the request's logprobs rows, which
travel through vLLM's scheduling, preemption and streaming under pseudo token ids that no tokenizer has:

    chosen token and alternatives | statistics | epistemic | growth

All rows of a matrix have the same extra columns. A request that does not ask for a report gets the statistics alone.
Growth has one column per place (the growth stages, then the delta), and none where the model has one stage only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

STATISTICS = ("entropy", "variance", "margin")
"""Nats, nats^2, and p(most likely token) - p(second)."""

EPISTEMIC = ("epistemic",)
"""Nats, by the closed form of `model_impl.reference.closed_form`."""

STATISTICS_ID, EPISTEMIC_ID, GROWTH_ID = -1, -2, -3
"""Growth: what each place's parameter tokens add to the chosen token's logit, above what they add to its rivals'
(`model_impl.reference.attribution`), nats; below 0 where they speak against it."""

ARG_PREFIX = "tokenformer_"
"""Every key of `extra_args` below begins so. A client may set none of them."""

REPORT_ARG = f"{ARG_PREFIX}report"
"""Asks for the epistemic and the growth columns."""

UNSHOWN_ARG = f"{ARG_PREFIX}unshown"
"""The client has not asked for the logprobs that come with the statistics."""

MEMBER_ARG = f"{ARG_PREFIX}member"
"""Makes the request an ensemble member's; the value holds the fields of `Membership`."""


def report_args(*, unshown: bool = False) -> dict[str, bool]:
    """The `extra_args` that ask for epistemic uncertainty and growth."""
    return {REPORT_ARG: True, UNSHOWN_ARG: unshown}


def wants_report(extra_args: Mapping[str, Any] | None) -> bool:
    return bool(extra_args and extra_args.get(REPORT_ARG))


def is_unshown(extra_args: Mapping[str, Any] | None) -> bool:
    return bool(extra_args and extra_args.get(UNSHOWN_ARG))


@dataclass(frozen=True)
class Membership:
    """Makes a request member number `member` of the `size` members of one ensemble.

    The member differs from the plain model at the positions from `masked_from` on, the last of the scored answer's
    prompt. KV cache blocks before it are the plain request's; only the same member's requests share those from it on.
    The engine adds up the distributions of the positions from `start` on. The request reuses blocks up to there.
    """

    ensemble: str
    member: int
    size: int
    masked_from: int
    start: int

    @classmethod
    def of(cls, extra_args: Mapping[str, Any] | None) -> Membership | None:
        """None for an ordinary request."""
        fields = (extra_args or {}).get(MEMBER_ARG)
        return None if fields is None else cls(**fields)

    def extra_args(self) -> dict[str, Any]:
        return {MEMBER_ARG: asdict(self)}


@lru_cache(maxsize=64)
def pseudo_ids(reported: int) -> Sequence[int]:
    """Token ids of the extra columns: the statistics, then `reported` columns, of which the first is epistemic."""
    epistemic = min(reported, len(EPISTEMIC))
    return [STATISTICS_ID] * len(STATISTICS) + [EPISTEMIC_ID] * epistemic + [GROWTH_ID] * (reported - epistemic)


def find_columns(token_ids: Any) -> int | None:
    """Where the extra columns of a matrix [N, columns] (NumPy's or PyTorch's) begin; None where it has none.

    Raises ValueError for an order other than that of `pseudo_ids`. It runs for every token, hence the plain integer.
    """
    row = token_ids[0].tolist() if len(token_ids) else []
    if STATISTICS_ID not in row:
        return None
    start = row.index(STATISTICS_ID)
    if row[start - 1] < 0 or row[start:] != pseudo_ids(len(row) - start - len(STATISTICS)):
        raise ValueError("the extra columns of the engine's logprobs are in an unknown order")
    return start
