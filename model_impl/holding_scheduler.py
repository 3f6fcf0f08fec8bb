"""vLLM's scheduler, which lets statistics that no client sees token by token travel in batches.

To send and to receive a token's three small arrays takes the engine and the API process 5 to 7 microseconds each,
several times what the token itself takes. It is not for engines that schedule asynchronously, whose scheduler is
another class.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from vllm.sampling_params import SamplingParams
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.engine import EngineCoreOutput, EngineCoreOutputs
from vllm.v1.outputs import LogprobsLists, ModelRunnerOutput
from vllm.v1.request import Request, RequestStatus

from model_impl.uncertainty import INTERNALS_ARG, INTERNALS_ID, STATISTICS_ID, UNSHOWN_ARG

AT_ONCE = 16
"""Tokens whose statistics travel together. Of an answer that is cut off, those of fewer are never sent."""


class HoldingScheduler(Scheduler):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.held: dict[str, list[LogprobsLists]] = {}
        """Of the requests whose statistics can wait, those that do, by request id."""

    def add_request(self, request: Request) -> None:
        super().add_request(request)
        if can_wait(request.sampling_params):
            self.held.setdefault(request.request_id, [])

    def finish_requests(self, request_ids: str | Iterable[str] | None, finished_status: RequestStatus) -> list[Request]:
        finished = super().finish_requests(request_ids, finished_status)
        for request in finished:
            self.held.pop(request.request_id, None)
        return finished

    def update_from_output(
        self, scheduler_output: SchedulerOutput, model_runner_output: ModelRunnerOutput
    ) -> dict[int, EngineCoreOutputs]:
        found = super().update_from_output(scheduler_output, model_runner_output)
        if model_runner_output.logprobs is not None and self.held:
            kept = columns_of_the_chosen(model_runner_output.logprobs.logprob_token_ids)
            for outputs in found.values():
                for output in outputs.outputs:
                    if output.request_id in self.held:
                        self._hold(output, kept)
        return found

    def _hold(self, output: EngineCoreOutput, kept: Any) -> None:
        """Take the statistics out of the output, or give it all that have been waiting."""
        held, new = self.held[output.request_id], output.new_logprobs
        if new is not None:
            held.append(LogprobsLists(new.logprob_token_ids[:, kept], new.logprobs[:, kept], new.sampled_token_ranks))
        finished = output.finish_reason is not None
        output.new_logprobs = joined(held) if held and (finished or len(held) >= AT_ONCE) else None
        if finished:
            del self.held[output.request_id]
        elif output.new_logprobs is not None:
            held.clear()


def can_wait(params: SamplingParams | None) -> bool:
    """Whether nobody sees them before the answer ends, and it is the engine that ends it, as it does but for stop
    strings. Internals are hundreds of columns, which are better not kept.
    """
    wanted = (params and params.extra_args) or {}
    return bool(wanted.get(UNSHOWN_ARG)) and not wanted.get(INTERNALS_ARG) and not (params and params.stop)


def columns_of_the_chosen(ids: np.ndarray) -> slice | list[int]:
    """Of a step's columns, whose pseudo token ids [N, C] are the same in every row, those that are not alternatives,
    nor internals: both are there because another request wants them."""
    first: Sequence[int] = ids[0].tolist() if len(ids) else []
    start = first.index(STATISTICS_ID) if STATISTICS_ID in first else 1
    stop = len(first) - first.count(INTERNALS_ID)
    return slice(stop) if start == 1 else [0, *range(start, stop)]


def joined(parts: Sequence[LogprobsLists]) -> LogprobsLists:
    """Provenance begins or ends within an answer where a first delta is loaded or the last one goes: cut to what all
    parts have."""
    width = min(part.logprobs.shape[1] for part in parts)
    return LogprobsLists(
        np.concatenate([part.logprob_token_ids[:, :width] for part in parts]),
        np.concatenate([part.logprobs[:, :width] for part in parts]),
        np.concatenate([part.sampled_token_ranks for part in parts]),
    )
