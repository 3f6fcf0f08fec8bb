"""The simulation of a replica, the separation of its costs, and the tables of its capacity."""

from __future__ import annotations

from dataclasses import astuple, replace
from typing import Any

import pytest

from loadtest import server_costs
from loadtest.affinity import Turn, condense, turns
from loadtest.affinity import markdown as affinity_table
from loadtest.capacity_model import Limits, Replica, Simulation, Work, at, output_rate, sustained_rate
from loadtest.capacity_report import checks as check_table
from loadtest.capacity_report import markdown

STEP = 0.01
PLAIN = Replica({1: STEP}, {32: 0.0}, threads=1)
"""Every step takes the same time, and nothing else takes any."""
WORKS = {
    "api": Work(0.002, 0.0004, 0.00005),
    "client": Work(0.001, 0.0001, 0.00003),
}


def test_between_points_is_a_straight_line_and_beyond_the_last_one_it_goes_on() -> None:
    points = {16: 3.0, 4: 1.0}
    assert [at(points, x) for x in (1, 4, 10, 16, 28)] == [1, 1, 2, 3, 5]
    assert at({4: 1.0}, 28) == 1


def test_one_request_takes_the_sum_of_its_parts() -> None:
    api, client = Work(0.005, 0.002, 0.001), Work(0.003, 0.001, 0.0005)
    replica = Replica({1: STEP}, {32: 0.02}, 1, 0.004, api, client, cores=4)
    (done,) = Simulation(replica, prompt=32, answer=3).closed(requests=1, at_a_time=1)
    before = 0.003 + 0.005 + 0.004
    passing = 0.003 + 0.0015  # the next step is made while tokens are passed on
    assert done.first == pytest.approx(before + 0.02 + STEP + passing)
    assert done.last == pytest.approx(before + 0.02 + 3 * STEP + passing)


def test_requests_of_one_batch_share_its_steps() -> None:
    assert output_rate(PLAIN, 32, 10, requests=1, at_a_time=1) == pytest.approx(1 / STEP)
    # The first of them is a step ahead of the others, which came during it.
    assert output_rate(PLAIN, 32, 100, requests=16, at_a_time=16) == pytest.approx(16 / STEP, rel=0.01)


def test_requests_beyond_the_rows_of_a_step_wait() -> None:
    done = Simulation(replace(PLAIN, max_rows=2), 32, 10).closed(requests=4, at_a_time=4)
    assert sorted(request.first for request in done) == pytest.approx([STEP, 2 * STEP, 11 * STEP, 12 * STEP])


def test_prompts_beyond_the_tokens_of_a_step_wait_for_the_next() -> None:
    replica = replace(PLAIN, max_tokens=70, prefill={32: 0.1, 64: 0.2})
    done = Simulation(replica, 32, 5).closed(requests=4, at_a_time=4)
    first = 0.1 + STEP
    second = first + 0.2 + STEP  # has two of the three that wait, as 70 tokens are one row and 64 of prompts
    assert sorted(request.first for request in done) == pytest.approx([first, second, second, second + 0.1 + STEP])


def test_requests_that_come_together_are_passed_on_together() -> None:
    done = Simulation(replace(PLAIN, api=Work(request=STEP), cores=4), 32, 5).closed(requests=4, at_a_time=4)
    assert [request.first for request in done][1:] == pytest.approx([4 * STEP + 2 * STEP] * 3)


def test_requests_on_their_way_do_not_hold_each_other_up() -> None:
    done = Simulation(replace(PLAIN, lag=STEP), 32, 5).closed(requests=4, at_a_time=4)
    assert max(request.first for request in done) == pytest.approx(3 * STEP)


def test_processes_that_work_at_once_share_the_cores() -> None:
    # Both take as long for a token; on one core neither is idle while the other works.
    replica = replace(PLAIN, api=Work(token=STEP))
    apart, together = (output_rate(replace(replica, cores=cores), 32, 200, 1, 1) for cores in (2, 1))
    assert apart == pytest.approx(1 / STEP, rel=0.01)
    assert together == pytest.approx(0.5 / STEP, rel=0.01)


def test_a_step_on_all_cores_is_slowed_by_whatever_runs_beside_it() -> None:
    replica = replace(PLAIN, threads=2, cores=2, api=Work(token=STEP))
    assert output_rate(replica, 32, 200, 1, 1) < 0.75 / STEP


def test_processes_are_slower_in_a_crowd_unless_they_were_measured_in_it() -> None:
    # The API process works half of the time, beside the next step.
    beside = replace(PLAIN, crowded=0.5, api=Work(token=STEP / 4), cores=2)
    assert output_rate(beside, 32, 200, 1, 1) == pytest.approx(1 / (1.25 * STEP), rel=0.01)
    alone = replace(PLAIN, crowded=0.5, threads=2, cores=2)
    assert output_rate(alone, 32, 200, 1, 1) == pytest.approx(1 / STEP, rel=0.01)


