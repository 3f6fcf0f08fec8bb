"""The assumptions of `server` about vLLM beyond signatures: attributes, fields and source text."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
from types import SimpleNamespace

from model_impl.engine.log_filter import ENGINE, FAILED_START, REMARKS
from server.process.serve import REFERENCE
from server.system.cores import IN_ENGINE
from server.system.log_filter import QUOTING, STREAMING
from tests.contract.symbols import find


def test_what_travels_with_a_token() -> None:
    for container in ("LogprobsTensors", "LogprobsLists"):
        assert {"logprob_token_ids", "logprobs"} <= set(find(f"vllm.v1.outputs:{container}")._fields)
    assert [field.name for field in dataclasses.fields(find("vllm.logprobs:Logprob"))] == [
        "logprob",
        "rank",
        "decoded_token",
    ]


def test_the_output_processor_looks_its_logprobs_processor_up_by_name() -> None:
    """Which `server.engine.statistics.install` rebinds."""
    processor = importlib.import_module("vllm.v1.engine.output_processor")
    assert "LogprobsProcessor.from_new_request" in inspect.getsource(processor)
    logprobs = find("vllm.v1.engine.logprobs:LogprobsProcessor")
    assert isinstance(inspect.getattr_static(logprobs, "from_new_request"), classmethod)


def test_what_the_detokenizer_reads_of_a_request() -> None:
    """`server.engine.statistics.TokenReader` brings these and no more."""
    source = inspect.getsource(importlib.import_module("vllm.v1.engine.detokenizer"))
    found = set(re.findall(r"\brequest\.(\w+)", source))
    assert found == {"request_id", "sampling_params", "prompt_token_ids", "prompt_embeds"}


def test_what_outputs_say_of_times_and_kinds() -> None:
    """Which `server.engine.recording` reads; it tells clients' requests from the server's own by the kind of
    output."""
    stats = {field.name for field in dataclasses.fields(find("vllm.v1.metrics.stats:RequestStateStats"))}
    assert {"queued_ts", "scheduled_ts", "first_token_ts", "last_token_ts", "num_generation_tokens"} <= stats
    assert "metrics=self.stats" in inspect.getsource(find("vllm.v1.engine.output_processor:RequestState"))
    assert find("vllm:SamplingParams")().output_kind.name == "CUMULATIVE"
    for protocol in ("chat_completion", "completion", "responses"):
        source = inspect.getsource(importlib.import_module(f"vllm.entrypoints.openai.{protocol}.protocol"))
        assert "RequestOutputKind.DELTA" in source
        assert "RequestOutputKind.FINAL_ONLY" in source


def test_what_beam_search_honours() -> None:
    """`server.api.beam_search` refuses the other parameters, and adds the end token that a beam's tokens lack."""
    fields = find("vllm.sampling_params:BeamSearchParams").__struct_fields__
    assert set(fields) == {
        "beam_width",
        "max_tokens",
        "ignore_eos",
        "temperature",
        "length_penalty",
        "include_stop_str_in_output",
        "structured_outputs",
        "skip_special_tokens",
        "watermarking",
    }
    source = inspect.getsource(find("vllm.entrypoints.generate.beam_search.online:BeamSearchOnlineMixin.beam_search"))
    assert "params.structured_outputs" not in source
    assert "logprobs_num = 2 * beam_width" in source
    assert "else current_beam.tokens," in source
    assert "logprobs=current_beam.logprobs + [logprobs]" in source
    assert "lora_request=" not in source.rpartition("yield RequestOutput(")[2]


def test_what_streams_of_completions_echo() -> None:
    """`server.api.completion` gives every result the prompt's logprobs, which merged results may have lost."""
    source = inspect.getsource(find("vllm.outputs:RequestOutput.add"))
    assert "self.outputs.append(next_completion)" in source
    assert "prompt_logprobs" not in source


