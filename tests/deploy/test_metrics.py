"""The metrics of a server, checked by the linter of Prometheus."""

from __future__ import annotations

import re

import httpx
import pytest
from openai import OpenAI

from tests.deploy.promql import promtool, run_promtool
from tests.support.servers import Server

OWN = re.compile(r"(# \w+ )?tokenformer_")


def own_lines(text: str) -> str:
    """The metrics without vLLM's, whose colons and suffixes the linter rejects."""
    lines = [
        line for line in text.splitlines() if line.removeprefix("# HELP ").removeprefix("# TYPE ").startswith("tok")
    ]
    return "\n".join(lines) + "\n"


@promtool
@pytest.mark.server
def test_promtool_finds_no_fault_with_our_metrics(demo: Server, client: OpenAI) -> None:
    client.chat.completions.create(model="demo", messages=[{"role": "user", "content": "Who are you?"}])
    lines = own_lines(httpx.get(f"{demo.url}/metrics").text)
    assert "tokenformer_answer_risk_bucket{" in lines
    assert run_promtool("check", "metrics", given=lines) == ""


@promtool
def test_promtool_would_find_a_fault() -> None:
    with pytest.raises(AssertionError, match="counter metrics should have"):
        run_promtool(
            "check", "metrics", given="# HELP tokenformer_x An x.\n# TYPE tokenformer_x counter\ntokenformer_x 1\n"
        )
