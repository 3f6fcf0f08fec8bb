"""Grammars of one client beside those of another."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.support.servers import Server

pytestmark = pytest.mark.server

TIMES = 40


def constrained(server: Server, **constraint: Any) -> httpx.Response:
    body = {"model": "demo", "prompt": "x", "max_tokens": 1, "structured_outputs": constraint}
    return httpx.post(f"{server.url}/v1/completions", json=body, timeout=120)


def multiples(number: int) -> dict[str, Any]:
    return {"json": {"type": "integer", "multipleOf": number}}


@pytest.mark.parametrize(("number", "status"), [(40_009, 200), (150_001, 400)], ids=["accepted", "refused"])
def test_a_slow_grammar_asked_for_many_times_keeps_nobody_waiting(demo: Server, number: int, status: int) -> None:
    assert constrained(demo, json_object=True).status_code == 200
    assert constrained(demo, **multiples(number)).status_code == status, "tried once, and known from here on"
    with ThreadPoolExecutor(TIMES) as pool:
        slow = [pool.submit(constrained, demo, **multiples(number)) for _ in range(TIMES)]
        time.sleep(0.3)  # the first of them are there
        began = time.monotonic()
        assert constrained(demo, json_object=True).status_code == 200
        seconds = time.monotonic() - began
        assert [future.result().status_code for future in slow] == [status] * TIMES
    assert seconds < 3
