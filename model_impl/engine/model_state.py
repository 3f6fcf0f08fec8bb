"""The model's part in vLLM's V2 model runner, which asks a model for its `ModelState`.

The runner tells it when a request gets a slot and loses it, and asks it for inputs and for the sampler. What V2 has no
hook for is put on top of the runner's own objects by `install`: statistics of prompts, ensembles, grammars.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from functools import cache, cached_property, partial
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from vllm.tokenizers import cached_tokenizer_from_config
from vllm.v1.core.sched.output import GrammarOutput, NewRequestData
from vllm.v1.outputs import LogprobsTensors
from vllm.v1.worker.gpu.input_batch import InputBatch
from vllm.v1.worker.gpu.model_states.default import DefaultModelState
from vllm.v1.worker.gpu.sample.output import SamplerOutput
from vllm.v1.worker.gpu.sample.prompt_logprob import PromptLogprobsWorker, get_prompt_logprobs_token_ids
from vllm.v1.worker.gpu.sample.sampler import Sampler
from vllm.v1.worker.gpu.states import RequestState
from vllm.v1.worker.gpu.structured_outputs import StructuredOutputsWorker

from model_impl.engine.mixtures import Mixtures, ScoredRows
from model_impl.engine.sampler import with_columns
from model_impl.engine.string_endings import StringEndings, ends_of_json
from model_impl.kernels.statistics import token_statistics
from model_impl.kernels.words import Words, likeliest
from model_impl.model.tokenformer import TokenformerForCausalLM
from model_impl.override import override_class
from model_impl.variants import member_rows
from model_impl.wire import STATISTICS, Membership


class TokenformerState(DefaultModelState):
    """Remembers the requests in the runner's slots; tells the model the variant of every row, and what to report."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.slots: dict[str, int] = {}
        """Request id -> slot."""
        self.requests: dict[int, NewRequestData] = {}
        """Slot -> request."""
        self.memberships: dict[int, Membership] = {}
        """Slot -> membership, of ensemble members."""

    def add_request(self, req_index: int, new_req_data: NewRequestData) -> None:
        super().add_request(req_index, new_req_data)
        self.slots[new_req_data.req_id], self.requests[req_index] = req_index, new_req_data
        params = new_req_data.sampling_params
        if params is not None and (own := Membership.of(params.extra_args)) is not None:
            self.memberships[req_index] = own

    def remove_request(self, req_id: str) -> None:
        super().remove_request(req_id)
        if (slot := self.slots.pop(req_id, None)) is not None:
            del self.requests[slot]
            self.memberships.pop(slot, None)

    @property
    def tokenformer(self) -> TokenformerForCausalLM:
        return cast(TokenformerForCausalLM, self.model)

    def extra_args(self, slot: int) -> dict[str, Any] | None:
        request = self.requests.get(slot)
        params = request.sampling_params if request else None
        return params.extra_args if params else None

    def _scores_prompt(self, slot: int) -> bool:
        request = self.requests.get(slot)
        params = request.sampling_params if request else None
        return params is not None and params.prompt_logprobs is not None

    def _adapter(self, slot: int) -> int:
        request = self.requests.get(slot)  # the slots of a dummy run have none
        return request.lora_request.lora_int_id if request and request.lora_request else 0

    def prepare_inputs(self, input_batch: InputBatch, req_states: RequestState) -> dict[str, Any]:
        slots, model = input_batch.idx_mapping_np.tolist(), self.tokenformer.model
        firsts, counts = input_batch.num_computed_tokens_np, input_batch.num_scheduled_tokens
        adapters = [self._adapter(slot) for slot in slots]
        model.variants.assign(adapters, counts, member_rows([self.memberships.get(s) for s in slots], firsts, counts))
        scores_prompts = any(self._scores_prompt(slot) for slot in slots)
        self.tokenformer.report_for(map(self.extra_args, slots), None if scores_prompts else input_batch.logits_indices)
        return cast(dict[str, Any], super().prepare_inputs(input_batch, req_states))

    def custom_sampler(self, sampler: Any) -> tuple[Any, Any] | None:
        override_class(sampler, SlotSampler)
        sampler.state = self
        return sampler, None


class SlotSampler(Sampler):
    """Appends `token_statistics` of the raw distribution, and what the model reported, to the logprobs it gathers."""

    state: TokenformerState
    raw: tuple[torch.Tensor, Words] | None = None
    """The statistics and likeliest words of the coming call."""

    def take_statistics(self, logits: torch.Tensor, input_batch: InputBatch) -> None:
        """Keep the statistics of logits [N, V] for the coming call if a request of the batch wants logprobs."""
        if self.raw is None and self.get_logprobs_dims(input_batch.idx_mapping_np) is not None:
            self.raw = token_statistics(logits), likeliest(logits)

    def __call__(self, logits: torch.Tensor, input_batch: InputBatch) -> SamplerOutput:
        self.take_statistics(logits, input_batch)
        raw, self.raw = self.raw, None
        output = super().__call__(logits, input_batch)
        if output.logprobs_tensors is not None and raw is not None:
            statistics, words = raw
            chosen = output.logprobs_tensors.logprob_token_ids[:, 0]
            reported = self.state.tokenformer.reported_columns(lambda: words, chosen, input_batch.logits_indices)
            output.logprobs_tensors = with_columns(output.logprobs_tensors, [statistics, reported])
        return output


