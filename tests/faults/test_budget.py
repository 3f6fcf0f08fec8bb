"""Requests whose cost exceeds their size, beside a victim that only reads its stream."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from server.engine.constraints.grammars import GRAMMAR_SECONDS
from tests.faults.costly import EMPTY, MESSAGES, SHOWN, TOO_LARGE
from tests.faults.victim import Heard, beside, check
from tests.support.servers import Server

pytestmark = pytest.mark.server

VICTIM = {"model": "demo", "prompt": "Who are you?", "max_tokens": 200, "temperature": 0, "ignore_eos": True}
ROUNDS = 3


@pytest.fixture(scope="module")
def http(demo: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=demo.url, timeout=600, headers={"content-type": "application/json"}) as opened:
        yield opened


@pytest.fixture(scope="module")
def calm(demo: Server, http: httpx.Client) -> Heard:
    """The victim beside clients with ordinary requests."""

    def harmless() -> None:
        for _ in range(5):
            http.post("/v1/chat/completions", json={"messages": MESSAGES, "n": 8, "temperature": 1}).raise_for_status()

    return beside(demo, VICTIM, harmless)


def attack(demo: Server, calm: Heard, http: httpx.Client, route: str, body: Any) -> httpx.Response:
    """The answer to an attack, which does not harm the victim."""
    answers: list[httpx.Response] = []
    content = json.dumps(body)

    def load() -> None:
        answers.extend(http.post(route, content=content) for _ in range(ROUNDS))

    check(calm, beside(demo, VICTIM, load))
    return answers[-1]


@pytest.mark.parametrize(("route", "body", "param"), EMPTY, ids=lambda value: str(value)[:50])
def test_many_wrong_items_cost_no_more_than_one(
    demo: Server, calm: Heard, http: httpx.Client, route: str, body: dict[str, Any], param: str | None
) -> None:
    refused = attack(demo, calm, http, route, body)
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == param


GONE = ["/generative_scoring", "/v1/systemone", "/scale_elastic_ep", "/is_scaling_elastic_ep", "/inference/v1/generate"]
GONE += ["/kv_event_sources", "/v1/embeddings", "/v1/score", "/pooling", "/collective_rpc", "/reset_prefix_cache"]


@pytest.mark.parametrize("route", GONE)
def test_routes_that_nothing_weighs_are_not_served(http: httpx.Client, route: str) -> None:
    body = {"query": "Hi", "items": ["x"] * 20_000, "label_token_ids": [5, 6], "prompt": "x", "input": "x"}
    for answer in (http.post(route, content=json.dumps(body)), http.get(route)):
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "not_found"


@pytest.mark.parametrize(("route", "body", "param"), TOO_LARGE, ids=lambda value: str(value)[:50])
def test_an_answer_larger_than_any_is_refused_at_once(
    http: httpx.Client, route: str, body: dict[str, Any], param: str | None
) -> None:
    began = time.monotonic()
    refused = http.post(route, content=json.dumps(body))
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == param
    assert refused.json()["error"]["code"] in ("answer_too_large", "ensemble_too_large")
    assert time.monotonic() - began < 2


LARGE: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", SHOWN | {"n": 11}),
    ("/v1/chat/completions", SHOWN | {"n": 11, "stream": True}),
    ("/v1/chat/completions", SHOWN | {"n": 128, "stream": True, "max_tokens": 40}),
    (
        "/v1/completions",
        {"prompt": "Hi", "n": 12, "temperature": 1, "max_tokens": 480, "ignore_eos": True, "logprobs": 20},
    ),
    ("/v1/completions", {"prompt": [[5] * 480] * 12, "max_tokens": 1, "prompt_logprobs": 20}),
    ("/v1/chat/completions/batch", SHOWN | {"messages": [MESSAGES] * 11}),
    # The most members there can be, but of one text: members give way to the victim, for 15 seconds.
    ("/v1/uncertainty", {"prompt": "Hi", "completion": "x " * 150, "uncertainty": {"ensemble": 64}}),
]


@pytest.mark.parametrize(("route", "body"), LARGE, ids=lambda value: str(value)[:50])
def test_the_largest_answers_that_are_made_hold_nobody_up(
    demo: Server, calm: Heard, http: httpx.Client, route: str, body: dict[str, Any]
) -> None:
    assert attack(demo, calm, http, route, body).status_code == 200


TEXT = "hello world " * 340_000


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("/tokenize", {"prompt": TEXT}),
        ("/tokenize", {"messages": [{"role": "user", "content": TEXT}]}),
        ("/v1/completions", {"prompt": TEXT}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": TEXT}]}),
        ("/v1/uncertainty", {"prompt": "Hi", "completion": TEXT}),
        ("/v1/trace", {"prompt": "Hi", "completion": TEXT}),
        ("/v1/responses", {"input": TEXT}),
        ("/v1/messages", {"model": "demo", "max_tokens": 1, "messages": [{"role": "user", "content": TEXT}]}),
    ],
    ids=lambda value: str(value)[:50],
)
def test_no_route_tokenises_a_text_that_no_prompt_can_be(
    demo: Server, calm: Heard, http: httpx.Client, route: str, body: dict[str, Any]
) -> None:
    refused = attack(demo, calm, http, route, body)
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "context_length_exceeded"


@pytest.mark.parametrize("side", [{}, {"truncation_side": "left"}, {"truncation_side": "right"}], ids=str)
def test_a_text_that_is_truncated_is_cut_before_it_is_tokenised(
    demo: Server, calm: Heard, http: httpx.Client, side: dict[str, str]
) -> None:
    body = {"model": "demo", "max_tokens": 5, "temperature": 0, "truncate_prompt_tokens": 5, "uncertainty": False}
    answer = attack(demo, calm, http, "/v1/completions", body | side | {"prompt": TEXT})
    assert answer.json()["usage"]["prompt_tokens"] == 5
    short = http.post("/v1/completions", json=body | side | {"prompt": TEXT[:1200]}).json()
    assert answer.json()["choices"][0]["text"] == short["choices"][0]["text"]


SLOW = "root ::= a" + "\n" * 60_000
"""A grammar that takes all of its allowed time."""


def test_a_grammar_that_is_tried_holds_no_place_of_others(demo: Server, calm: Heard, http: httpx.Client) -> None:
    """Both requests together have more sequences than the server takes on."""
    wanted = {"prompt": ["x"] * 2, "n": 100, "temperature": 1, "max_tokens": 1}
    statuses: list[int] = []

    def ask(body: dict[str, Any]) -> None:
        statuses.append(http.post("/v1/completions", json=body).status_code)

    def load() -> None:
        slow = threading.Thread(target=ask, args=[wanted | {"structured_outputs": {"grammar": SLOW}}])
        slow.start()
        time.sleep(GRAMMAR_SECONDS / 4)  # it is being tried
        ask(wanted)
        slow.join()

    check(calm, beside(demo, VICTIM, load))
    assert sorted(statuses) == [200, 400]


def test_mistakes_of_clients_leave_no_traceback(demo: Server, http: httpx.Client) -> None:
    wrong = {"model": "demo", "max_tokens": 4, "messages": MESSAGES, "temperature": 9}
    before = demo.log.stat().st_size
    for route in ("/v1/messages", "/v1/messages/count_tokens"):
        for body in (wrong, wrong | {"messages": [{"role": "user", "content": TEXT}]}):
            refused = http.post(route, content=json.dumps(body))
            assert refused.status_code in (200, 400)
            assert "type" in refused.json() or "input_tokens" in refused.json()
    said = demo.log.read_bytes()[before:].decode()
    assert "Traceback" not in said
    assert len(said.splitlines()) <= 6
