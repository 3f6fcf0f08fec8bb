"""How requests are weighed, and what is turned away, without an engine."""

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

from server.gate.admission import TICKET, Admission, AdmissionControl, Ticket, Weight, weigh

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
        model_config=SimpleNamespace(max_model_len=LONGEST),
        scheduler_config=SimpleNamespace(max_num_seqs=8),
        parallel_config=SimpleNamespace(data_parallel_size=1),
    )
    settings = Namespace(**({"api_server_count": None, "queue_limits": (sequences, tokens)} | args))
    return AdmissionControl(engine, config, settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("body", "weight"),
    [
        ({"prompt": "a" * 40}, Weight(1, 11)),
        ({"prompt": ["a" * 40, "b" * 4]}, Weight(2, 13)),
        ({"prompt": [1, 2, 3]}, Weight(1, 3)),
        ({"prompt": [[1, 2, 3], [4]]}, Weight(2, 4)),
        ({"prompt": "a" * 40, "n": 3}, Weight(3, 33)),
        ({"prompt": ["a" * 40, "b" * 40], "n": 3, "best_of": 5}, Weight(10, 110)),
        ({"prompt": "a" * 40_000}, Weight(1, LONGEST)),
        ({"prompt": []}, Weight(1, 0)),
        ({"prompt": "", "completion": ["aaaa", "bbbb"]}, Weight(2, 6)),
        ({"messages": [{"role": "user", "content": "a" * 40}]}, Weight(1, 13)),
        ({"messages": [[{"content": "aaaa"}], [{"content": "bbbb"}]]}, Weight(2, 4)),
        ({"input": "a" * 40}, Weight(1, 11)),
        ({"n": "many"}, Weight(1, 0)),
        ({"n": None, "prompt": None}, Weight(1, 0)),
        (None, Weight(1, 0)),
        ([1, 2], Weight(1, 0)),
    ],
)
def test_weight(body: object, weight: Weight) -> None:
    assert weigh(body, LONGEST) == weight


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
        ticket = TICKET.get()
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
