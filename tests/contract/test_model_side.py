"""The assumptions of `model_impl` about vLLM beyond signatures: attributes, fields and source text."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import textwrap

from model_impl.cuda_packages import INSPECTION
from tests.contract.symbols import find


def test_gathering_is_called_through_the_object() -> None:
    """`StatisticsSampler.gather_logprobs` is a method; vLLM's static one must be called as `self.gather_logprobs`."""
    for symbol in ("vllm.v1.sample.sampler:Sampler.forward", "vllm.v1.sample.rejection_sampler:RejectionSampler"):
        assert ".gather_logprobs(" in inspect.getsource(find(symbol))
        assert "Sampler.gather_logprobs(" not in inspect.getsource(find(symbol))
    forward = inspect.getsource(find("vllm.v1.sample.sampler:Sampler.forward"))
    assert "raw_logprobs = self.compute_logprobs(logits)" in forward
    assert "logits = logits.to(torch.float32)" in forward  # in 16 bits a copy, which processors then change
    prompts = inspect.getsource(find("vllm.v1.worker.gpu_model_runner:GPUModelRunner._get_prompt_logprobs_dict"))
    assert "self.sampler.gather_logprobs(" in prompts
    assert "in_progress_prompt_logprobs_cpu" in prompts
    assert "num_prompt_logprobs_dict = self.num_prompt_logprobs" in prompts
    assert "del num_prompt_logprobs_dict[req_id]" in prompts
    # The rows that a report is made of.
    assert "offset = self.query_start_loc.np[req_idx].item()" in prompts
    assert "prompt_hidden_states = hidden_states[offset : offset + num_logits]" in prompts


def test_the_rank_count_is_looked_up_in_the_samplers_module() -> None:
    """Where `TokenformerWorker` puts an eager one."""
    sampler = importlib.import_module("vllm.v1.sample.sampler")
    for method in (sampler.Sampler.gather_logprobs, sampler.Sampler.gather_specific_token_logprobs):
        assert "batched_count_greater_than" in method.__code__.co_names


def test_a_model_is_inspected_by_a_command_that_can_be_replaced() -> None:
    """By `model_impl.cuda_packages`, which runs the same module after a step of its own."""
    registry = importlib.import_module(INSPECTION)
    source = inspect.getsource(registry)  # not the value: another test of this process may have replaced it
    assert f'_SUBPROCESS_COMMAND = [sys.executable, "-m", "{INSPECTION}"]' in source
    assert "_SUBPROCESS_COMMAND" in registry._run_in_subprocess.__code__.co_names


def test_what_the_runner_has() -> None:
    """Attributes of instances, which only exist in a running engine: their names in the source that uses them."""
    runner = find("vllm.v1.worker.gpu_model_runner:GPUModelRunner")
    bookkeeping, sampling = inspect.getsource(runner._bookkeeping_sync), inspect.getsource(runner.sample_tokens)
    assert "self.discard_request_mask.np[" in bookkeeping
    assert "self.input_batch.generators" in bookkeeping
    assert "self.execute_model_state" in sampling
    assert sampling.index("apply_grammar_bitmask(") < sampling.index("self._sample(")
    assert "logits" in find("vllm.v1.worker.gpu_model_runner:ExecuteModelState")._fields
    batch = inspect.getsource(find("vllm.v1.worker.gpu_input_batch:InputBatch"))
    assert "self.request_lora_mapping" in batch
    state = find("vllm.v1.worker.gpu_input_batch:CachedRequestState")
    assert "in_progress_prompt_logprobs_cpu" in {field.name for field in dataclasses.fields(state)}
    metadata = {field.name for field in dataclasses.fields(find("vllm.v1.sample.metadata:SamplingMetadata"))}
    assert {"max_num_logprobs", "logprob_token_ids"} <= metadata


