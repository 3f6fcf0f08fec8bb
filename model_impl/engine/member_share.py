"""vLLM's scheduler, with a limit on the rows of ensemble members in a step, so that others do not wait for them.

It is not for engines that schedule asynchronously, whose scheduler is another class.
"""

from __future__ import annotations

from typing import Any

from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.request import Request

from model_impl.wire import MEMBER_ARG

FEW_ROWS, OTHERS_PER_ROW = 4, 4
"""The limit beside other requests: so many rows, and one more for every so many others. A step takes about 1.4 times as
long with them (docs/decisions/0011-ensemble-from-the-answer-on.md)."""

ALONE = 16
"""The limit without other requests is one part in ALONE of a step's tokens: a request that comes waits for the step."""


def is_member(request: Request) -> bool:
    params = request.sampling_params
    return bool(params and params.extra_args and MEMBER_ARG in params.extra_args)


class SharingScheduler(Scheduler):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.limited_step, self.member_rows = -1, 0
        """The step that the number belongs to, and how many rows members may still take in it."""

    def _rows_left(self) -> int:
        if self.limited_step != self.current_step:
            self.limited_step = self.current_step
            others = sum(not is_member(request) for request in self.requests.values())
            beside = FEW_ROWS + others // OTHERS_PER_ROW
            self.member_rows = beside if others else max(1, self.max_num_scheduled_tokens // ALONE)
        return self.member_rows

    def _handle_blocked_waiting_request(self, request: Request) -> bool:
        """Whether a waiting request may begin; others may overtake one that may not."""
        ready = super()._handle_blocked_waiting_request(request)
        return ready and not (is_member(request) and self._rows_left() == 0)

    def _reserve_prefill_lookahead(self, request: Request, num_computed_tokens: int, num_new_tokens: int) -> int:
        """The rows that a request gets in this step; vLLM asks of every request, running or about to begin."""
        rows = super()._reserve_prefill_lookahead(request, num_computed_tokens, num_new_tokens)
        if is_member(request):
            # With speculative decoding, vLLM asks for more rows than the last token needs, and must get them.
            if num_computed_tokens + rows <= request.num_tokens:
                rows = min(rows, self._rows_left())
            self.member_rows = max(self._rows_left() - rows, 0)
        return rows
