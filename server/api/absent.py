"""The routes of features that a model lacks: they say so, where there would be no route."""

from __future__ import annotations

from functools import partial
from http import HTTPStatus

from fastapi import FastAPI, Response

from server.gate.errors import openai_error
from server.served.model import ONLY_TOKENFORMERS, ServedModel

ROUTES = {"/v1/trace": "trace", "/v1/load_lora_adapter": "deltas", "/v1/unload_lora_adapter": "deltas"}
"""Path -> the feature that it needs."""


def refuse_absent(app: FastAPI, served: ServedModel) -> None:
    """Add the routes that nobody serves to the app. Those of LoRA adapters are vLLM's, if the user wants them."""
    present = {getattr(route, "path", None) for route in app.router.routes}
    capabilities = served.capabilities.as_dict()
    for path, feature in ROUTES.items():
        if not capabilities[feature] and path not in present:
            refusal = partial(refuse, ONLY_TOKENFORMERS[feature])
            app.add_api_route(path, refusal, methods=["POST"], include_in_schema=False)


async def refuse(message: str) -> Response:
    return openai_error(HTTPStatus.BAD_REQUEST, message, code="unsupported_feature")