def test_what_the_v2_runner_has() -> None:
    """A model's own state, and the objects that `model_impl.engine.model_state` puts its classes on top of."""
    runner = find("vllm.v1.worker.gpu.model_runner:GPUModelRunner")
    loading, sampling = inspect.getsource(runner.load_model), inspect.getsource(runner.sample_tokens)
    assert "model.get_model_state_cls()" in inspect.getsource(
        find("vllm.v1.worker.gpu.model_states:resolve_model_state_cls")
    )
    assert loading.index("self.model_state.custom_sampler(self.sampler)") < loading.index(
        "self.structured_outputs_worker"
    )
    assert "self.prompt_logprobs_worker = PromptLogprobsWorker(" in loading
    assert sampling.index("self.sample(") < sampling.index("self.prompt_logprobs_worker.compute_prompt_logprobs(")
    assert "self.model_state.prepare_inputs(input_batch, self.req_states)" in inspect.getsource(runner.execute_model)
    one = inspect.getsource(runner.sample)
    assert (
        one.index("self.model.compute_logits(") < one.index("apply_grammar_bitmask(") < one.index("self.sampler(logits")
    )
    prompts = inspect.getsource(find("vllm.v1.worker.gpu.sample.prompt_logprob:PromptLogprobsWorker"))
    assert "self.in_progress_prompt_logprobs[req_id] = []" in prompts
    assert "hidden_states[input_batch.logits_indices]" in one  # the rows that a report is made of
    chunks = inspect.getsource(find("vllm.v1.worker.gpu.sample.prompt_logprob:compute_prompt_logprobs_with_chunking"))
    assert "logits_fn(prompt_hidden_states[start_idx:end_idx])" in chunks
    assert "hidden_states[: input_batch.num_tokens]" in prompts  # every row of the step, in chunks
    batch = {field.name for field in dataclasses.fields(find("vllm.v1.worker.gpu.input_batch:InputBatch"))}
    assert {"req_ids", "idx_mapping_np", "num_scheduled_tokens", "query_start_loc_np", "prefill_len_np"} <= batch
    assert {"num_computed_tokens_np", "num_computed_prefill_tokens_np"} <= batch


def test_the_scheduler_looks_its_cache_manager_up_by_name() -> None:
    """So `model_impl.engine.prefix_reuse` can put its own there, which relies on what the lookup reads of a request."""
    from vllm.v1.core.kv_cache_manager import KVCacheManager
    from vllm.v1.core.sched.scheduler import Scheduler

    assert "KVCacheManager(" in inspect.getsource(Scheduler.__init__)
    assert "max_cache_hit_length = request.num_tokens - 1" in inspect.getsource(KVCacheManager.get_computed_blocks)


def test_block_hashes_take_their_extra_keys_from_a_function_that_is_looked_up_by_name() -> None:
    """So `model_impl.engine.prefix_reuse` can put its own there. A hash covers those of all blocks before its own."""
    for symbol in (
        "vllm.v1.core.kv_cache_utils:get_request_block_hasher",
        "vllm.v1.core.block_pool:BlockPool.cache_full_blocks",
    ):
        assert " = generate_block_hash_extra_keys(" in inspect.getsource(find(symbol))
    hasher = inspect.getsource(find("vllm.v1.core.kv_cache_utils:hash_block_tokens"))
    assert "hash_function((parent_block_hash, curr_block_token_ids_tuple, extra_keys))" in hasher
    events = inspect.getsource(find("vllm.v1.core.kv_cache_utils:to_event_extra_keys"))
    assert 'key[1:] if key[0] == "mm" else key[1]' in events  # a key is a tag and its value
    request = inspect.getsource(find("vllm.v1.request:Request.__init__"))
    assert request.index("self.sampling_params = ") < request.index("self.update_block_hashes()")


def test_a_request_that_may_not_begin_is_overtaken_and_one_that_gets_no_row_is_left_out_of_the_step() -> None:
    """`model_impl.engine.member_share` bounds the rows of ensemble members by these two."""
    source = inspect.getsource(find("vllm.v1.core.sched.scheduler:Scheduler.schedule"))
    running, waiting = source.split("# Next, schedule the WAITING requests.")
    blocked = "ready_to_schedule = self._handle_blocked_waiting_request(request)"
    assert blocked in waiting
    assert "if not ready_to_schedule:" in waiting.split(blocked)[1].split("skip_request(request_queue)")[0]
    for part in (running, waiting):
        assert part.count("num_new_tokens = self._reserve_prefill_lookahead(") == 1
    after = running.split("num_new_tokens = self._reserve_prefill_lookahead(")[1]
    assert after.index("if num_new_tokens == 0:") < after.index("continue") < after.index("allocate_slots(")


