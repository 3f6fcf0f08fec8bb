"""The log of a server that starts without trouble."""

from __future__ import annotations

import pytest

from tests.faults.lasting import wait_for
from tests.support.servers import Server


@pytest.mark.demo_only
def test_a_healthy_start_is_five_lines_that_end_with_what_is_served_and_how_to_stop(demo: Server) -> None:
    wait_for(lambda: "Ctrl-C" in demo.log.read_text(errors="replace"))
    before_requests = demo.log.read_text(errors="replace").partition("\n{")[0]
    importing, starting, ready, serves, stop = before_requests.splitlines()
    assert importing == "tokenformer: importing vLLM"
    assert starting.startswith("tokenformer: starting the engine for ")
    assert ready == f"tokenformer: demo is ready at {demo.url}, with a playground at {demo.url}/playground"
    assert serves.startswith("tokenformer: it serves demo (stage chemistry, calibrated by chemistry-")
    assert "), demo:base (stage base, calibrated by base-" in serves
    assert stop == "tokenformer: Ctrl-C or SIGTERM ends it; running requests then have 30 s"
