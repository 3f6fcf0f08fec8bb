"""Our metrics as they are documented, and where several API processes share a server (--api-server-count)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.multiprocess import MultiProcessCollector

from server import metrics
from tests.support.paths import ROOT

PAGE = ROOT / "docs" / "observability.md"


def merged(directory: Path, *processes: str) -> CollectorRegistry:
    """The metrics of several processes, as vLLM merges them for /metrics."""
    environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(directory)}
    for part in processes:
        code = f"from server.metrics import *; {part}"
        subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=60)
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(directory))
    return registry


@pytest.mark.parametrize(
    ("gauge", "name", "values", "together"),
    [
        ("QUEUED_REQUESTS", "queued_requests", (2, 3), 5),
        ("QUEUED_TOKENS", "queued_prompt_tokens", (20, 30), 50),
        ("READY", "ready", (0, 1), 1),
        ("READY", "ready", (1, 0), 0),
        ("DRAINING", "draining", (1, 0), 1),
        ("ENGINE_UP", "engine_up", (1, 0), 0),
    ],
)
def test_gauges_of_several_processes_are_merged_by_their_meaning(
    tmp_path: Path, gauge: str, name: str, values: tuple[int, int], together: int
) -> None:
    registry = merged(tmp_path, *(f"{gauge}.set({value})" for value in values))
    assert registry.get_sample_value(f"tokenformer_{name}") == together


def test_a_process_that_starts_has_not_lost_its_engine(tmp_path: Path) -> None:
    assert merged(tmp_path, "ENGINE_UP.set(1)", "pass").get_sample_value("tokenformer_engine_up") == 1


def test_counters_of_several_processes_add_up(tmp_path: Path) -> None:
    observed = "observe_tokens('m', [TokenScore(-1.0, 0.5, 0.25, 0.9, 'w')]); observe_answer('m', 0.9, 0.5)"
    registry = merged(tmp_path, observed, observed)
    labels = {"model_name": "m"}
    assert registry.get_sample_value("tokenformer_token_entropy_nats_sum", labels) == 1.0
    assert registry.get_sample_value("tokenformer_token_variance_nats2_sum", labels) == 0.5
    assert registry.get_sample_value("tokenformer_flagged_answers_total", labels) == 2


def test_the_documented_ones_are_those_that_exist() -> None:
    """Name, type and labels of each, row by row."""
    rows = [[cell.strip() for cell in row.split("|")[1:4]] for row in PAGE.read_text().splitlines()]
    documented = {row[0].strip("`"): (row[1], row[2]) for row in rows if row and row[0].startswith("`tokenformer_")}
    ours = [found for found in vars(metrics).values() if isinstance(found, MetricWrapperBase)]
    assert documented == {
        metric._name + ("_total" if metric._type == "counter" else ""): (
            metric._type,
            ", ".join(f"`{label}`" for label in metric._labelnames),
        )
        for metric in ours
    }
