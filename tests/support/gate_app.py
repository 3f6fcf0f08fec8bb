"""vLLM's app behind the gate, on an engine that is only asked how it is."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from fastapi import FastAPI

from server.gate.keys import KEYS_VARIABLE
from server.process.serve import parse
from tests.support.paths import ROOT

DEMO = ROOT / "demo" / "checkpoint"
KEY = {"Authorization": "Bearer right"}


def app_of(monkeypatch: pytest.MonkeyPatch, *flags: str, keys: str | None = "right,second") -> FastAPI:
    from vllm.entrypoints.launchers.app import build_app

    monkeypatch.setenv("VLLM_PLUGINS", "tokenformer")
    if keys is not None:
        monkeypatch.setenv(KEYS_VARIABLE, keys)
    app: FastAPI = build_app(parse([str(DEMO), "--access-log", "off", *flags]), ("generate",))

    async def well() -> None:
        return None

    app.state.engine_client = SimpleNamespace(check_health=well, errored=False)
    app.state.health = SimpleNamespace(unready_reason=well)
    app.state.admission = SimpleNamespace(longest=1, refusal=lambda weight: None)
    return app
