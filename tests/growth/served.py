"""A grown and calibrated checkpoint behind the API, and its making."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai

from model_impl.reference.model import ReferenceTokenformer
from server.uncertainty.calibration import Calibration
from tests.support.servers import Server


@dataclass(frozen=True)
class Grown:
    server: Server
    root: Path
    references: dict[str, tuple[ReferenceTokenformer, int]]
    """By the name of a model: the reference, and the stage of it that the name stands for."""
    calibration: Calibration
    """That of stage base."""
    calibration_of_extra: Calibration
    said: str
    """By `tokenformer calibrate`."""

    @property
    def report(self) -> str:
        return (self.root / "two" / "calibration-base.md").read_text()

    @property
    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.server.url}/v1", api_key="none", max_retries=0, timeout=60)

    def post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        return httpx.post(f"{self.server.url}{path}", json=body, timeout=60)

    def metric(self, name: str, model: str) -> float:
        lines = httpx.get(f"{self.server.url}/metrics").text.splitlines()
        values = [line.rsplit(" ", 1)[1] for line in lines if line.startswith(f'{name}{{model_name="{model}"}}')]
        return float(values[0]) if values else 0.0
