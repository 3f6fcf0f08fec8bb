"""Admission and refusal of requests, without an engine."""

from __future__ import annotations

import asyncio
from argparse import Namespace
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from server.gate.admission import (
    CELLS_AT_ONCE,
    MAX_CELLS,
    MAX_RESCORED,
    Admission,
    AdmissionControl,
    Ticket,
    TurnedAway,
    Weight,
)
from server.gate.context import CONTEXT

LONGEST = 100


class Engine:
    """An engine client that says what a test sets."""

    errored = False
    unfinished = queued = 0

    def get_num_unfinished_requests(self) -> int:
        return self.unfinished

    def get_num_queued_tokens(self) -> int:
        return self.queued


def control(engine: Engine, sequences: int | None = 4, tokens: int | None = 50, **args: Any) -> AdmissionControl:
    config: Any = SimpleNamespace(
        model_config=SimpleNamespace(
            max_model_len=LONGEST, hf_config=SimpleNamespace(num_hidden_layers=2), get_vocab_size=lambda: 1000
        ),
        scheduler_config=SimpleNamespace(max_num_seqs=8),
        parallel_config=SimpleNamespace(data_parallel_size=1),
        cache_config=SimpleNamespace(block_size=32),
    )
    settings = Namespace(**({"api_server_count": None, "queue_limits": (sequences, tokens)} | args))
    return AdmissionControl(engine, config, settings)  # type: ignore[arg-type]


def test_sequences_are_counted_until_they_end() -> None:
    engine = Engine()
    admission = control(engine)
    ticket = Ticket(admission, Weight(3, 30))
    assert admission.refusal(Weight(1, 1)) is None
    refused = admission.refusal(Weight(2, 1))
    assert refused is not None
    assert (refused.status, refused.code) == (429, "queue_full")
    # Two come to the engine, which counts them from then on: nothing is counted twice.
    for _ in range(2):
        ticket.reached_engine(10)
        engine.unfinished += 1
    assert admission.unfinished() == 3
    assert admission.refusal(Weight(2, 1)) is not None
    ticket.close()
    assert (admission.tickets, admission.sequences, admission.tokens) == (0, 0, 0)
    assert admission.unfinished() == 2


def test_prompt_tokens_are_counted_until_the_engine_counts_them() -> None:
    engine = Engine()
    admission = control(engine, sequences=100)
    ticket = Ticket(admission, Weight(1, 30))
    refused = admission.refusal(Weight(1, 21))
    assert refused is not None
    assert (refused.status, refused.code) == (429, "tokens_full")
    assert admission.refusal(Weight(1, 20)) is None
    ticket.reached_engine(7)  # fewer than was estimated
    engine.queued = 7
    assert admission.queued_tokens() == 7


def test_what_is_larger_than_the_queue_may_go_alone() -> None:
    engine = Engine()
    admission = control(engine)
    assert admission.refusal(Weight(1, 99)) is None
    engine.queued = 1
    assert admission.refusal(Weight(1, 99)) is not None


def test_what_has_more_sequences_than_the_server_ever_takes_need_not_come_again() -> None:
    refused = control(Engine()).refusal(Weight(5, 5))
    assert refused is not None
    assert (refused.status, refused.code, refused.retry_after) == (400, "too_many_sequences", None)


def test_what_shows_more_than_any_answer_may_is_refused_with_the_parameter_that_asks_for_it() -> None:
    admission = control(Engine())
    for cells, code in ((MAX_CELLS, None), (MAX_CELLS + 1, "answer_too_large")):
        refused = admission.refusal(Weight(2, 2, cells, "top_logprobs"))
        assert (refused and refused.code) == code
    assert refused is not None
    assert (refused.status, refused.param, refused.retry_after) == (400, "top_logprobs", None)
    assert admission.refusal(Weight(1, 1, MAX_CELLS + 1, "top_logprobs")) is None, "one sequence may show all it has"


def test_what_an_ensemble_may_run_is_bounded() -> None:
    admission = control(Engine())
    refused = admission.refusal(Weight(2, 2, rescored=MAX_RESCORED + 1))
    assert refused is not None
    assert (refused.status, refused.code, refused.param) == (400, "ensemble_too_large", "uncertainty")
    assert admission.refusal(Weight(2, 2, rescored=MAX_RESCORED)) is None


