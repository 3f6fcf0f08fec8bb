"""A worker that runs no model, so that only the cost of the server is left."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from vllm.sampling_params import SamplingParams
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.outputs import LogprobsLists, ModelRunnerOutput
from vllm.v1.worker.cpu_worker import CPUWorker

from model_impl.wire import EPISTEMIC, pseudo_ids, wants_report

FIRST, WORDS = 300, 1000
"""The first id and the number of the words: a part of the demo's vocabulary beyond bytes and special tokens."""

STEP_SECONDS = 0.004
"""The time of a step. A shorter one lets the API process lag behind, and vLLM then puts several tokens into a chunk."""


class NoModel(CPUWorker):
    """Every request gets words in turn, with the columns that `model_impl.engine.worker` would report of them."""

    def load_model(self, *, load_dummy_weights: bool = False) -> None:
        super().load_model(load_dummy_weights=load_dummy_weights)
        config: Any = self.model_config.hf_config
        self.reported = len(EPISTEMIC) + (len(config.stages) + 1 if len(config.stages) > 1 else 0)
        self.prompts: dict[str, int] = {}
        self.params: dict[str, SamplingParams] = {}
        self.next_step = 0.0

    def execute_model(self, scheduler_output: SchedulerOutput) -> ModelRunnerOutput:
        for request_id in scheduler_output.finished_req_ids:
            self.prompts.pop(request_id, None)
            self.params.pop(request_id, None)
        for new in scheduler_output.scheduled_new_reqs:
            self.prompts[new.req_id] = len(new.prompt_token_ids or ())
            self.params[new.req_id] = new.sampling_params or SamplingParams()
        new, cached = scheduler_output.scheduled_new_reqs, scheduler_output.scheduled_cached_reqs
        computed = {request.req_id: request.num_computed_tokens for request in new}
        computed |= zip(cached.req_ids, cached.num_computed_tokens, strict=True)
        lengths = {i: computed[i] + tokens for i, tokens in scheduler_output.num_scheduled_tokens.items()}
        ids = list(lengths)
        time.sleep(max(self.next_step - time.monotonic(), 0))
        self.next_step = time.monotonic() + STEP_SECONDS
        words = [FIRST + length % WORDS for length in lengths.values()]
        return ModelRunnerOutput(
            req_ids=ids,
            req_id_to_index={request_id: i for i, request_id in enumerate(ids)},
            sampled_token_ids=[
                [word] if lengths[i] >= self.prompts[i] else [] for i, word in zip(ids, words, strict=True)
            ],
            logprobs=self._logprobs(ids, words),
        )

    def _logprobs(self, ids: list[str], words: list[int]) -> LogprobsLists | None:
        """All rows are as wide as those of the most demanding request."""
        params = [self.params[i] for i in ids]
        most = max((found.num_logprobs for found in params if found.num_logprobs is not None), default=None)
        if most is None:
            return None
        alternatives = [[(word + step) % WORDS + FIRST for step in range(1, most + 1)] for word in words]
        # vLLM's own server does not ask, as it would take them for alternatives.
        columns = pseudo_ids(self.reported) if any(wants_report(found.extra_args) for found in params) else ()
        token_ids = [[word, *others, *columns] for word, others in zip(words, alternatives, strict=True)]
        shape = (len(ids), 1 + most + len(columns))
        return LogprobsLists(
            np.array(token_ids, np.int32), np.full(shape, 0.5, np.float32), np.ones(len(ids), np.int32)
        )