def test_the_parts_of_a_block_that_our_kernels_take_over() -> None:
    """`model_impl/kernels/cpu/csrc/stack.c` rotates and normalises as these do."""
    rotation = inspect.getsource(find("vllm.model_executor.layers.rotary_embedding.base:RotaryEmbeddingBase.__init__"))
    assert 'self.register_buffer("cos_sin_cache", cache' in rotation
    norm = inspect.getsource(find("vllm.model_executor.layers.layernorm:LayerNorm.forward_native"))
    assert "F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)" in norm


def test_what_a_layer_of_attention_does_on_cpu() -> None:
    """`model_impl.kernels.cpu.attention` makes the same two calls."""
    impl = find("vllm.v1.attention.backends.cpu_attn:CPUAttentionBackendImpl")
    update, forward = inspect.getsource(impl.do_kv_cache_update), inspect.getsource(impl.forward)
    for source in (update, forward):
        assert "kv_cache = kv_cache.view((num_blocks, num_kv_heads, block_size * 2, -1))" in source
        assert "key_cache, value_cache = kv_cache.chunk(2, dim=2)" in source
    calls = {
        "cpu_attn_reshape_and_cache": (update, "key value key_cache value_cache slot_mapping layer.isa"),
        "cpu_attention_with_kv_cache": (
            forward,
            "query[:num_actual_tokens] key_cache value_cache output[:num_actual_tokens] attn_metadata.query_start_loc "
            "attn_metadata.seq_lens self.scale attn_metadata.causal self.alibi_slopes self.sliding_window "
            "attn_metadata.block_table self.logits_soft_cap attn_metadata.scheduler_metadata self.sinks "
            "attn_metadata.dynamic_causal",
        ),
    }
    for name, (source, arguments) in calls.items():
        call = next(
            node
            for node in ast.walk(ast.parse(textwrap.dedent(source)))
            if isinstance(node, ast.Call) and ast.unparse(node.func) == f"ops.{name}"
        )
        names = list(inspect.signature(find(f"vllm._custom_ops:{name}")).parameters)
        given = dict(zip(names, map(ast.unparse, call.args), strict=False))
        given |= {str(keyword.arg): ast.unparse(keyword.value) for keyword in call.keywords}
        scales = ["layer._k_scale_float", "layer._v_scale_float", "self.kv_cache_dtype"]
        assert [given[name] for name in names] == [*arguments.split(), *scales]


def test_an_output_of_the_engine_can_lose_its_logprobs() -> None:
    """As `model_impl.engine.scheduler` has it; the API process then has none to add."""
    output = find("vllm.v1.engine:EngineCoreOutput")("id", [1], new_logprobs=None)
    output.new_logprobs = None
    assert output.finish_reason is None
    update = inspect.getsource(find("vllm.v1.engine.logprobs:LogprobsProcessor.update_from_output"))
    assert "if output.new_logprobs is not None:" in update


def test_what_a_grammars_masks_are() -> None:
    """`model_impl.engine.string_endings` narrows them: a row of 32-bit words for each request, a bit for each token."""
    output = find("vllm.v1.core.sched.output:GrammarOutput")
    assert [field.name for field in dataclasses.fields(output)][:2] == [
        "structured_output_request_ids",
        "grammar_bitmask",
    ]
    apply = inspect.getsource(find("vllm.v1.structured_output.utils:apply_grammar_bitmask"))
    assert "grammar_bitmask = grammar_output.grammar_bitmask" in apply
    assert "enumerate(input_batch.req_ids)" in apply
    assert isinstance(find("vllm:SamplingParams.all_stop_token_ids"), property)


def test_the_engine_looks_its_grammar_manager_up_by_name() -> None:
    """So `model_impl.engine.grammar_cache` can put its own there, whose copies need that a grammar is all that is
    compiled."""
    from vllm.v1.engine import core
    from vllm.v1.structured_output import StructuredOutputManager
    from vllm.v1.structured_output.backend_guidance import GuidanceBackend, GuidanceGrammar

    assert "StructuredOutputManager(vllm_config)" in inspect.getsource(core.EngineCore.__init__)
    assert "self._create_grammar, request" in inspect.getsource(StructuredOutputManager.grammar_init)
    assert "stop_token_ids" not in inspect.getsource(GuidanceBackend.compile_grammar).partition("->")[2]
    assert {field.name for field in dataclasses.fields(GuidanceGrammar)} >= {"ll_matcher", "terminated"}
