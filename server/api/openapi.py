"""Corrections of the OpenAPI document that FastAPI makes."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, Literal

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from vllm.entrypoints.serve.engine.protocol import ErrorResponse

from server.gate.errors import ErrorBody
from server.requests.schemas import ScoredChatCompletionChunk, ScoredCompletionChunk

DOCUMENTED = (ErrorBody, ScoredChatCompletionChunk, ScoredCompletionChunk)
"""Models that FastAPI does not find at the routes: errors, and the data lines of streams."""

UNAUTHORIZED = {HTTPStatus.UNAUTHORIZED: "The API key is missing or wrong."}
REFUSALS = {
    HTTPStatus.BAD_REQUEST: "The body or a parameter is wrong.",
    HTTPStatus.NOT_FOUND: "There is no such model.",
    HTTPStatus.REQUEST_TIMEOUT: "The body stopped coming.",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The body is too large.",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "The body is not application/json.",
    HTTPStatus.TOO_MANY_REQUESTS: "Too much is waiting already; `Retry-After` says when to ask again.",
    HTTPStatus.INTERNAL_SERVER_ERROR: "The server failed.",
    HTTPStatus.SERVICE_UNAVAILABLE: "The server ends or has lost its engine; see `Retry-After`.",
}
"""Errors of a request with a body, from the gate or from the route."""

JUDGED = ("/v1/chat/completions", "/v1/completions")
DOUBTED = {HTTPStatus.UNPROCESSABLE_ENTITY: "The risk of every choice is above the limit; see `uncertainty.on_doubt`."}

UNSCORED = ("/v1/responses", "/v1/messages", "/v1/chat/completions/batch")

DESCRIPTION = """\
An OpenAI-compatible API for grown Tokenformer models, served by vLLM.

`/v1/chat/completions`, `/v1/completions` and `/v1/uncertainty` say how sure the model was: `choices[].uncertainty` sums
an answer up, and tokens carry the entropy and variance of their distributions. `/v1/responses`, `/v1/messages` and
`/v1/chat/completions/batch` carry none of it, and refuse the field `uncertainty`.
"""

DELTAS = {
    "/v1/load_lora_adapter": "Load a growth delta from a directory below `--growth-root`, and serve it as the model "
    "`lora_name`. The names of the route and its fields are vLLM's.",
    "/v1/unload_lora_adapter": "Serve the growth delta `lora_name` no longer.",
}
"""Descriptions of vLLM's routes that load adapters, by path: here these are growth deltas."""

OPEN = ("/livez", "/readyz", "/health")
"""Routes that need no API key."""


def streamed(chunk: type[BaseModel]) -> dict[str, Any]:
    """The content of a 200 under `stream`: server-sent events, whose data lines are chunks."""
    return {"text/event-stream": {"schema": {"$ref": _reference(chunk)}}}


def amend_openapi(app: FastAPI) -> None:
    """Set the title and version, and add the chunks of streams and the errors that clients get."""
    app.title, app.version = "Tokenformer server", importlib.metadata.version("tokenformer-server")
    app.description = DESCRIPTION
    describe = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = describe()
            _add_models(document)
            for path, operation in _operations(document):
                _tell_errors(path, operation)
                if path in DELTAS:
                    operation["summary"] = operation["summary"].replace("Lora Adapter", "Growth Delta")
                    operation["description"] = DELTAS[path]
                if path in UNSCORED:
                    said = operation.get("description", "")
                    operation["description"] = f"{said} Answers carry no `uncertainty`.".lstrip()
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _add_models(document: dict[str, Any]) -> None:
    models: list[tuple[type[BaseModel], Literal["serialization"]]] = [(model, "serialization") for model in DOCUMENTED]
    _, definitions = models_json_schema(models, ref_template="#/components/schemas/{model}")
    known = document["components"]["schemas"]
    known.update({name: schema for name, schema in definitions["$defs"].items() if name not in known})


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for operation in methods.values():
            yield path, operation


def _tell_errors(path: str, operation: dict[str, Any]) -> None:
    """Replaces FastAPI's 422, which is a 400 here, and vLLM's shape of errors, which the gate changes."""
    responses = operation["responses"]
    validates = responses.pop("422", None) is not None
    error = {"application/json": {"schema": {"$ref": _reference(ErrorBody)}}}
    for response in responses.values():
        if response.get("content", {}).get("application/json", {}).get("schema") == {"$ref": _reference(ErrorResponse)}:
            response["content"] = error
    told: dict[HTTPStatus, str] = {} if path in OPEN else UNAUTHORIZED | (REFUSALS if validates else {})
    told |= DOUBTED if path in JUDGED else {}
    for status, description in told.items():
        responses.setdefault(str(status.value), {"description": description, "content": error})


def _reference(model: type[BaseModel]) -> str:
    return f"#/components/schemas/{model.__name__}"