def test_who_gets_the_response_of_a_whole_completion() -> None:
    """`server.api.completion` returns results in its place, which vLLM hands on without looking at them."""
    completion = find("vllm.entrypoints.openai.completion.serving:OpenAIServingCompletion")
    source = inspect.getsource(completion._create_completion)
    before, _, after = source.partition("response = self.request_output_to_completion_response(")
    assert "if request.stream:\n            return self.completion_stream_generator(" in before
    assert after.count("response.") == 1  # `response.model_dump_json()`, for streams, which have returned before
    assert after.endswith("return response\n")


def test_where_grammars_are_checked() -> None:
    """`server.engine.client` takes vLLM's own check away, and the structural tags of tools, by these names."""
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


def test_how_bad_words_reach_the_sampler() -> None:
    """`server.engine.input_processor` writes them anew into the request's own parameters, as vLLM does."""
    source = inspect.getsource(find("vllm.v1.engine.input_processor:InputProcessor.process_inputs"))
    assert source.index("sampling_params = params.clone()") < source.index("sampling_params.update_from_tokenizer(")
    assert "_bad_words_token_ids" in find("vllm:SamplingParams").__struct_fields__
    assert "return self._bad_words_token_ids" in inspect.getsource(find("vllm:SamplingParams.bad_words_token_ids").fget)


def test_what_a_required_call_is_written_by() -> None:
    """`server.requests.tool_calls` bounds the list, and finds the parser classes that it goes on top of by these
    names."""
    source = inspect.getsource(find("vllm.tool_parsers.utils:_get_json_schema_from_tools"))
    assert '"type": "array"' in source
    assert '"anyOf": fn_tool_schemas' in source
    adjust = inspect.getsource(find("vllm.tool_parsers.abstract_tool_parser:ToolParser.adjust_request"))
    assert "request.structured_outputs = StructuredOutputsParams(" in adjust
    assert "schema=json_schema_from_tool" in adjust
    for symbol, attribute in (
        ("vllm.entrypoints.openai.chat_completion.serving:OpenAIServingChat", "self.parser_cls("),
        ("vllm.entrypoints.openai.responses.serving:OpenAIServingResponses", "self.parser("),
        ("vllm.renderers.online_renderer:OnlineRenderer", "parser=self.parser"),
    ):
        assert attribute in inspect.getsource(find(symbol))
    generate = inspect.getsource(find("vllm.entrypoints.generate.api_router:init_generate_state"))
    for name in ("openai_serving_responses", "anthropic_serving_messages"):
        assert f"state.{name} =" in generate


def test_how_responses_read_earlier_turns() -> None:
    """`server.requests.earlier_turns` writes an assistant's message in the form that vLLM reads here."""
    parsing = inspect.getsource(find("vllm.entrypoints.openai.responses.protocol:ResponsesRequest.input_item_parsing"))
    assert 'item_type == "message" and item.get("role") == "assistant"' in parsing
    utils = importlib.import_module("vllm.entrypoints.openai.responses.utils")
    assert "output_text = item.content[0].text" in inspect.getsource(utils._construct_message_from_response_item)


def test_the_id_of_an_answer_is_the_requests() -> None:
    """`server.gate.access_log` puts it there."""
    source = inspect.getsource(find("vllm.entrypoints.serve.engine.serving:BaseServing._base_request_id"))
    assert 'raw_request.headers.get("X-Request-Id")' in source


def test_every_request_gets_its_id_where_it_is_added() -> None:
    """Where `server.engine.input_processor` still sees its context, and salts its cache blocks; whatever way it was
    prepared."""
    source = inspect.getsource(find("vllm.v1.engine.async_llm:AsyncLLM.add_request"))
    assert source.index("process_inputs_async(") < source.index("self.input_processor.assign_request_id(request)")


def test_loggers_that_quote_requests() -> None:
    """By name, as `server.system.log_filter` knows them."""
    for name in QUOTING:
        assert find(f"{name}:logger").name == name


def test_loggers_of_errors_that_were_foreseen() -> None:
    for name in (*STREAMING, *ENGINE):
        assert find(f"{name}:logger").name == name
        assert "logger.exception(" in inspect.getsource(importlib.import_module(name))


def test_loggers_of_remarks() -> None:
    for name in REMARKS:
        assert find(f"{name}:logger").name == name
        assert "logger.warning" in inspect.getsource(importlib.import_module(name))


