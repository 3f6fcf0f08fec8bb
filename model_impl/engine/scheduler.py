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
from vllm.v1.engine import EngineCoreOutput, EngineCoreOutputs
from vllm.v1.outputs import LogprobsLists, ModelRunnerOutput
from vllm.v1.request import Request, RequestStatus

from model_impl.engine.member_share import SharingScheduler
from model_impl.wire import find_columns, is_unshown

AT_ONCE = 16
"""The number of tokens whose statistics travel together. A shorter rest of an aborted answer is never sent."""


class HoldingScheduler(SharingScheduler):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.held: dict[str, list[LogprobsLists]] = {}
        """The waiting statistics, by request id."""

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
        for outputs in found.values():
            for output in outputs.outputs:
                if (held := self.held.get(output.request_id)) is not None:
                    self._hold(held, output)
        return found

    def _hold(self, held: list[LogprobsLists], output: EngineCoreOutput) -> None:
        """Take the statistics out of the output, or give it all that have been waiting."""
        if output.new_logprobs is not None:
            held.append(output.new_logprobs)
        finished = output.finish_reason is not None
        if not finished and len(held) < AT_ONCE:
            output.new_logprobs = None
            return
        output.new_logprobs = joined(held) if held else None
        if finished:
            del self.held[output.request_id]
        else:
            held.clear()


def can_wait(params: SamplingParams | None) -> bool:
    """Whether nobody sees them before the answer ends, and the engine ends it, which is not so with stop strings."""
    return params is not None and is_unshown(params.extra_args) and not params.stop


def joined(steps: Sequence[LogprobsLists]) -> LogprobsLists:
    """One after the other. Growth begins or ends within an answer where a first delta is loaded or the last one goes:
    it is cut to what all steps have."""
    if len({step.logprob_token_ids[:1, 1:].tobytes() for step in steps}) > 1:
        steps = [of_the_chosen(step) for step in steps]
    width = min(step.logprobs.shape[1] for step in steps)
    ids, values = (
        np.concatenate([matrix[:, :width] for matrix in matrices])
        for matrices in zip(*((step.logprob_token_ids, step.logprobs) for step in steps), strict=True)
    )
    return of_the_chosen(LogprobsLists(ids, values, np.concatenate([step.sampled_token_ranks for step in steps])))


def of_the_chosen(step: LogprobsLists) -> LogprobsLists:
    """Without alternatives, which are there because other requests of the batch want them."""
    start = find_columns(step.logprob_token_ids)
    if start is None or start == 1:
        return step
    kept = [0, *range(start, step.logprobs.shape[1])]
    return LogprobsLists(step.logprob_token_ids[:, kept], step.logprobs[:, kept], step.sampled_token_ranks)
