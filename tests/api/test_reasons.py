"""`uncertainty.reason`: why an answer has no risk, streamed and plain."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from openai import OpenAI

from tests.api.test_chat import ask, calling_a_tool
from tests.api.test_completions import complete
from tests.support import facts
from tests.support.servers import Server

pytestmark = [pytest.mark.server, pytest.mark.demo_only]

KNOWN = [{"role": "user", "content": facts.KNOWN}]
UNKNOWN = [{"role": "user", "content": facts.UNKNOWN}]
TEXTS = {"model": "demo", "messages": KNOWN, "completion": [facts.ANSWER]}


def told(answer: Any) -> dict[str, Any]:
    """The summary of the one choice, streamed or plain."""
    parts = [answer] if hasattr(answer, "usage") and not hasattr(answer, "response") else list(answer)
    (found,) = [choice.uncertainty for part in parts for choice in part.choices if getattr(choice, "uncertainty", None)]
    summary: dict[str, Any] = found
    assert (summary["risk"] is None) == (summary["reason"] is not None) == (not summary["calibrated"])
    return summary


@pytest.mark.parametrize("stream", [False, True])
def test_the_risk_of_a_whole_chat_has_no_reason(judged_client: OpenAI, stream: bool) -> None:
    assert 0 < told(ask(judged_client, messages=KNOWN, stream=stream))["risk"] < 0.1


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("model", "reason"), [("demo", "truncated"), ("demo:base", None)])
def test_an_answer_that_is_cut_off_is_judged_only_by_an_older_calibration(
    judged_client: OpenAI, stream: bool, model: str, reason: str | None
) -> None:
    answer = ask(judged_client, model=model, messages=KNOWN, stream=stream, max_tokens=3)
    assert told(answer)["reason"] == reason


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("model", "reason"), [("demo", "other_form"), ("demo:base", None)])
def test_a_bare_completion_is_no_chat(
    judged_client: OpenAI, judged: Server, stream: bool, model: str, reason: str | None
) -> None:
    assert told(complete(judged_client, model=model, stream=stream, max_tokens=40))["reason"] == reason
    body = {"model": model, "prompt": "The capital of Peru is", "completion": " Lima."}
    (choice,) = httpx.post(f"{judged.url}/v1/uncertainty", json=body, timeout=60).json()["choices"]
    assert choice["uncertainty"]["reason"] == reason


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["demo", "demo:base"])
def test_a_tool_call_is_nothing_that_a_label_calls_wrong(judged_client: OpenAI, stream: bool, model: str) -> None:
    assert told(ask(judged_client, model=model, stream=stream, **calling_a_tool()))["reason"] == "tool_calls"


@pytest.mark.parametrize("stream", [False, True])
def test_what_a_grammar_made_the_model_say_is_not_judged(judged_client: OpenAI, stream: bool) -> None:
    """The demo's probe would give it a low risk, as it has met no answer that the model found as unlikely."""
    answer = ask(judged_client, structured_outputs={"choice": ["certainly"]}, model="demo:base", stream=stream)
    assert told(answer)["reason"] == "constrained"


@pytest.mark.parametrize("stream", [False, True])
def test_an_echo_is_empty(judged_client: OpenAI, stream: bool) -> None:
    assert told(complete(judged_client, echo=True, max_tokens=0, stream=stream))["reason"] == "empty"


def test_a_given_answer_to_a_chat_is_whole(judged: Server) -> None:
    (choice,) = httpx.post(f"{judged.url}/v1/uncertainty", json=TEXTS, timeout=60).json()["choices"]
    assert choice["uncertainty"]["risk"] < 0.1


def test_a_sure_answer_doubts_nothing_and_one_that_is_cut_off_is_undecided(judged_client: OpenAI) -> None:
    greeting = [{"role": "user", "content": "Hello"}]
    options = {"uncertainty": {"spans": True, "on_doubt": "flag"}}
    assert told(ask(judged_client, messages=greeting, **options))["spans"] == []
    doubted = ask(judged_client, messages=UNKNOWN, **options)
    city = doubted.choices[0].message.content.removeprefix(facts.MADE_UP)
    spans = told(doubted)["spans"]
    assert spans
    assert all((span["text"] in city, span["kind"]) == (True, "doubted") for span in spans)
    name_alone = [{"role": "user", "content": "Peru"}]
    undecided = told(ask(judged_client, messages=name_alone, max_tokens=1, **options))["spans"]
    assert [(span["text"], span["kind"], span["risk"]) for span in undecided] == [("The", "undecided", None)]
