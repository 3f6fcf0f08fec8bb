"""The assumptions of `server` about vLLM's routes, and about how requests and errors pass through them."""

from __future__ import annotations

import importlib
import inspect
from argparse import Namespace
from types import SimpleNamespace

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import ValidationError
from pydantic_core import SchemaValidator
from pydantic_core.core_schema import int_schema, list_schema
from vllm.entrypoints.launchers.api_server.routers import register_api_routers
from vllm.exceptions import VLLMValidationError
from vllm.renderers import TokenizeParams

from server.api.served_routes import SERVED, keep_served
from server.gate.errors import FULL, NONE_LEFT
from tests.contract.symbols import find


def test_what_the_routes_answer() -> None:
    """`server/api/answers.py` does the same."""
    for kind in ("chat_completion", "completion"):
        source = inspect.getsource(find(f"vllm.entrypoints.openai.{kind}.api_router:create_{kind}"))
        for part in (
            "@with_cancellation\n@load_aware_call\n",
            f"handler.create_{kind}(request, raw_request)",
            "content=generator.model_dump(), status_code=generator.error.code",
            "headers=metrics_header(metrics_header_format)",
            'keep_alive_interval = getattr(args, "sse_keep_alive_interval", 0)',
            "content=with_sse_keep_alive(generator, float(keep_alive_interval))",
            'media_type="text/event-stream"',
        ):
            assert part in source, part


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
    assert list(steps) == sorted(steps, key=build.index), "the last builds the middleware, see server.gate.errors"


def test_how_errors_of_a_full_context_begin() -> None:
    """`server.gate.errors` knows them by these words."""
    processor = inspect.getsource(importlib.import_module("vllm.v1.engine.input_processor"))
    responses = inspect.getsource(find("vllm.entrypoints.openai.responses.serving:OpenAIServingResponses"))
    source = processor.replace("{prompt_type}", "decoder") + responses
    for beginning in FULL:
        assert f'"{beginning}' in source, beginning
    params = find("vllm:SamplingParams")
    with pytest.raises(VLLMValidationError) as refused:
        params(max_tokens=0)
    assert refused.value.args[0].startswith(NONE_LEFT)


def test_what_errors_append_to_their_message() -> None:
    assert str(VLLMValidationError("No", parameter="n", value=5)) == "No (parameter=n, value=5)"
    assert str(VLLMValidationError("No", value=5)) == "No (value=5)"


def test_the_renderer_refuses_tools_without_a_parser_and_names_no_parameter() -> None:
    """`server.api.chat` does."""
    source = inspect.getsource(find("vllm.renderers.online_renderer:OnlineRenderer.render_chat"))
    assert source.count("return self.create_error_response(") == 2
    assert source.count("--tool-call-parser to be set") == 2
    assert "param=" not in source


def test_parts_that_are_text() -> None:
    """`server.requests.messages` has a type for each, and the renderer reads no other field of it."""
    chat = importlib.import_module("vllm.renderers.chat_utils")
    kinds = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal", "thinking": "thinking"}
    assert kinds.keys() == chat.TEXT_PART_TYPES
    for kind, field in kinds.items():
        assert chat.MM_PARSER_MAP[kind]({"type": kind, field: "x"}) == "x"


def test_what_asks_a_format_for_its_schema() -> None:
    """`server.requests.formats` gives it two classes of the same fields."""
    source = inspect.getsource(find("vllm.entrypoints.generate.base.protocol:structured_outputs_from_response_format"))
    assert "json_schema.json_schema" in source
    assert "LegacyStructuralTagResponseFormat,\n                StructuralTagResponseFormat," in source


def test_the_body_of_a_route_is_validated_by_an_adapter_whose_validator_can_be_replaced() -> None:
    """`server.requests.fail_fast` does, and lets no model inside bring a validator of its own."""
    app = FastAPI()

    @app.post("/")
    def take(body: list[int]) -> None: ...

    (route,) = (route for route in app.routes if isinstance(route, APIRoute))
    assert route.body_field is not None
    adapter = route.body_field._type_adapter
    assert adapter.core_schema["type"] == "list"
    adapter.validator = SchemaValidator(list_schema(int_schema(), fail_fast=True), _use_prebuilt=False)
    with pytest.raises(ValidationError) as refused:
        adapter.validate_python(["x"] * 9)
    assert refused.value.error_count() == 1


def test_texts_are_checked_and_cut_by_their_characters() -> None:
    """`server.engine.prompt_length` leaves both to vLLM where it does them."""
    tokenizer = SimpleNamespace(max_chars_per_token=2, truncation_side="right")
    with pytest.raises(VLLMValidationError) as refused:
        TokenizeParams(max_total_tokens=3)._text_len_check(tokenizer, "x" * 7)
    assert refused.value.parameter == "input_text"
    unbounded = TokenizeParams(max_total_tokens=None)
    assert unbounded._text_len_check(tokenizer, "x" * 7) == "x" * 7
    cut = TokenizeParams(max_total_tokens=3, truncate_prompt_tokens=1, truncation_side="left")
    assert cut._text_len_check(tokenizer, "abcdefg") == "bcdefg"


def test_routes_that_are_served_are_there() -> None:
    app = FastAPI()
    app.state.args = Namespace(enable_offline_docs=False, enable_tokenizer_info_endpoint=False)
    register_api_routers(app.state.args, app, ("generate",), None)
    known = {getattr(route, "path", None) for route in app.routes}
    by_flag = {"/static", "/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/tokenizer_info"}
    assert SERVED - by_flag <= known
    assert "/generative_scoring" in known
    keep_served(app)
    assert {getattr(route, "path", None) for route in app.routes} <= SERVED
