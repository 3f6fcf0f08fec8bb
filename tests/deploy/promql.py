"""Prometheus' own tools, and which metrics an expression of its language reads."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "prometheus" / "alerts.yml"

SUFFIXES = {"counter": ("_total", "_created"), "histogram": ("_bucket", "_sum", "_count", "_created")}
SELECTOR = re.compile(r"\{[^}]*\}|\[[^]]*\]|\"[^\"]*\"")
METRIC = re.compile(r"\b(?:vllm:|tokenformer_|process_|python_|http_)\w+")

promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="needs promtool; on Debian: apt-get install prometheus"
)


def run_promtool(*arguments: object, given: str | None = None) -> str:
    """The output of promtool; fails the test if it finds fault."""
    command = ["promtool", *map(str, arguments)]
    run = subprocess.run(command, input=given, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, f"{run.stdout}\n{run.stderr}"
    return run.stdout + run.stderr


def metrics_in(expression: str) -> set[str]:
    """The names of time series; `up` is Prometheus' own and not among them."""
    return set(METRIC.findall(SELECTOR.sub("", expression)))


def exported(text: str) -> set[str]:
    """The time series that a server offers, also those that nothing has been counted in yet."""
    return {name for family in text_string_to_metric_families(text) for name in _series(family.name, family.type)}


def _series(name: str, kind: str) -> Iterator[str]:
    for suffix in SUFFIXES.get(kind, ("",)):
        yield name + suffix


def missing(expressions: Iterable[str], offered: set[str]) -> list[str]:
    return sorted({name for expression in expressions for name in metrics_in(expression)} - offered)
