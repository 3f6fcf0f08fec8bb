"""The front-side half of token statistics, and the engine settings that it needs.

With `model_impl.worker` this is the only place that touches vLLM's private interfaces below its serving classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vllm.logprobs import FlatLogprobs, Logprob
from vllm.v1.engine import output_processor
from vllm.v1.engine.logprobs import LogprobsProcessor
from vllm.v1.outputs import LogprobsLists, LogprobsTensors

from model_impl.uncertainty import INTERNALS_ID, STATISTICS


@dataclass
class ScoredLogprob(Logprob):
    """The chosen token's logprob together with the statistics of the distribution it was drawn from.

    The fields are those of `model_impl.uncertainty.STATISTICS`; they have defaults only because the base's have.
    """

    entropy: float = math.nan
    variance: float = math.nan
    margin: float = math.nan
    growth: dict[str, float] | None = None
    """Growth stage -> its share; filled in for requests that want it token by token."""
    internals: dict[str, Any] | None = None
    """`server.internals.TokenInternals` as JSON holds it; filled in likewise."""

    def __post_init__(self) -> None:
        # As the model reported them, see `model_impl.collector`. No fields: answers must not show them.
        self.provenance: list[float] | None = None
        self.internal_columns: list[float] | None = None


class StatisticsProcessor(LogprobsProcessor):
    """Splits the statistics columns off and hangs them on each position's chosen token."""

    def _update_sample_logprobs(self, logprobs_lists: LogprobsLists) -> None:
        plain, statistics = split_statistics(logprobs_lists)
        super()._update_sample_logprobs(plain)
        self._attach(self.logprobs, statistics)

    def _update_prompt_logprobs(self, prompt_logprobs_tensors: LogprobsTensors) -> None:
        plain, statistics = split_statistics(prompt_logprobs_tensors)
        super()._update_prompt_logprobs(plain)
        self._attach(self.prompt_logprobs, statistics)

    @staticmethod
    def _attach(positions: Any, statistics: Statistics | None) -> None:
        if statistics is None or isinstance(positions, FlatLogprobs):
            return  # the flat container of vLLM's offline API has no place for them
        new = positions[len(positions) - len(statistics.values) :]
        for position, values in zip(new, statistics.values, strict=True):
            plain, internals = values[: statistics.plain], values[statistics.plain :]
            if not all(map(math.isfinite, plain)):
                continue  # logits that overflowed: JSON has no NaN, and there is nothing to report
            token_id, chosen = next(iter(position.items()))  # the chosen token comes first
            columns: dict[str, Any] = dict(zip(STATISTICS, plain, strict=False))
            entry = position[token_id] = ScoredLogprob(**vars(chosen), **columns)
            entry.provenance = plain[len(STATISTICS) :] or None
            entry.internal_columns = internals or None


@dataclass(frozen=True)
class Statistics:
    """The extra columns of some positions: `plain` of them are `STATISTICS` and provenance, the others internals."""

    values: list[list[float]]
    plain: int


def split_statistics(logprobs: Any) -> tuple[Any, Statistics | None]:
    """Logprobs lists or tensors without their statistics columns, and the columns (None where there are none)."""
    ids, values = logprobs.logprob_token_ids, logprobs.logprobs
    extra = [int(token_id) for token_id in ids[0] if token_id < 0] if len(ids) else []
    if not extra:
        return logprobs, None
    width = len(extra)
    plain = logprobs._replace(logprob_token_ids=ids[:, :-width], logprobs=values[:, :-width])
    return plain, Statistics(values[:, -width:].tolist(), width - extra.count(INTERNALS_ID))


def install() -> None:
    """Make every engine client of this process deliver `ScoredLogprob`s."""
    output_processor.LogprobsProcessor = StatisticsProcessor  # type: ignore[misc]


def scored(position: Mapping[int, Logprob] | None) -> ScoredLogprob | None:
    """The scored entry of one generated or prompt position; None where no statistics came along.

    Under beam search it need not be the token that the beam chose, but it describes the same distribution.
    """
    return next((entry for entry in (position or {}).values() if isinstance(entry, ScoredLogprob)), None)
