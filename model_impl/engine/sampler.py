"""vLLM's sampler, which also reports every distribution that it samples from: see model_impl/engine/worker.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any

import torch
from vllm.v1.outputs import LogprobsTensors, SamplerOutput
from vllm.v1.sample.sampler import Sampler

from model_impl.kernels.cpu import library as cpu_kernels
from model_impl.kernels.statistics import token_statistics
from model_impl.kernels.words import Words, likeliest
from model_impl.wire import STATISTICS, pseudo_ids

Report = Callable[[Callable[[], Words], torch.Tensor], torch.Tensor]
"""From the likeliest words of N rows, which are found only if there is something to report, and the tokens int64 [N]
after them to further columns float32 [N, C]."""


class StatisticsSampler(Sampler):
    """Appends `token_statistics` of the raw distribution to whatever logprobs it gathers.

    `report` gives, where it is set, what the model reports of the rows that are gathered.
    """

    raw_statistics: torch.Tensor | None = None
    raw_words: Words | None = None
    raw_logits: torch.Tensor | None = None
    """The step's raw logits, if only chosen tokens are wanted: one kernel then reads everything from them."""
    report: Report | None = None

    @contextmanager
    def reporting(self, report: Report | None) -> Iterator[None]:
        self.report = report
        try:
            yield
        finally:
            self.report = None

    def take_statistics(self, logits: torch.Tensor, sampling_metadata: Any) -> None:
        """Keep the statistics of logits [N, V] for the coming `forward` if a request of the batch wants logprobs."""
        # -1 comes from the rejection sampler only, which gathers the accepted tokens' logprobs itself afterwards.
        if sampling_metadata.max_num_logprobs not in (None, -1) or sampling_metadata.logprob_token_ids:
            self.raw_statistics, self.raw_words = token_statistics(logits), likeliest(logits)

    def forward(self, logits: torch.Tensor, sampling_metadata: Any, *args: Any, **kwargs: Any) -> SamplerOutput:
        """As vLLM's; the statistics are taken before penalties, bans and temperature change the logits in place."""
        if self.raw_statistics is None:
            only_chosen = sampling_metadata.max_num_logprobs == 0 and not sampling_metadata.logprob_token_ids
            if only_chosen and self.logprobs_mode == "raw_logprobs" and cpu_kernels.supports(logits):
                # In float32 the sampler changes the logits themselves, and else a copy of them.
                self.raw_logits = logits.clone() if logits.dtype == torch.float32 else logits
            else:
                self.take_statistics(logits, sampling_metadata)
        try:
            return super().forward(logits, sampling_metadata, *args, **kwargs)
        finally:
            self.raw_statistics = self.raw_logits = self.raw_words = None

    def compute_logprobs(self, logits: torch.Tensor) -> torch.Tensor:  # type: ignore[override]  # likewise
        """As vLLM's; the raw logits where these are what `gather_logprobs` wants."""
        return super().compute_logprobs(logits) if self.raw_logits is None else self.raw_logits

    def gather_logprobs(  # type: ignore[override]  # static in vLLM, always called through the object
        self, logprobs: torch.Tensor, num_logprobs: int, token_ids: torch.Tensor
    ) -> LogprobsTensors:
        """As vLLM's; outside `forward` (prompt tokens, accepted drafts) `logprobs` are themselves raw."""
        if self.raw_logits is None:
            return self._with_statistics(super().gather_logprobs(logprobs, num_logprobs, token_ids), logprobs)
        reported = None if self.report is None else self.report(partial(likeliest, self.raw_logits), token_ids)
        more = 0 if reported is None else reported.shape[1]
        found, ranks = cpu_kernels.chosen_and_statistics(self.raw_logits, token_ids, 1 + len(STATISTICS) + more)
        # On matrices of a few numbers an operator of NumPy takes a fifth of the time of PyTorch's.
        if reported is not None and more:  # without columns it has the model's dtype
            found.numpy()[:, 1 + len(STATISTICS) :] = reported.numpy()
        kinds = pseudo_id_row(more, torch.int32, token_ids.device, chosen=True).numpy()
        ids = kinds.repeat(len(token_ids), axis=0)
        ids[:, 0] = token_ids.numpy()
        return LogprobsTensors(torch.from_numpy(ids), found, ranks)

    def gather_specific_token_logprobs(self, logprobs: torch.Tensor, *args: Any) -> LogprobsTensors | None:
        gathered = super().gather_specific_token_logprobs(logprobs, *args)
        return None if gathered is None else self._with_statistics(gathered, logprobs)

    def _with_statistics(self, gathered: LogprobsTensors, logprobs: torch.Tensor) -> LogprobsTensors:
        statistics = token_statistics(logprobs) if self.raw_statistics is None else self.raw_statistics
        columns = [statistics]
        if self.report is not None:
            taken = self.raw_words
            words = partial(likeliest, logprobs) if taken is None else lambda: taken
            columns.append(self.report(words, gathered.logprob_token_ids[:, 0]))
        return with_columns(gathered, columns)


def with_columns(gathered: LogprobsTensors, columns: Sequence[torch.Tensor]) -> LogprobsTensors:
    """Logprobs [N, n] with statistics and what the model reported, side by side in `columns`, under pseudo ids."""
    ids, logprobs = gathered.logprob_token_ids, torch.cat([gathered.logprobs, *columns], dim=1)
    reported = logprobs.shape[1] - ids.shape[1] - len(STATISTICS)
    kinds = pseudo_id_row(reported, ids.dtype, ids.device).expand(len(ids), -1)
    return gathered._replace(logprob_token_ids=torch.cat([ids, kinds], dim=1), logprobs=logprobs)


@lru_cache(maxsize=8)
def pseudo_id_row(reported: int, dtype: torch.dtype, device: torch.device, *, chosen: bool = False) -> torch.Tensor:
    """`pseudo_ids` as a tensor [1, columns]. `chosen`: after a place for the token that was chosen."""
    return torch.tensor([[*[0] * chosen, *pseudo_ids(reported)]], dtype=dtype, device=device)


def count_at_least(x: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Per row of x [N, V], how many elements are >= values [N, 1]; int64 [N]."""
    return (x >= values).sum(-1)
