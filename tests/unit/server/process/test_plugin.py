"""Our routes in the app that vLLM builds."""

from __future__ import annotations

from argparse import Namespace
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute

from server.process.plugin import TokenformerEndpoints, warn_of_undoubted
from server.uncertainty.calibration import Calibration
from server.uncertainty.policy import DoubtPolicy, OnDoubt


def test_there_are_no_routes_without_their_gate() -> None:
    """As under `vllm serve`, which has neither our flags nor our middleware."""
    app = FastAPI()
    app.state.args = Namespace(trace=False)
    with pytest.raises(RuntimeError, match="tokenformer serve"):
        TokenformerEndpoints().attach_router(app)
    assert not [route for route in app.routes if isinstance(route, APIRoute)]


@pytest.mark.parametrize(
    ("on_doubt", "above", "warned"),
    [
        ("flag", None, []),
        ("replace", None, ["m, which has no calibration", "m:base: its calibration has no limit"]),
        ("refuse", 0.5, ["m, which has no calibration"]),
    ],
)
def test_models_that_a_policy_cannot_judge_are_named_at_the_start(
    on_doubt: OnDoubt, above: float | None, warned: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    base = Calibration("logistic", "f" * 64, "base", ["tokens"], [1.0], lowest=[0.0], highest=[9.0])
    models: Any = SimpleNamespace(
        doubt=DoubtPolicy(on_doubt, above=above),
        base_model_paths=[SimpleNamespace(name="m"), SimpleNamespace(name="alias")],
        lora_requests={"m:base": "adapter"},
        calibration={None: None, "adapter": base}.__getitem__,
    )
    warn_of_undoubted(models)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(warned)
    assert all(f"--on-doubt has no effect on {part}" in line for part, line in zip(warned, lines, strict=True))