def test_answers_and_ensembles_under_way_are_counted_together_until_they_end() -> None:
    admission = control(Engine())
    for weight, code in (
        (Weight(1, 1, CELLS_AT_ONCE, "logprobs"), "logprobs_full"),
        (Weight(1, 1, rescored=MAX_RESCORED), "ensembles_full"),
    ):
        ticket = Ticket(admission, weight)
        refused = admission.refusal(weight)
        assert refused is not None
        assert (refused.status, refused.code) == (429, code)
        assert admission.refusal(Weight(1, 1)) is None
        ticket.close()
        assert admission.refusal(weight) is None
    assert (admission.cells, admission.rescored) == (0, 0)


def test_a_request_aside_leaves_its_place_to_others() -> None:
    admission = control(Engine(), sequences=2)
    ticket = Ticket(admission, Weight(2, 20, 5, "logprobs", 7))
    with ticket.aside():
        assert (admission.sequences, admission.tokens, admission.cells, admission.rescored) == (0, 0, 0, 0)
        assert admission.refusal(Weight(2, 20)) is None
    assert (admission.sequences, admission.tokens, admission.cells, admission.rescored) == (2, 20, 5, 7)
    with pytest.raises(TurnedAway), ticket.aside():
        other = Ticket(admission, Weight(1, 1))
    ticket.close()
    other.close()
    with pytest.raises(ValueError, match="wrong"), (refused := Ticket(admission, Weight(1, 1))).aside():
        raise ValueError("wrong")
    refused.close()
    assert (admission.tickets, admission.sequences, admission.tokens, admission.cells) == (0, 0, 0, 0)


def test_more_sequences_than_were_announced_are_not_counted_below_zero() -> None:
    """The members of an ensemble run for a request that has long reached the engine."""
    admission = control(Engine())
    ticket = Ticket(admission, Weight(1, 10))
    for _ in range(3):
        ticket.reached_engine(10)
    assert (admission.sequences, admission.tokens) == (0, 0)


def test_limits_follow_from_the_engine_where_none_are_given() -> None:
    admission = control(Engine(), None, None)
    assert admission.max_sequences == 16
    assert control(Engine(), None, None, api_server_count=3).max_sequences == 6


def app(admission: AdmissionControl, answer: Any) -> Any:
    inner = Starlette(routes=[Route("/v1/completions", answer, methods=["GET", "POST"])])
    inner.add_middleware(Admission)
    inner.state.admission = admission

    async def with_json(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"] = {"json": {"prompt": "Hi", "n": 2}}
        await inner(scope, receive, send)

    return with_json


def test_the_gate_answers_for_a_server_that_is_full_draining_or_dead() -> None:
    engine = Engine()
    admission = control(engine)
    seen: list[tuple[int, int]] = []

    async def answer(request: Request) -> JSONResponse:
        ticket = CONTEXT.get().ticket
        seen.append((admission.tickets, ticket.sequences if ticket else 0))
        return JSONResponse({})

    async def run() -> None:
        transport = httpx.ASGITransport(app(admission, answer))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            assert (await client.post("/v1/completions")).status_code == 200
            assert (await client.get("/v1/completions")).status_code == 200  # not counted, never refused
            engine.unfinished = 3
            full = await client.post("/v1/completions")
            assert (full.status_code, full.headers["retry-after"]) == (429, "1")
            error = full.json()["error"]
            assert (error["code"], error["type"], error["param"]) == ("queue_full", "rate_limit_error", None)
            admission.draining = True
            draining = await client.post("/v1/completions")
            assert (draining.status_code, draining.json()["error"]["code"]) == (503, "draining")
            assert draining.headers["retry-after"]
            assert draining.headers["connection"] == "close"
            engine.errored = True
            dead = await client.post("/v1/completions")
            assert (dead.status_code, dead.json()["error"]["code"]) == (503, "engine_dead")
            assert (await client.get("/v1/completions")).status_code == 200

    asyncio.run(run())
    assert seen == [(1, 2), (0, 0), (0, 0)]
    assert (admission.tickets, admission.sequences) == (0, 0)


def test_a_request_that_fails_gives_its_ticket_back() -> None:
    admission = control(Engine())

    async def answer(request: Request) -> JSONResponse:
        raise RuntimeError("in the route")

    async def run() -> None:
        transport = httpx.ASGITransport(app(admission, answer), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            assert (await client.post("/v1/completions")).status_code == 500

    asyncio.run(run())
    assert (admission.tickets, admission.sequences, admission.tokens) == (0, 0, 0)
