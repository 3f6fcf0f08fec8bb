"""The routes of vLLM that are served: those in the documentation. All others are removed."""

from __future__ import annotations

from fastapi import FastAPI

SERVED = frozenset(
    {
        *("/v1/chat/completions", "/v1/chat/completions/batch", "/v1/completions", "/invocations"),
        *("/v1/responses", "/v1/responses/{response_id}", "/v1/responses/{response_id}/cancel"),
        *("/v1/messages", "/v1/messages/count_tokens", "/tokenize", "/detokenize", "/tokenizer_info"),
        *("/v1/models", "/v1/load_lora_adapter", "/v1/unload_lora_adapter"),
        *("/health", "/load", "/metrics", "/ping", "/version"),
        "/openapi.json",  # shown by `server.clients.pages`; vLLM's pages of it load their scripts from elsewhere
    }
)
"""Paths. `server.gate.weight` knows the fields of their requests. Other routes take work that nothing would weigh, as
`/generative_scoring` does, or change the deployment."""


def keep_served(app: FastAPI) -> None:
    """Remove all other routes. Ours must be added later."""
    app.router.routes[:] = [route for route in app.router.routes if getattr(route, "path", None) in SERVED]
