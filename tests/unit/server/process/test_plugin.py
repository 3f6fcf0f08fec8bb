"""Our routes in the app that vLLM builds."""

from __future__ import annotations

from argparse import Namespace

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute

from server.process.plugin import TokenformerEndpoints


def test_there_are_no_routes_without_their_gate() -> None:
    """As under `vllm serve`, which has neither our flags nor our middleware."""
    app = FastAPI()
    app.state.args = Namespace(trace=False)
    with pytest.raises(RuntimeError, match="tokenformer serve"):
        TokenformerEndpoints().attach_router(app)
    assert not [route for route in app.routes if isinstance(route, APIRoute)]
