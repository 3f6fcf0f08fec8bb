"""What of a doubted answer reaches the client, and when the chunks of a stream are sent."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vllm.entrypoints.generate.base.protocol import FunctionCall, ToolCall
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionResponseChoice, ChatMessage

from server.api.policy import HeldStream, as_event, policy_of, policy_problem, replaced_message
from server.requests.schemas import ScoredChatCompletionRequest, ScoredCompletionRequest
from server.uncertainty.calibration import Calibration
from server.uncertainty.policy import DoubtPolicy, OnDoubt
from server.uncertainty.reason import Population

CHATS: Population = {"forms": {"chat": 9}, "finish_reasons": {"stop": 9}, "units": {"answer": 9}}


def calibration(above: float | None = None, **fields: Any) -> Calibration:
    limit: Any = None if above is None else {"error_rate": 0.1, "above": above}
    return Calibration(
        "logistic", "f" * 64, "base", ["tokens"], [1.0], 0.0, lowest=[0.0], highest=[9.0], abstain=limit, **fields
    )


def models(doubt: DoubtPolicy, made: Calibration | None) -> Any:
    ensemble = SimpleNamespace(unavailable="compiled")
    return SimpleNamespace(doubt=doubt, calibration=lambda _: made, calibrations={}, ensemble=ensemble)


def chat(**uncertainty: Any) -> ScoredChatCompletionRequest:
    return ScoredChatCompletionRequest(
        model="m", messages=[{"role": "user", "content": "a"}], uncertainty=uncertainty or True
    )


@pytest.mark.parametrize(
    ("server", "options", "own", "expected"),
    [
        (DoubtPolicy(), {}, 0.5, ("flag", 0.5)),
        (DoubtPolicy("replace"), {}, 0.5, ("replace", 0.5)),
        (DoubtPolicy("replace", above=0.3), {}, 0.5, ("replace", 0.3)),
        (DoubtPolicy("replace", above=0.3), {"abstain_above": 0.0}, 0.5, ("replace", 0.0)),
        (DoubtPolicy("replace"), {"on_doubt": "flag"}, 0.5, ("flag", 0.5)),
        (DoubtPolicy(), {"on_doubt": "refuse", "abstain_above": 0.2}, None, ("refuse", 0.2)),
        (DoubtPolicy("refuse"), {}, None, ("flag", None)),
    ],
)
def test_the_request_goes_before_the_server_and_the_server_before_the_calibration(
    server: DoubtPolicy, options: dict[str, Any], own: float | None, expected: tuple[OnDoubt, float | None]
) -> None:
    found = policy_of(chat(**options), models(server, calibration(own)), None)
    assert (found.on_doubt, found.above) == expected


READS_ENSEMBLE = Calibration(
    "probe",
    "f" * 64,
    "base",
    ["max_epistemic"],
    [1.0],
    lowest=[0.0],
    highest=[9.0],
    ensemble={"members": 8, "rate": 0.03, "projections": ["ffn"]},
    abstain={"error_rate": 0.1, "above": 0.5},
)


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (calibration(0.5), None),
        (calibration(0.5, population=CHATS), None),
        (None, "the server has no calibration"),
        (calibration(), "needs a limit"),
        (READS_ENSEMBLE, "this engine does not report"),
    ],
)
def test_a_request_cannot_ask_for_what_never_happens(made: Calibration | None, why: str | None) -> None:
    """And the server's default does nothing there."""
    problem = policy_problem(chat(on_doubt="replace"), models(DoubtPolicy(), made), None)
    assert problem is None if why is None else why in (problem or "")
    default = models(DoubtPolicy("replace"), made)
    assert policy_problem(chat(), default, None) is policy_problem(chat(on_doubt="flag"), default, None) is None
    assert policy_of(chat(), default, None).withholds == (why is None)


def test_completions_are_not_judged_by_chats() -> None:
    asked = ScoredCompletionRequest(model="m", prompt="a", uncertainty={"on_doubt": "refuse"})
    problem = policy_problem(asked, models(DoubtPolicy(), calibration(0.5, population=CHATS)), None)
    assert "fitted on chats" in (problem or "")
    assert policy_problem(asked, models(DoubtPolicy(), calibration(0.5)), None) is None


def test_a_replaced_message_has_nothing_of_the_answer() -> None:
    call = ToolCall(id="1", function=FunctionCall(name="look", arguments="{}"))
    message = ChatMessage(role="assistant", content="secret", reasoning="secret", tool_calls=[call])
    choice = ChatCompletionResponseChoice(index=3, message=message, finish_reason="tool_calls", token_ids=[1])
    found = replaced_message(choice, "unsure").model_dump()
    assert found.pop("message")["content"] == "unsure"
    assert {name: value for name, value in found.items() if value is not None} == {
        "index": 3,
        "finish_reason": "content_filter",
    }
    assert "tool_calls" not in replaced_message(choice, "unsure").message.model_dump()


def frames(index: int, texts: list[str]) -> list[dict[str, Any]]:
    """Chunks of one choice: its role, its texts and a tool call, and its end."""
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}, *({"content": text} for text in texts)]
    deltas.append({"tool_calls": [{"index": 0, "function": {"name": "look"}}]})
    chunks = [{"index": index, "delta": delta, "finish_reason": None} for delta in deltas]
    return [
        *chunks,
        {"index": index, "delta": {"content": "."}, "finish_reason": "stop", "uncertainty": {"risk": index}},
    ]


@given(st.sampled_from(["replace", "refuse"]), st.lists(st.booleans(), min_size=1, max_size=4), st.data())
def test_no_part_of_a_doubted_choice_is_sent_and_every_other_chunk_is(
    on_doubt: OnDoubt, doubted: list[bool], data: st.DataObject
) -> None:
    """However the chunks of several choices mix."""
    waiting = [frames(i, ["secret"] * data.draw(st.integers(0, 3))) for i in range(len(doubted))]
    plain: list[list[dict[str, Any]]] = [list(choice) for choice in waiting]
    held, sent = HeldStream(DoubtPolicy(on_doubt, "unsure"), doubted.__getitem__), list[str]()
    while any(waiting):
        choice = data.draw(st.sampled_from([choice for choice in waiting if choice]))
        chunk = as_event({"id": "x", "choices": [choice.pop(0)]})
        new = held.take(chunk)
        ends = '"finish_reason":"stop"' in chunk or '"role"' in chunk
        assert ends or not new
        sent += new
    usage = as_event({"choices": [], "usage": {}})
    assert held.take(usage) == [usage]
    choices = [json.loads(event.removeprefix("data: "))["choices"][0] for event in sent]
    refused = on_doubt == "refuse" and all(doubted)
    assert len(held.doubted) == (len(doubted) if refused else 0)
    for i, is_doubted in enumerate(doubted):
        own = [choice for choice in choices if choice["index"] == i]
        if not is_doubted:
            assert own == plain[i]
            continue
        first, *last = own
        assert first == plain[i][0]
        replaced = {"index": i, "logprobs": None, "finish_reason": "content_filter", "delta": {"content": "unsure"}}
        assert last == ([] if refused else [replaced | {"uncertainty": {"risk": i}}])
    errors = as_event({"error": {}})
    assert held.take(errors) == [errors]
