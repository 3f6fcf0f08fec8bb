"""The engine-side half of token statistics: vLLM's worker with a sampler that reports every distribution.

With model_impl/engine/sampler.py the only file that touches the private interfaces of vLLM's worker, V1 model runner
and V1 sampler; model_impl/engine/model_state.py does for V2. The contract tests name what moved when vLLM changes.
Statistics travel as trailing columns of the logprobs tensors, as `model_impl.wire` lays them out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property, partial
from typing import Any, cast

import numpy as np
import torch
from vllm.lora.request import LoRARequest
from vllm.platforms import current_platform
from vllm.tokenizers import cached_tokenizer_from_config
from vllm.v1.core.sched.output import GrammarOutput, SchedulerOutput
from vllm.v1.outputs import LogprobsTensors, SamplerOutput
from vllm.v1.sample import sampler as vllm_sampler
from vllm.v1.worker.gpu_model_runner import GPUModelRunner
from vllm.v1.worker.worker_base import CompilationTimes

from model_impl.checkpoint.delta import load_checked, load_delta
from model_impl.engine.mixtures import Mixtures, ScoredRows
from model_impl.engine.sampler import StatisticsSampler, count_at_least
from model_impl.engine.string_endings import StringEndings, ends_of_json
from model_impl.kernels.words import Words
from model_impl.model.reports import ReportingModel
from model_impl.model.stock import StockReports
from model_impl.model.tokenformer import TokenformerForCausalLM
from model_impl.override import override_class
from model_impl.variants import VERSION_MARK, member_rows
from model_impl.wire import STATISTICS, Membership

if current_platform.is_cpu():
    from vllm.v1.worker.cpu_worker import CPUWorker as PlatformWorker
else:
    from vllm.v1.worker.gpu_worker import Worker as PlatformWorker  # type: ignore[assignment]


class StatisticsRunner(GPUModelRunner):
    """vLLM's V1 model runner, with growth stages, ensembles, statistics of prompt tokens, and seeds that survive
    chunking."""

    reports: ReportingModel
    memberships: dict[str, Membership]
    """The requests of the current step that are ensemble members, by id."""
    mixtures: Mixtures
    sampled_rows: torch.Tensor
    """The rows of the current step that tokens are sampled of."""

    def _prepare_inputs(self, scheduler_output: SchedulerOutput, num_scheduled_tokens: np.ndarray) -> Any:
        """As vLLM's; also tells the model the variant of every row, and whether any request wants a report."""
        adapters = self.input_batch.request_lora_mapping[: self.input_batch.num_reqs]
        ids = self.input_batch.req_ids
        self.memberships = {i: own for i in ids if (own := Membership.of(self._extra_args(i))) is not None}
        firsts = self.input_batch.num_computed_tokens_cpu[: self.input_batch.num_reqs]
        members = member_rows([self.memberships.get(i) for i in ids], firsts, num_scheduled_tokens)
        self.reports.assign_variants(adapters, num_scheduled_tokens, members)
        prepared = super()._prepare_inputs(scheduler_output, num_scheduled_tokens)
        self.sampled_rows, *_ = prepared
        scores_prompts = any(i in self.num_prompt_logprobs for i in ids)
        self.reports.report_for(map(self._extra_args, ids), None if scores_prompts else self.sampled_rows)
        return prepared

    def _extra_args(self, request_id: str) -> dict[str, Any] | None:
        params = self.requests[request_id].sampling_params
        return params.extra_args if params else None

    def _add_to_mixtures(self, hidden_states: torch.Tensor, num_scheduled_tokens: dict[str, int]) -> None:
        """Add the distributions of this step's rows of ensemble members to their mixtures."""
        parts = []
        for request_id, own in self.memberships.items():
            request = self.requests[request_id]
            first, prompt = request.num_computed_tokens, len(request.prompt_token_ids or ())
            row = int(self.query_start_loc.np[self.input_batch.req_id_to_index[request_id]])
            parts.append(ScoredRows(own, prompt, first, hidden_states[row : row + num_scheduled_tokens[request_id]]))
        self.mixtures.add_step(parts, self.reports.compute_logits)

    def _get_prompt_logprobs_dict(
        self, hidden_states: torch.Tensor, num_scheduled_tokens: dict[str, int]
    ) -> dict[str, LogprobsTensors | None]:
        """As vLLM's, request by request: each has as many columns as it began with, whatever its steps report."""
        self._add_to_mixtures(hidden_states, num_scheduled_tokens)
        pending = self.num_prompt_logprobs
        found: dict[str, LogprobsTensors | None] = {}
        sampler, model = cast(StatisticsSampler, self.sampler), self.reports
        for request_id, num_logprobs in list(pending.items()):
            request = self.requests[request_id]
            plain = num_logprobs + 1 + len(STATISTICS)
            if request.in_progress_prompt_logprobs_cpu is None and request.prompt_token_ids is not None:
                reported = model.reported_width(self._extra_args(request_id))
                request.in_progress_prompt_logprobs_cpu = LogprobsTensors.empty_cpu(
                    len(request.prompt_token_ids) - 1, plain + reported
                )
            self.num_prompt_logprobs = {request_id: num_logprobs}
            held = request.in_progress_prompt_logprobs_cpu
            width = 0 if held is None else held.logprobs.shape[1] - plain
            with sampler.reporting(partial(self._reported_of_prompt, request_id, width)):
                found |= super()._get_prompt_logprobs_dict(hidden_states, num_scheduled_tokens)
            if not self.num_prompt_logprobs:
                del pending[request_id]
        self.num_prompt_logprobs = pending
        return found

    def _reported_of_prompt(
        self, request_id: str, width: int, words: Callable[[], Words], chosen: torch.Tensor
    ) -> torch.Tensor:
        """The reported columns of a request's first rows of this step, with the tokens after them."""
        first = int(self.query_start_loc.np[self.input_batch.req_id_to_index[request_id]])
        return self.reports.reported_columns(words, chosen, slice(first, first + len(chosen)), width)

    def sample_tokens(self, grammar_output: GrammarOutput | None) -> Any:  # type: ignore[override]  # mistyped in torch
        """As vLLM's; a grammar bans words in place ahead of the sampler, so the statistics are taken before that."""
        if grammar_output is not None and self.execute_model_state is not None and self.speculative_config is None:
            logits = self.execute_model_state.logits
            cast(StatisticsSampler, self.sampler).take_statistics(logits, self.input_batch.sampling_metadata)
            ids = self.input_batch.req_ids
            ends = ends_of_json(ids, [self.requests[request_id].sampling_params for request_id in ids])
            grammar_output = self.string_endings.close(grammar_output, logits, ends)
        return super().sample_tokens(grammar_output)  # type: ignore[type-var]

    @cached_property
    def string_endings(self) -> StringEndings:
        return StringEndings(cached_tokenizer_from_config(self.model_config))

    def _sample(self, *args: Any) -> SamplerOutput:
        sampler, model = cast(StatisticsSampler, self.sampler), self.reports
        # Accepted drafts are gathered in an order of their own, so under speculative decoding nothing is reported.
        report = partial(model.reported_columns, rows=self.sampled_rows) if self.speculative_config is None else None
        with sampler.reporting(report), self._unfinished_prefills_unseeded():
            return super()._sample(*args)

    def _bookkeeping_sync(self, *args: Any) -> Any:
        with self._unfinished_prefills_unseeded():
            return super()._bookkeeping_sync(*args)

    @contextmanager
    def _unfinished_prefills_unseeded(self) -> Iterator[None]:
        """Hide the random generators of rows whose token is thrown away because their prompt is not complete.

        vLLM lets them draw and then rewinds them by an offset, which a CPU generator does not have: the engine dies.
        A generator that never drew needs no rewinding, so a seed gives the same answer however its prompt is cut.
        """
        discarded = np.nonzero(self.discard_request_mask.np[: self.input_batch.num_reqs])[0].tolist()
        generators = self.input_batch.generators
        hidden = {row: generators.pop(row) for row in discarded if row in generators}
        try:
            yield
        finally:
            generators.update(hidden)