def test_what_a_failed_start_logs() -> None:
    """In the engine's process and in a worker's, which then returns."""
    for process in (
        "vllm.v1.engine.core:EngineCoreProc.run_engine_core",
        "vllm.v1.executor.multiproc_executor:WorkerProc.worker_main",
    ):
        assert re.search(rf'logger\.exception\("\w+ {FAILED_START}"\)', inspect.getsource(find(process)))
    assert f'"{REFERENCE}"' in inspect.getsource(find("vllm.v1.engine.utils:wait_for_engine_startup"))


def test_where_the_tokenizer_is() -> None:
    source = inspect.getsource(find("vllm.entrypoints.openai.completion.serving:OpenAIServingCompletion"))
    assert "tokenizer = self.renderer.tokenizer" in source


def test_what_the_offline_engine_has() -> None:
    """Attributes of instances that `server.calibrate.scoring` reaches for."""
    source = inspect.getsource(find("vllm.v1.engine.llm_engine:LLMEngine.__init__"))
    assert "self.input_processor = " in source
    assert "self.engine_core = " in source
    assert callable(find("vllm.v1.engine.core_client:EngineCoreClient.shutdown"))
    flags = {field.name for field in dataclasses.fields(find("vllm.engine.arg_utils:EngineArgs"))}
    assert {"max_model_len", "max_num_seqs", "dtype", "data_parallel_size_local", "tensor_parallel_size"} <= flags


def test_the_model_can_run_in_the_engines_process() -> None:
    """By a name that vLLM does not turn into a process of its own on CPU; see `server.system.cores`."""
    config = SimpleNamespace(parallel_config=SimpleNamespace(distributed_executor_backend=IN_ENGINE))
    assert find("vllm.v1.executor:Executor").get_class(config).__name__ == "UniProcExecutor"
    platform = inspect.getsource(find("vllm.platforms.cpu:CpuPlatform.check_and_update_config"))
    assert 'distributed_executor_backend == "uni"' in platform
    assert '"libiomp" in ld_preload_str' in platform, "where Intel's OpenMP is preloaded, torch's is not"


def test_the_logprobs_processor_decodes_by_a_name_of_its_module() -> None:
    """Which `server.engine.statistics.install` binds anew."""
    processor = find("vllm.v1.engine.logprobs:LogprobsProcessor")
    for method in ("_update_sample_logprobs", "_update_prompt_logprobs"):
        assert "convert_ids_list_to_tokens" in getattr(processor, method).__code__.co_names


def test_a_request_may_name_its_engine_and_a_call_reaches_all_of_them() -> None:
    """`collective_rpc` gives the results of the first of several engines, so `server.engine.ensemble` asks all."""
    spread = find("vllm.v1.engine.core_client:DPLBAsyncMPClient")
    assert "request.data_parallel_rank) is None" in inspect.getsource(spread.get_core_engine_for_request)
    assert "self.core_engines[eng_index]" in inspect.getsource(spread.get_core_engine_for_request)
    assert "for engine in self.core_engines" in inspect.getsource(spread.call_utility_all_async)
    assert "(await self.call_utility_all_async(method, *args))[0]" in inspect.getsource(spread.call_utility_async)


def test_a_client_knows_its_engines_and_its_number_among_the_api_processes() -> None:
    source = inspect.getsource(find("vllm.v1.engine.core_client:MPClient.__init__"))
    assert "self.core_engines: list" in source
    assert "self.client_index = client_index" in inspect.getsource(
        find("vllm.v1.engine.core_client:AsyncMPClient.__init__")
    )


def test_a_dead_engine_is_told_by_its_flag_and_an_error_in_the_queue() -> None:
    """`server.engine.departed` does the same."""
    source = inspect.getsource(find("vllm.v1.engine.core_client:AsyncMPClient._ensure_output_queue_task"))
    assert "outputs_queue.put_nowait(e)" in source
    assert "self.resources.engine_dead" in inspect.getsource(find("vllm.v1.engine.core_client:MPClient"))
