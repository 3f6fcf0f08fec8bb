"""The signatures that our code assumes of vLLM's private interfaces."""

from __future__ import annotations

BATCH = "vllm.entrypoints.openai.chat_completion.batch_serving:OpenAIServingChatBatch"

V2 = "vllm.v1.worker.gpu"

SIGNATURES = {
    # model_impl/engine/sampler.py
    "vllm.v1.sample.sampler:Sampler.forward": ("self", "logits", "sampling_metadata"),
    "vllm.v1.sample.sampler:Sampler.compute_logprobs": ("logits",),
    "vllm.v1.sample.sampler:Sampler.gather_logprobs": ("logprobs", "num_logprobs", "token_ids"),
    "vllm.v1.sample.sampler:Sampler.gather_specific_token_logprobs": ("self", "logprobs", "logprob_token_ids"),
    "vllm.v1.sample.sampler:batched_count_greater_than": ("x", "values"),
    # model_impl/engine/worker.py: the model runner
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
    # model_impl/engine/model_state.py: the V2 model runner
    f"{V2}.model_states.default:DefaultModelState.__init__": (
        "self",
        "vllm_config",
        "model",
        "encoder_cache",
        "device",
    ),
    f"{V2}.model_states.default:DefaultModelState.add_request": ("self", "req_index", "new_req_data"),
    f"{V2}.model_states.default:DefaultModelState.remove_request": ("self", "req_id"),
    f"{V2}.model_states.default:DefaultModelState.prepare_inputs": ("self", "input_batch", "req_states"),
    f"{V2}.model_states.interface:ModelState.custom_sampler": ("self", "sampler"),
    f"{V2}.sample.sampler:Sampler.__call__": ("self", "logits", "input_batch"),
    f"{V2}.sample.sampler:Sampler.get_logprobs_dims": ("self", "idx_mapping_np"),
    f"{V2}.sample.prompt_logprob:PromptLogprobsWorker.remove_request": ("self", "req_id"),
    f"{V2}.sample.prompt_logprob:PromptLogprobsWorker.compute_prompt_logprobs": (
        "self",
        "logits_fn",
        "hidden_states",
        "input_batch",
        "all_token_ids",
        "num_computed_tokens",
        "prompt_lens",
    ),
    f"{V2}.structured_outputs:StructuredOutputsWorker.apply_grammar_bitmask": (
        "self",
        "logits",
        "input_batch",
        "grammar_req_ids",
        "grammar_bitmask",
    ),
    "vllm.v1.outputs:LogprobsTensors.empty_cpu": ("num_positions", "num_tokens_per_position"),
    "vllm.tokenizers:cached_tokenizer_from_config": ("model_config",),
    # model_impl/engine/worker.py: the worker
    "vllm.v1.worker.cpu_worker:CPUWorker.init_device": ("self",),
    "vllm.v1.worker.cpu_worker:CPUWorker.load_model": ("self", "load_dummy_weights"),
    "vllm.v1.worker.cpu_worker:CPUWorker.compile_or_warm_up_model": ("self",),
    "vllm.v1.worker.worker_base:WorkerBase.add_lora": ("self", "lora_request"),
    "vllm.v1.worker.worker_base:WorkerBase.remove_lora": ("self", "lora_id"),
    "vllm.v1.worker.worker_base:WorkerBase.list_loras": ("self",),
    # server/engine/constraints/stop_strings.py
    "vllm.config:ModelConfig.try_get_generation_config": ("self",),
    # server/calibrate/scoring.py
    "vllm.v1.engine.llm_engine:LLMEngine.add_lora": ("self", "lora_request"),
    # model_impl/engine/scheduler.py
    "vllm.v1.core.sched.scheduler:Scheduler.add_request": ("self", "request"),
    "vllm.v1.core.sched.scheduler:Scheduler.finish_requests": ("self", "request_ids", "finished_status"),
    "vllm.v1.core.sched.scheduler:Scheduler.update_from_output": ("self", "scheduler_output", "model_runner_output"),
    # model_impl/engine/prefix_reuse.py
    "vllm.v1.core.kv_cache_manager:KVCacheManager.get_computed_blocks": ("self", "request"),
    "vllm.v1.core.kv_cache_utils:generate_block_hash_extra_keys": (
        "request",
        "start_token_idx",
        "end_token_idx",
        "start_mm_idx",
    ),
    # model_impl/engine/member_share.py
    "vllm.v1.core.sched.scheduler:Scheduler._handle_blocked_waiting_request": ("self", "request"),
    "vllm.v1.core.sched.scheduler:Scheduler._reserve_prefill_lookahead": (
        "self",
        "request",
        "num_computed_tokens",
        "num_new_tokens",
    ),
    # model_impl/engine/grammar_cache.py
    "vllm.v1.structured_output:StructuredOutputManager.__init__": ("self", "vllm_config"),
    "vllm.v1.structured_output:StructuredOutputManager.grammar_init": ("self", "request"),
    "vllm.v1.structured_output:StructuredOutputManager._create_grammar": ("self", "request"),
    # model_impl/model/tokenformer.py and its parts
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
    # server/engine/statistics.py
    "vllm.v1.engine.logprobs:LogprobsProcessor.from_new_request": ("tokenizer", "request"),
    "vllm.v1.engine.logprobs:LogprobsProcessor._update_sample_logprobs": ("self", "logprobs_lists"),
    "vllm.v1.engine.logprobs:LogprobsProcessor._update_prompt_logprobs": ("self", "prompt_logprobs_tensors"),
    "vllm.v1.engine.detokenizer:IncrementalDetokenizer.from_new_request": ("tokenizer", "request"),
    "vllm.v1.engine.detokenizer:BaseIncrementalDetokenizer.update": ("self", "new_token_ids", "stop_terminated"),
    "vllm.v1.engine.detokenizer:BaseIncrementalDetokenizer.get_next_output_text": ("self", "finished", "delta"),
    "vllm.v1.engine.logprobs:convert_ids_list_to_tokens": ("tokenizer", "token_ids"),
    # server/engine/prompt_length.py
    "vllm.renderers.base:BaseRenderer._tokenize_singleton_prompt": ("self", "prompt", "params"),
    "vllm.renderers.base:BaseRenderer._tokenize_singleton_prompt_async": ("self", "prompt", "params"),
    # server/api/protocols/anthropic_messages.py
    "vllm.entrypoints.anthropic.serving:AnthropicServingMessages.create_messages": ("self", "request", "raw_request"),
    "vllm.entrypoints.anthropic.serving:AnthropicServingMessages.count_tokens": ("self", "request", "raw_request"),
    # server/api/protocols/conversations.py
    f"{BATCH}.create_batch_chat_completion": (
        "self",
        "request",
        "raw_request",
    ),
    f"{BATCH}.chat_completion_full_generator_batch": (
        "self",
        "request",
        "generators",
    ),
    # server/api/serving.py, chat.py, completion.py
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
    "vllm.entrypoints.openai.chat_completion.serving:OpenAIServingChat.render_chat_request": ("self", "request"),
    "vllm.entrypoints.openai.completion.serving:OpenAIServingCompletion.render_completion_request": ("self", "request"),
    "vllm.entrypoints.openai.completion.serving:OpenAIServingCompletion.create_completion": (
        "self",
        "request",
        "raw_request",
    ),
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
    # server/api/answers.py
    "vllm.entrypoints.serve.utils.orca_metrics:metrics_header": ("metrics_format",),
    "vllm.entrypoints.serve.utils.sse_keep_alive:with_sse_keep_alive": ("generator", "interval"),
    # server/api/protocols/conversations.py
    "vllm.entrypoints.serve.tokenize.api_router:tokenize": ("request", "raw_request"),
    "vllm.entrypoints.openai.chat_completion.api_router:create_batch_chat_completion": ("request", "raw_request"),
    "vllm.entrypoints.openai.chat_completion.protocol:BatchChatCompletionRequest.to_chat_completion_request": (
        "self",
        "messages",
    ),
    # server/process/plugin.py
    "vllm.entrypoints.serve.utils.api_utils:load_aware_call": ("func",),
    "vllm.entrypoints.serve.utils.api_utils:with_cancellation": ("handler_func",),
    "vllm.entrypoints.serve.utils.api_utils:validate_json_request": ("raw_request",),
    "vllm.envs:enable_envs_cache": (),
    "vllm.plugins.endpoint_plugins.interface:EndpointPlugin.attach_router": ("self", "app"),
    "vllm.plugins.endpoint_plugins.interface:EndpointPlugin.init_state": ("self", "engine_client", "state", "args"),
    # server/engine/variants.py
    "vllm.entrypoints.openai.models.serving:OpenAIServingModels.show_available_models": ("self",),
    "vllm.entrypoints.openai.models.serving:OpenAIServingModels.load_lora_adapter": ("self", "request"),
    "vllm.entrypoints.openai.models.serving:OpenAIServingModels.unload_lora_adapter": ("self", "request"),
    # server/engine/input_processor.py
    "vllm.v1.engine.input_processor:InputProcessor.assign_request_id": ("request",),
    "vllm.v1.engine.input_processor:InputProcessor._validate_lora": ("self", "lora_request"),
    "vllm.v1.engine.input_processor:InputProcessor._validate_params": ("self", "params"),
    "vllm.v1.engine.input_processor:InputProcessor.process_inputs": ("self", "request_id", "prompt", "params"),
    "vllm.v1.engine.input_processor:InputProcessor._validate_model_inputs": (
        "self",
        "encoder_input",
        "decoder_input",
    ),
    "vllm.inputs:split_enc_dec_input": ("inputs",),
    # server/engine/client.py and server/engine/constraints/grammars.py
    "vllm.v1.engine.async_llm:AsyncLLM.add_request": ("self", "request_id", "prompt", "params"),
    "vllm.v1.structured_output.backend_guidance:serialize_guidance_grammar": (
        "request_type",
        "grammar_spec",
        "disable_any_whitespace",
        "disable_additional_properties",
    ),
    "vllm.v1.structured_output.request:get_structured_output_key": ("params",),
    # server/requests/schemas.py
    "vllm.entrypoints.openai.chat_completion.protocol:ChatCompletionRequest.to_sampling_params": ("self", "max_tokens"),
    "vllm.entrypoints.openai.completion.protocol:CompletionRequest.to_sampling_params": ("self", "max_tokens"),
    # server/api/protocols/responses.py
    "vllm.entrypoints.openai.responses.api_router:create_responses": ("request", "raw_request"),
    "vllm.entrypoints.openai.responses.serving:OpenAIServingResponses._validate_create_responses_input": (
        "self",
        "request",
    ),
    # server/requests/tool_calls.py
    "vllm.parser.abstract_parser:DelegatingParser.adjust_request": ("self", "request"),
    "vllm.parser.abstract_parser:DelegatingParser._extract_tool_calls": (
        "self",
        "content",
        "request",
        "enable_auto_tools",
    ),
    "vllm.parser.abstract_parser:DelegatingParser._extract_tool_calls_streaming": (
        "self",
        "previous_text",
        "current_text",
        "delta_text",
        "previous_token_ids",
        "current_token_ids",
        "delta_token_ids",
        "request",
    ),
    "vllm.tool_parsers.utils:is_complete_json": ("input_str",),
    "vllm.entrypoints.anthropic.serving:AnthropicServingMessages._convert_tool_choice": ("anthropic_request", "req"),
    # server/engine/ensemble.py
    "vllm.v1.engine.async_llm:AsyncLLM.generate": ("self", "prompt", "sampling_params", "request_id"),
    "vllm.v1.engine.core_client:AsyncMPClient.call_utility_all_async": ("self", "method", "args"),
    "vllm.v1.engine.core:EngineCore.collective_rpc": ("self", "method", "timeout", "args", "kwargs"),
    # server/calibrate/scoring.py
    "vllm:LLM.generate": ("self", "prompts", "sampling_params", "use_tqdm", "lora_request"),
    "vllm:LLM.get_tokenizer": ("self",),
    "vllm.distributed:cleanup_dist_env_and_memory": (),
    # server/process/serve.py
    "vllm.entrypoints.launchers.cli_args:make_arg_parser": ("parser",),
    "vllm.entrypoints.launchers.cli_args:validate_parsed_serve_args": ("args",),
    "vllm.entrypoints.serve.utils.api_utils:cli_env_setup": (),
    "vllm.entrypoints.cli.serve:ServeSubcommand.cmd": ("args",),
    # server/system/cores.py
    "vllm.utils.cpu_resource_utils:get_visible_memory_node": (),
    "vllm.utils.cpu_resource_utils:get_allowed_cpu_list": (),
    "vllm.utils.torch_utils:available_cpu_count": (),
}
"""Where a callable lives -> the parameters that it starts with, by these names or positions."""
