"""The load tests' requests, and their reading of the benchmark's results."""

from __future__ import annotations

import json
import os
import socket
from typing import Any

import pytest
from tokenizers import Tokenizer

from loadtest.bench import LATENCIES, PERCENTILES, Load, summary
from loadtest.processes import ServerProcesses
from loadtest.prompts import prompts
from loadtest.ready import condense as condense_ready
from loadtest.ready import markdown as ready_table
from loadtest.ready import path
from loadtest.report import cumulative, markdown
from loadtest.scenarios import OBJECTIVES, scenarios
from loadtest.setups import Setup
from loadtest.sides import Side, condense, turned
from loadtest.sides import markdown as comparison
from tests.support.demo_server import DEMO
from tests.support.ports import free_ports

MACHINE = {"processor": "abacus", "cores": 2}


def result(**changes: Any) -> dict[str, Any]:
    """As the benchmark gives it, for two requests of three tokens."""
    found = {f"p{p}_{name}_ms": 10.0 * p for p in PERCENTILES for name in LATENCIES}
    found |= {"completed": 2, "failed": 0, "total_input_tokens": 8, "total_output_tokens": 6, "duration": 2.0}
    found |= {"request_throughput": 1.0, "output_throughput": 3.0, "request_goodput": 0.5}
    found |= {"ttfts": [0.1, 0.2], "latencies": [0.5, 0.4], "output_lens": [3, 3]}
    return found | changes


def test_prompts_are_as_long_as_they_say_and_the_same_at_every_call() -> None:
    made = prompts(DEMO, 20, 40)
    assert made == prompts(DEMO, 20, 40)
    assert len(set(made)) == 20
    tokenizer = Tokenizer.from_file(str(DEMO / "tokenizer.json"))
    # The first word has no space before it, and may be more tokens for that.
    assert all(40 <= len(tokenizer.encode(text).ids) <= 45 for text in made)
    assert all(text.isascii() and text.isprintable() for text in made)


def test_prefixes_are_three_quarters_of_prompts_that_differ() -> None:
    made = prompts(DEMO, 12, 40, prefixes=3)
    assert len(set(made)) == 12
    beginnings = {tuple(text.split()[:30]) for text in made}
    assert len(beginnings) == 3


def test_every_scenario_fits_the_demo_and_smaller_ones_send_less() -> None:
    positions = json.loads((DEMO / "config.json").read_text())["max_position_embeddings"]
    template = 16  # tokens at most
    for scenario, quick in zip(scenarios(), scenarios(1 / 8), strict=True):
        assert scenario.load.prompt + scenario.load.output + template <= positions
        assert 8 * quick.load.requests == scenario.load.requests


def test_stages_take_turns_where_a_scenario_says_so() -> None:
    names = ["demo", "demo:base"]
    turns = {scenario.name: scenario.options(names) for scenario in scenarios()}
    assert turns.pop("mixed stages")[-5:] == ["--lora-modules", *names, "--lora-assignment", "round-robin"]
    assert not any("--lora-modules" in options for options in turns.values())


def test_the_table_has_a_line_for_every_scenario_with_its_figures() -> None:
    scenario = {"name": "chat", "what": "talk", **summary(result()), "good_requests_per_second": 0.5}
    peaks = {"api": 1.5, "engine": 2.5}
    figures = {"objectives_ms": OBJECTIVES, "command": "python -m loadtest", "machine": MACHINE}
    shown = markdown({**figures, "scenarios": [scenario | {"peak_mib": peaks}, scenario | {"peak_mib": None}]})
    latencies = " | ".join(["500 / 900 / 990"] * 4)
    assert f"| chat | 1.0 | 50% | 3.0 | {latencies} | 1.5 | 2.5 |\n" in shown
    assert f"| chat | 1.0 | 50% | 3.0 | {latencies} | - | - |\n" in shown
    assert "TTFT at most 500 ms and TPOT at most 50 ms" in shown
    assert "`python -m loadtest`, on: processor abacus, cores 2" in shown


