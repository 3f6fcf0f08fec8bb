"""Our routes in the app that vLLM builds, added through its endpoint plugin interface.

`tokenformer serve` switches the plugin on; every API server process of vLLM then loads it by itself.
"""

from __future__ import annotations

import asyncio
from argparse import Namespace
from http import HTTPStatus
from typing import Annotated, cast

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import Discriminator, Tag
from starlette.datastructures import State
from vllm import envs
from vllm.engine.protocol import EngineClient
from vllm.entrypoints.openai.responses.api_router import create_responses
from vllm.entrypoints.serve.engine.protocol import ErrorResponse, ModelCard
from vllm.entrypoints.serve.lora.protocol import LoadLoRAAdapterRequest
from vllm.entrypoints.serve.utils.api_utils import load_aware_call, validate_json_request, with_cancellation
from vllm.v1.engine.async_llm import AsyncLLM

from model_impl.override import override_class
from model_impl.texts import read_texts
from server.api.absent import refuse_absent
from server.api.answers import answer
from server.api.chat import ScoredChat
from server.api.completion import ScoredCompletion
from server.api.given_text import GivenText, GivenTextRequest, GivenTextResponse
from server.api.openapi import amend_openapi, streamed
from server.api.policy import answer_doubted
from server.api.protocols.anthropic_messages import QuietMessages
from server.api.protocols.conversations import ChatBatch, chat_or_text
from server.api.protocols.conversations import router as conversations
from server.api.protocols.responses import CheckedResponses, ResponsesRequest
from server.api.served_routes import keep_served
from server.api.trace.route import Tracer
from server.api.trace.route import router as trace
from server.clients.pages.routes import docs, root
from server.clients.playground.routes import router as playground
from server.engine import statistics as engine
from server.engine.client import open_client
from server.engine.constraints.stop_strings import stop_strings
from server.engine.departed import fail_when_an_engine_leaves
from server.engine.models import ScoredModels
from server.engine.prompt_length import BoundedRenderer
from server.engine.variants import VariantModels
from server.gate.admission import AdmissionControl
from server.gate.errors import install_error_handlers, no_such_model, openai_error, served_names
from server.process.garbage import Garbage
from server.process.health import Health
from server.process.health import router as health
from server.process.lifecycle import Lifecycle
from server.requests.fail_fast import fail_fast
from server.requests.schemas import (
    ScoredChatCompletionChunk,
    ScoredChatCompletionRequest,
    ScoredChatCompletionResponse,
    ScoredCompletionChunk,
    ScoredCompletionRequest,
    ScoredCompletionResponse,
)
from server.requests.tool_calls import ToolMessages, open_tool_calls
from server.served.tokenformer import TokenformerCheckpoint
from server.system.log_filter import keep_quotes_out, shorten_streams
from server.system.stderr import say
from server.uncertainty.policy import DoubtPolicy

router = APIRouter()


@router.post(
    "/v1/chat/completions",
    dependencies=[Depends(validate_json_request)],
    responses={200: {"model": ScoredChatCompletionResponse, "content": streamed(ScoredChatCompletionChunk)}},
)
@with_cancellation  # type: ignore[untyped-decorator]
@load_aware_call  # type: ignore[untyped-decorator]
async def create_chat_completion(request: ScoredChatCompletionRequest, raw_request: Request) -> Response:
    """OpenAI's chat completion; every choice also says how sure the model was."""
    serving: ScoredChat = raw_request.app.state.openai_serving_chat
    return await answer(await serving.create_chat_completion(request, raw_request), raw_request)


@router.post(
    "/v1/completions",
    dependencies=[Depends(validate_json_request)],
    responses={200: {"model": ScoredCompletionResponse, "content": streamed(ScoredCompletionChunk)}},
)
@with_cancellation  # type: ignore[untyped-decorator]
@load_aware_call  # type: ignore[untyped-decorator]
async def create_completion(request: ScoredCompletionRequest, raw_request: Request) -> Response:
    """OpenAI's text completion; every choice also says how sure the model was."""
    serving: ScoredCompletion = raw_request.app.state.openai_serving_completion
    return await answer(await serving.create_completion(request, raw_request), raw_request)


@router.post(
    "/v1/responses",
    dependencies=[Depends(validate_json_request)],
    responses={200: {"content": {"text/event-stream": {}}}},
)
async def create_response(request: ResponsesRequest, raw_request: Request) -> Response:
    """OpenAI's Responses API, as vLLM has it."""
    return cast(Response, await create_responses(request, raw_request))


@router.post(
    "/v1/uncertainty",
    dependencies=[Depends(validate_json_request)],
    responses={200: {"model": GivenTextResponse}},
)
@with_cancellation  # type: ignore[untyped-decorator]
async def score_given_text(request: GivenTextRequest, raw_request: Request) -> Response:
    """How sure the model is of a text that is given, token by token, without generating any."""
    given: GivenText = raw_request.app.state.given_text
    return await answer(await given.score(request, raw_request), raw_request)


@router.get(
    "/v1/models/{model:path}",
    responses={HTTPStatus.OK.value: {"model": ModelCard}, HTTPStatus.NOT_FOUND.value: {"model": ErrorResponse}},
)
async def show_model(model: str, raw_request: Request) -> Response:
    """OpenAI's description of one of the models that `/v1/models` lists."""
    models: ScoredModels = raw_request.app.state.openai_serving_models
    card = next((card for card in (await models.show_available_models()).data if card.id == model), None)
    if card is None:
        message = no_such_model(served_names(raw_request.app.state))
        return openai_error(HTTPStatus.NOT_FOUND, message, code="model_not_found", param="model")
    return JSONResponse(card.model_dump())