class TokenformerWorker(PlatformWorker):
    """The platform's worker whose model runner reports token statistics, of a Tokenformer or of any other model."""

    model_runner: StatisticsRunner  # type: ignore[assignment]  # its class is changed in init_device
    tokenformer: TokenformerForCausalLM | None
    """None where another model is served."""

    def init_device(self) -> None:
        super().init_device()
        self.delta_paths: dict[int, str] = {}
        self.mixtures = Mixtures()
        if self.use_v2_model_runner:
            if self.speculative_config is not None:
                raise RuntimeError("speculative decoding needs vLLM's V1 model runner: set VLLM_USE_V2_MODEL_RUNNER=0")
            return  # its parts are made with the model
        # Each platform has its own runner class, made deep inside init_device: give the finished object ours.
        override_class(self.model_runner, StatisticsRunner)
        self.model_runner.memberships, self.model_runner.mixtures = {}, self.mixtures
        override_class(self.model_runner.sampler, StatisticsSampler)
        if current_platform.is_cpu():
            # Counting ranks is compiled at the first request that wants logprobs, which then waits up to 30 s.
            vllm_sampler.batched_count_greater_than = count_at_least

    def load_model(self, *, load_dummy_weights: bool = False) -> None:
        super().load_model(load_dummy_weights=load_dummy_weights)
        model = self.get_model()
        self.tokenformer = model if isinstance(model, TokenformerForCausalLM) else None
        if not self.use_v2_model_runner:
            self.model_runner.reports = self.tokenformer or StockReports(model, self.vllm_config)
        elif self.tokenformer is None:
            raise RuntimeError(
                "a model that is no Tokenformer needs vLLM's V1 model runner: VLLM_USE_V2_MODEL_RUNNER=0"
            )
        else:
            from model_impl.engine import model_state

            model_state.install(self.model_runner, self.mixtures)

    def add_lora(self, lora_request: LoRARequest) -> bool:
        """Load the growth delta at the request's path; vLLM's adapter interface carries growth deltas, and the LoRA
        adapters of other models.

        Every API server asks for those that were named at the start; the path holds the digest of what was checked.
        """
        if self.tokenformer is None:
            return super().add_lora(lora_request)
        if self.delta_paths.get(lora_request.lora_int_id) != lora_request.lora_path:
            path, *version = lora_request.lora_path.rsplit(VERSION_MARK, 1)
            delta = load_checked(path, *version) if version else load_delta(path)
            self.tokenformer.add_delta(lora_request.lora_int_id, delta)
            self.delta_paths[lora_request.lora_int_id] = lora_request.lora_path
        return True

    def remove_lora(self, lora_id: int) -> bool:
        if self.tokenformer is None:
            return super().remove_lora(lora_id)
        self.delta_paths.pop(lora_id, None)
        return self.tokenformer.remove_delta(lora_id)

    def list_loras(self) -> set[int]:
        if self.tokenformer is None:
            return super().list_loras()
        return set(self.tokenformer.model.variants.deltas)

    def take_mixture(self, ensemble: str) -> list[list[float]] | None:
        """Epistemic and aleatoric uncertainty (nats) of every position that an ensemble's members have scored.

        None on ranks that see no logits, and for an ensemble that never began. Its memory is freed.
        """
        mixture = self.mixtures.take(ensemble)
        return None if mixture is None else mixture.result()

    def drop_mixture(self, ensemble: str) -> None:
        """Free an ensemble's memory."""
        self.mixtures.take(ensemble)

    def compile_or_warm_up_model(self) -> CompilationTimes:
        """As vLLM's; on CPU, where eager mode skips it, one step is run so that no request is the first."""
        times = super().compile_or_warm_up_model()
        if current_platform.is_cpu():
            self.model_runner._dummy_run(1)
        return times