def test_requests_arrive_whatever_the_server_has_to_do() -> None:
    done = Simulation(replace(PLAIN, max_rows=1), 32, 10).open([0.0, 0.0, 1.0])
    assert [request.sent for request in done] == [0, 0, 1]
    assert [request.last for request in done] == pytest.approx([0.1, 0.2, 1.1])


def test_the_sustained_rate_keeps_the_limits_and_a_higher_one_does_not() -> None:
    limits = Limits(first_token=0.5, further_token=0.1)
    replica = replace(PLAIN, max_rows=4)
    rate = sustained_rate(replica, 32, 10, limits, requests=200)
    most = 4 / (10 * STEP)
    assert 0.7 * most < rate < most
    assert sustained_rate(replica, 32, 10, replace(limits, first_token=0.05), requests=200) < rate
    assert sustained_rate(replica, 32, 10, limits, requests=200) == rate  # seeded


def test_a_model_that_is_too_slow_for_one_user_sustains_nothing() -> None:
    assert sustained_rate(PLAIN, 32, 10, Limits(1.0, further_token=STEP / 2), requests=50) == 0


def test_the_costs_of_requests_messages_and_tokens_are_told_apart() -> None:
    def spent(load: Any, work: Work) -> float:
        own = 0.1  # of the run, and of none of them
        tokens = load.requests * load.output
        return own + work.request * load.requests + work.step * server_costs.messages(load) + work.token * tokens

    runs = [
        server_costs.Run(*(spent(load, WORKS[name]) for name in ("api", "client")), first_token=0.01)
        for load in server_costs.LOADS
    ]
    found = server_costs.works([runs, runs])
    for name, work in WORKS.items():
        assert astuple(found[name]) == pytest.approx(astuple(work), rel=1e-6)


def test_the_lag_is_what_no_process_works_in() -> None:
    rounds = [[server_costs.Run(0, 0, first_token) for _ in server_costs.LOADS] for first_token in (0.02, 0.01, 0.03)]
    worked = sum(work.request + work.step + work.token for work in WORKS.values())
    assert server_costs.lag(rounds, WORKS) == pytest.approx(0.02 - worked)


def figures() -> dict[str, Any]:
    check = {"predicted": 110.0, "measured": 100.0, "error": 0.1}
    capacity = {"requests_per_second": 2.5, "per_core": 1.25, "users_per_core": 450, "replicas": 1112, "cores": 2224}
    model = {"cores": 2, "decode_ms": {"1": 20.5}, "prefill_ms": {"32": 30.5}, "capacity": {"128": capacity}}
    compared = {"1 at a time": check, "4 at a time": check | {"batch": 90.0, "error_of_batch": 0.222}}
    return {
        "server": "tokenformer serve x",
        "lag_ms": 2.5,
        "crowded": 0.75,
        "microseconds": {"api": {"request": 2000.0, "step": 400.0, "token": 50.0}},
        "models": {"150M": model | {"checks": compared}},
        "limits_seconds": {"first_token": 1.0, "further_token": 0.1},
        "traffic": {"prompt": 128, "users": 1_000_000, "questions_per_hour": 10},
        "command": "python -m loadtest.capacity",
        "machine": {"processor": "abacus"},
    }


def test_the_tables_hold_predictions_against_measurements_and_name_what_they_assume() -> None:
    shown = markdown(figures())
    assert "| 150M | 1 at a time | 110.0 | 100.0 | +10% | - | - |" in shown
    assert "| 150M | 4 at a time | 110.0 | 100.0 | +10% | 90.0 | +22% |" in shown
    assert "| 150M | 128 tokens | 2.5 | 1.25 | 450 | 1112 | 2224 |" in shown
    assert "1,000,000 users, each with 10 questions" in shown
    assert "| 150M | 20.5 | 30.5 |" in shown
    assert "| api | 2000.0 | 400.0 | 50.0 |" in shown
    assert check_table(figures()) in shown
    assert "each has 75% of the speed" in shown


def test_the_second_turn_is_told_apart_by_replica() -> None:
    rounds = [{"the same": Turn(30.0 + i, 600, 40), "another": Turn(500.0 + i, 600, 600)} for i in range(3)]
    found = {"turns": {"512": condense(rounds)}, "server": "tokenformer serve x", "command": "c", "machine": {}}
    assert "| 600 | 40 | 31.0 | 600 | 501.0 |" in turns(found)
    assert "Medians of 3 rounds." in affinity_table(found)