@router.post("/invocations", dependencies=[Depends(validate_json_request)], include_in_schema=False)
async def invoke(
    request: Annotated[
        Annotated[ScoredChatCompletionRequest, Tag("a chat")] | Annotated[ScoredCompletionRequest, Tag("a text")],
        Discriminator(chat_or_text),
    ],
    raw_request: Request,
) -> Response:
    """SageMaker's one route for chats and completions, with our limits."""
    if isinstance(request, ScoredChatCompletionRequest):
        return cast(Response, await create_chat_completion(request, raw_request))
    return cast(Response, await create_completion(request, raw_request))


async def open_models(state: State, args: Namespace) -> ScoredModels:
    """Set up vLLM's list of models for what is served, with the deltas of `--growth`."""
    models: ScoredModels = state.openai_serving_models
    doubt = DoubtPolicy(args.on_doubt, args.doubt_text, args.doubt_above)
    if not isinstance(args.served, TokenformerCheckpoint):
        override_class(models, ScoredModels)
        models.open_models(args.served, args.calibrations, doubt)
        return models
    override_class(models, VariantModels)
    variants = cast(VariantModels, models)
    variants.open_variants(args.served, args.growth_root, args.calibrations, doubt)
    for name, path in args.growth:
        loaded = await variants.load_delta(LoadLoRAAdapterRequest(lora_name=name, lora_path=str(path)))
        if isinstance(loaded, ErrorResponse):
            raise ValueError(loaded.error.message)
    return variants


def warn_of_undoubted(models: ScoredModels) -> None:
    """Tell the models whose answers --on-doubt cannot withhold."""
    names = {base.name: None for base in models.base_model_paths[:1]} | models.lora_requests
    for name, adapter in names.items() if models.doubt.withholds else ():
        calibration = models.calibration(adapter)
        if calibration is None:
            say(f"warning: --on-doubt has no effect on {name}, which has no calibration")
        elif models.doubt.applied(None, None, calibration).above is None:
            say(f"warning: --on-doubt has no effect on {name}: its calibration has no limit; give --doubt-above")


STOCK = "Tokenformer's routes have their keys, limits and gate from `tokenformer serve`; `vllm serve` has none of them."


class TokenformerEndpoints:
    """The entry point of `vllm.endpoint_plugins`; see `vllm.plugins.endpoint_plugins.interface`."""

    name = "tokenformer"
    required_tasks = ("generate",)

    def attach_router(self, app: FastAPI) -> None:
        if not hasattr(app.state.args, "outcome"):
            raise RuntimeError(STOCK)
        # A redirect would contain the Host that the client sent, and its arbitrary path would become a label of vLLM's
        # metrics.
        app.router.redirect_slashes = False
        keep_served(app)
        app.include_router(router)
        app.include_router(conversations)
        app.include_router(health)
        app.include_router(root)
        app.include_router(playground)
        if app.openapi_url:  # not under --disable-fastapi-docs
            app.include_router(docs)
        if app.state.args.trace:
            app.include_router(trace)
        refuse_absent(app, app.state.args.served)
        fail_fast(app)
        amend_openapi(app)
        answer_doubted(app)
        install_error_handlers(app)

    async def init_state(self, engine_client: EngineClient | None, state: State, args: Namespace) -> None:
        envs.enable_envs_cache()  # as in vLLM's engine: the metrics look one up for every token
        engine.install()
        shorten_streams()
        if not args.enable_log_requests:
            keep_quotes_out()
        models = await open_models(state, args)
        open_client(state.openai_serving_chat, models)
        override_class(models.renderer, BoundedRenderer)
        for calibration in models.calibrations.values():
            if calibration.members and models.ensemble.unavailable:
                say(f"warning: no risk by {calibration.name}: {models.ensemble.unavailable}")
        warn_of_undoubted(models)
        override_class(state.openai_serving_chat, ScoredChat)
        state.openai_serving_chat.stop_strings = stop_strings(state.vllm_config.model_config)
        override_class(state.anthropic_serving_messages, QuietMessages)
        override_class(state.openai_serving_chat_batch, ChatBatch)
        override_class(state.openai_serving_completion, ScoredCompletion)
        override_class(state.openai_serving_responses, CheckedResponses)
        override_class(state.anthropic_serving_messages, ToolMessages)
        open_tool_calls(
            (state.openai_serving_chat, "parser_cls"),
            (state.openai_serving_chat.online_renderer, "parser"),  # of all routes
            (state.openai_serving_responses, "parser"),
            (state.anthropic_serving_messages, "parser_cls"),
        )
        state.given_text = GivenText(state.openai_serving_chat, state.openai_serving_completion)
        if args.trace:
            corpus = read_texts(args.trace_corpus)[0] if args.trace_corpus else []
            state.tracer = Tracer(state.given_text, args.served, corpus)
        self._operate(cast(AsyncLLM, models.engine_client), state, args)

    def _operate(self, client: AsyncLLM, state: State, args: Namespace) -> None:
        """Start what probes and the gate ask, and the watch over signals."""
        outputs = engine.watched(client)
        state.admission = AdmissionControl(client, state.vllm_config, args)
        engines = len(client.engine_core.core_engines)
        state.health = Health(client, state.admission, lambda: outputs.last_output, args.readiness_timeout, engines)
        state.departed = asyncio.create_task(fail_when_an_engine_leaves(client))
        state.garbage = asyncio.create_task(Garbage(state.admission).run())
        state.lifecycle = asyncio.create_task(Lifecycle(client, state, args, state.admission).run())