def test_curves_are_quantiles_in_milliseconds() -> None:
    curve = cumulative(result())
    assert (curve["ttft"][0], curve["ttft"][-1]) == pytest.approx((100, 200))
    assert (curve["tpot"][0], curve["tpot"][-1]) == pytest.approx((100, 200))


def test_ratios_are_of_the_same_round() -> None:
    # The machine is half as fast in the second round, for both sides alike.
    rows = {"one": [{"rate": 100.0}, {"rate": 50.0}, {"rate": 90.0}], "two": [{"rate": 90.0}, {"rate": 45.0}]}
    rows["two"].append({"rate": 81.0})
    found = condense(rows)
    assert found["medians"] == {"one": {"rate": 90.0}, "two": {"rate": 81.0}}
    assert found["ratios"] == {"one": {"rate": 1.0}, "two": {"rate": 0.9}}


def test_every_side_comes_first_in_turn() -> None:
    sides = [Side(name, Setup(DEMO)) for name in "abc"]
    assert ["".join(side.name for side in turned(sides, number)) for number in range(4)] == ["abc", "bca", "cab", "abc"]


def test_a_comparison_says_how_to_repeat_it() -> None:
    side = Side("ours", Setup(DEMO, ("--dtype", "float32")), {"uncertainty": False})
    metrics = ("output_throughput", "p50_ttft_ms", "p99_ttft_ms", "p50_tpot_ms", "p50_itl_ms", "p99_itl_ms")
    row = dict.fromkeys((*metrics, "p50_e2el_ms", "api_cpu_ms", "engine_cpu_ms"), 2.0)
    part = {
        "rounds": 1,
        "sides": {side.name: {"server": str(side.setup), "body": side.body}},
        "loads": {"alone": {"bench": str(Load(1, 2, 3, 4)), **condense({"ours": [row]})}},
        "command": "python -m loadtest.x",
        "machine": MACHINE,
    }
    shown = comparison("Title", {"demo": part})
    assert f"| alone | ours | {' | '.join(['2 (1.000)'] * 9)} |" in shown
    assert "- ours: `tokenformer serve " in shown
    assert '--dtype float32` with `{"uncertainty": false}`' in shown
    assert "--num-prompts 1 --sharegpt-output-len 3" in shown
    assert "`python -m loadtest.x`, on: processor abacus" in shown


def test_the_time_to_ready_tells_the_round_without_caches_from_those_that_count() -> None:
    found = condense_ready([30.04, 21, 19, 20])
    assert found == {"first": 30.0, "median": 20, "all_rounds": [21, 19, 20]}
    side = Side("ours", Setup(DEMO, engine=()))
    servers = {side.name: {"server": str(side.setup), "path": path(side)}}
    figures = {"rounds": 3, "sides": servers, "seconds": {side.name: found}}
    shown = ready_table({**figures, "command": "python -m loadtest.x", "machine": MACHINE})
    assert "| ours | 20 | 21, 19, 20 | 30.0 |" in shown
    assert "- ours: `tokenformer serve demo/checkpoint --host 127.0.0.1 --served-model-name measured`" in shown
    assert "until `/readyz`" in shown
    assert "Medians of 3 rounds" in shown
    assert "`python -m loadtest.x`, on: processor abacus" in shown


def test_a_process_tells_its_peak_of_memory_and_forgets_it() -> None:
    processes = ServerProcesses(os.getpid())
    held = bytearray(os.urandom(1)) * (64 << 20)
    high = processes.peak_mib()["api"]
    del held
    processes.forget_peaks()
    assert processes.peak_mib()["api"] < high - 32
    assert processes.cpu_seconds()["api"] > 0


def test_a_server_is_found_by_its_address_on_this_machine_only() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        found = ServerProcesses.listening(f"http://127.0.0.1:{listener.getsockname()[1]}")
    assert found is not None
    assert found.api.pid == os.getpid()
    assert ServerProcesses.listening(f"http://127.0.0.1:{free_ports(1)[0]}") is None
    assert ServerProcesses.listening("http://example.com:80") is None