class ScoredPrompts(PromptLogprobsWorker):
    """Appends the same columns to the logprobs of prompts, and adds the rows of ensemble members to their mixtures."""

    state: TokenformerState
    mixtures: Mixtures
    columns: dict[str, list[torch.Tensor]]
    """Request id -> the columns of the chunks so far, of prompts that are not complete."""

    def remove_request(self, req_id: str) -> None:
        super().remove_request(req_id)
        self.columns.pop(req_id, None)

    def compute_prompt_logprobs(
        self,
        logits_fn: Callable[[torch.Tensor], torch.Tensor],
        hidden_states: torch.Tensor,
        input_batch: InputBatch,
        all_token_ids: torch.Tensor,
        num_computed_tokens: torch.Tensor,
        prompt_lens: np.ndarray,
    ) -> dict[str, LogprobsTensors]:
        self._add_to_mixtures(logits_fn, hidden_states, input_batch, prompt_lens)
        steps: list[torch.Tensor] = []

        @cache
        def following() -> torch.Tensor:
            rows = input_batch.num_tokens, input_batch.query_start_loc, input_batch.idx_mapping
            return get_prompt_logprobs_token_ids(*rows, num_computed_tokens, all_token_ids)

        def scored(rows: torch.Tensor) -> torch.Tensor:
            logits, first = logits_fn(rows), sum(map(len, steps))
            own = slice(first, first + len(rows))
            reported = self.state.tokenformer.reported_columns(partial(likeliest, logits), following()[own], own)
            steps.append(torch.cat([token_statistics(logits), reported], dim=1))
            return logits

        found = super().compute_prompt_logprobs(
            scored, hidden_states, input_batch, all_token_ids, num_computed_tokens, prompt_lens
        )
        if steps:
            self._keep(torch.cat(steps), input_batch, prompt_lens)
        for request_id, gathered in found.items():
            found[request_id] = with_columns(gathered, [torch.cat(self.columns.pop(request_id))])
        return found

    def _keep(self, columns: torch.Tensor, input_batch: InputBatch, prompt_lens: np.ndarray) -> None:
        """Take the rows of prompts; a request has as many columns in every chunk, whatever its steps report."""
        model = self.state.tokenformer
        for position, request_id in enumerate(input_batch.req_ids):
            slot = int(input_batch.idx_mapping_np[position])
            prompt, first = int(prompt_lens[slot]), int(input_batch.num_computed_prefill_tokens_np[position])
            resumed = input_batch.prefill_len_np[position] > prompt  # after its prompt, whose logprobs are out
            if request_id not in self.in_progress_prompt_logprobs or first >= prompt or resumed:
                continue
            start, stop = input_batch.query_start_loc_np[position : position + 2]
            ends = first + (stop - start) >= prompt  # the last row's distribution is that of the first new token
            width = len(STATISTICS) + model.reported_width(self.state.extra_args(slot))
            own = columns[start : stop - ends, :width]
            self.columns.setdefault(request_id, []).append(F.pad(own, (0, width - own.shape[1])))

    def _add_to_mixtures(
        self,
        logits_fn: Callable[[torch.Tensor], torch.Tensor],
        hidden_states: torch.Tensor,
        input_batch: InputBatch,
        prompt_lens: np.ndarray,
    ) -> None:
        parts = []
        for position, slot in enumerate(input_batch.idx_mapping_np.tolist()):
            if (own := self.state.memberships.get(slot)) is not None:
                start, stop = input_batch.query_start_loc_np[position : position + 2]
                first = int(input_batch.num_computed_tokens_np[position])
                parts.append(ScoredRows(own, int(prompt_lens[slot]), first, hidden_states[start:stop]))
        self.mixtures.add_step(parts, logits_fn)


class RawStatisticsFirst(StructuredOutputsWorker):
    """Masks of grammars, which change the logits in place ahead of the sampler: the statistics are taken before."""

    state: TokenformerState
    sampler: SlotSampler

    @cached_property
    def string_endings(self) -> StringEndings:
        return StringEndings(cached_tokenizer_from_config(self.state.model_config))

    def apply_grammar_bitmask(
        self, logits: torch.Tensor, input_batch: InputBatch, grammar_req_ids: list[str], grammar_bitmask: np.ndarray
    ) -> None:
        self.sampler.take_statistics(logits, input_batch)
        output = self.string_endings.close(
            GrammarOutput(grammar_req_ids, grammar_bitmask), logits, self._ends(input_batch)
        )
        super().apply_grammar_bitmask(logits, input_batch, grammar_req_ids, output.grammar_bitmask)

    def _ends(self, input_batch: InputBatch) -> dict[str, tuple[int, Set[int]]]:
        slots = input_batch.idx_mapping_np.tolist()
        params = [self.state.requests[slot].sampling_params for slot in slots]
        return ends_of_json(input_batch.req_ids, params)


def install(runner: Any, mixtures: Mixtures) -> None:
    """Give a V2 runner that has loaded its model what its hooks do not cover; ranks that see no logits have none."""
    if runner.prompt_logprobs_worker is not None:
        override_class(runner.prompt_logprobs_worker, ScoredPrompts)
        runner.prompt_logprobs_worker.state, runner.prompt_logprobs_worker.columns = runner.model_state, {}
        runner.prompt_logprobs_worker.mixtures = mixtures
    if runner.structured_outputs_worker is not None:
        override_class(runner.structured_outputs_worker, RawStatisticsFirst)
        runner.structured_outputs_worker.state = runner.model_state
        runner.structured_outputs_worker.sampler = runner.sampler
