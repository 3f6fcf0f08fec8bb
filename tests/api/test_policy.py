"""`on_doubt`: doubted answers are replaced or refused, streamed and plain; all others are as without it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI

from server.uncertainty.calibration import load_calibration
from tests.api.test_chat import Streamed, ask, calling_a_tool
from tests.api.test_completions import complete
from tests.api.test_reasons import KNOWN, UNKNOWN
from tests.support.demo_server import DEMO
from tests.support.facts import ANSWER, MADE_UP
from tests.support.judged import DOUBT_TEXT
from tests.support.servers import Server

pytestmark = [pytest.mark.server, pytest.mark.demo_only]

LIMIT = load_calibration(DEMO / "calibration.json").abstain["above"]  # type: ignore[index]
SHOWN = {"tokens": True, "spans": True, "sentences": True}
PROMPT = {"model": "demo:base", "prompt": MADE_UP.strip(), "max_tokens": 12}


def counted(server: Server, policy: str, model: str = "demo") -> float:
    name = f'tokenformer_withheld_answers_total{{model_name="{model}",policy="{policy}"}} '
    lines = httpx.get(f"{server.url}/metrics").text.splitlines()
    return next((float(line.removeprefix(name)) for line in lines if line.startswith(name)), 0.0)


def events(server: Server, path: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The JSON events of a stream, which must end as OpenAI's do."""
    response = httpx.post(f"{server.url}{path}", json={"model": "demo", **body, "stream": True}, timeout=60)
    assert response.status_code == 200
    *lines, last = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    assert last == "[DONE]"
    yield from map(json.loads, lines)


def assert_withheld(summary: dict[str, Any], limit: float = LIMIT) -> None:
    """The numbers are there, and nothing that quotes the answer."""
    assert summary["risk"] > limit
    assert summary["abstain"] is True
    assert summary["tokens"] > 0 < summary["max_entropy"]
    assert summary["spans"] is summary["sentences"] is None


@pytest.fixture(scope="module")
def city(judged_client: OpenAI) -> str:
    """The one that the model makes up, which no withheld answer may show."""
    answer = ask(judged_client, messages=UNKNOWN, uncertainty={"on_doubt": "flag"}).choices[0].message.content
    assert answer.startswith(MADE_UP)
    return str(answer.removeprefix(MADE_UP).rstrip("."))


def test_the_servers_default_replaces_a_doubted_answer(judged: Server, judged_client: OpenAI, city: str) -> None:
    before = counted(judged, "replaced")
    answer = ask(judged_client, messages=UNKNOWN, uncertainty=SHOWN, return_token_ids=True)
    (choice,) = answer.choices
    assert (choice.message.content, choice.finish_reason) == (DOUBT_TEXT, "content_filter")
    assert choice.logprobs is choice.token_ids is choice.message.tool_calls is None
    assert city not in answer.model_dump_json()
    assert_withheld(choice.uncertainty)
    assert answer.usage.completion_tokens == choice.uncertainty["tokens"]
    assert counted(judged, "replaced") == before + 1


def test_a_stream_holds_it_back(judged: Server, judged_client: OpenAI, city: str) -> None:
    body = {"messages": UNKNOWN, "temperature": 0, "logprobs": True, "uncertainty": SHOWN}
    body |= {"stream_options": {"include_usage": True}, "return_token_ids": True}
    first, only, usage = events(judged, "/v1/chat/completions", body)
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    (choice,) = only["choices"]
    assert (choice["delta"], choice["finish_reason"], choice["logprobs"]) == (
        {"content": DOUBT_TEXT},
        "content_filter",
        None,
    )
    assert_withheld(choice["uncertainty"])
    assert usage["usage"]["completion_tokens"] == choice["uncertainty"]["tokens"]
    assert city not in str([first, only, usage])
    streamed = Streamed(ask(judged_client, messages=UNKNOWN, stream=True))
    assert (streamed.texts, streamed.reasons) == ({0: DOUBT_TEXT}, {0: "content_filter"})


@pytest.mark.parametrize("policy", ["replace", "refuse"])
def test_an_answer_that_is_not_doubted_is_as_without_a_policy(judged_client: OpenAI, policy: str) -> None:
    options: dict[str, Any] = {"messages": KNOWN, "logprobs": True, "stream_options": {"include_usage": True}}
    plain, withheld = (
        list(ask(judged_client, stream=True, **options, uncertainty=SHOWN | {"on_doubt": on}))
        for on in ("flag", policy)
    )
    assert plain[-1].usage == withheld[-1].usage
    streams = Streamed(plain), Streamed(withheld)
    for streamed in streams:
        assert (streamed.texts, streamed.reasons) == ({0: ANSWER}, {0: "stop"})
        assert "".join(sentence["text"] for sentence in streamed.summaries[0]["sentences"]) == streamed.texts[0]
    tokens = [[token.token for token in streamed.tokens[0]] for streamed in streams]
    assert tokens[0] == tokens[1]
    whole = ask(judged_client, messages=KNOWN, uncertainty={"on_doubt": policy}).choices[0]
    assert (whole.message.content, whole.finish_reason) == (streams[0].texts[0], "stop")
    assert whole.uncertainty["abstain"] is False


def test_a_request_may_have_its_own_limit_and_policy(judged_client: OpenAI) -> None:
    def reason(**options: Any) -> str:
        return str(ask(judged_client, uncertainty=options).choices[0].finish_reason)

    assert reason(abstain_above=0) == "content_filter"
    assert reason(abstain_above=0, on_doubt="replace") == "content_filter"
    assert reason(abstain_above=0, on_doubt="flag") == "stop"
    assert reason(abstain_above=1) == reason() == "stop"
    doubted = {"messages": UNKNOWN}
    assert ask(judged_client, **doubted, uncertainty={"abstain_above": 1}).choices[0].finish_reason == "stop"
    off = ask(judged_client, **doubted, uncertainty=False).choices[0]
    assert (off.finish_reason, hasattr(off, "uncertainty")) == ("stop", False)


def test_a_doubted_answer_is_refused_without_its_text(judged: Server, judged_client: OpenAI, city: str) -> None:
    before = counted(judged, "refused")
    refuse = {"uncertainty": {"on_doubt": "refuse"}, "messages": UNKNOWN}
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        ask(judged_client, **refuse)
    error: Any = caught.value.body
    assert (error["code"], error["type"], error["param"]) == ("doubted_answer", "doubted_answer", None)
    assert city not in str(error)
    assert f"above {LIMIT:g}" in error["message"]
    first, usage, last = events(
        judged, "/v1/chat/completions", refuse | {"temperature": 0, "stream_options": {"include_usage": True}}
    )
    assert (first["choices"][0]["delta"]["content"], usage["usage"]["completion_tokens"] > 0) == ("", True)
    assert last["error"]["code"] == "doubted_answer"
    assert counted(judged, "refused") == before + 2


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("policy", ["replace", "refuse"])
def test_each_choice_by_itself(judged: Server, judged_client: OpenAI, policy: str, stream: bool) -> None:
    """A refusal is of all choices; where some can be trusted, the others are replaced."""
    options: dict[str, Any] = {"messages": KNOWN, "temperature": 2, "seed": 4, "n": 6}
    flagged = ask(judged_client, **options, uncertainty={"on_doubt": "flag"}).choices
    risks = sorted(choice.uncertainty["risk"] for choice in flagged if choice.finish_reason == "stop")
    assert len(risks) > 2
    gap, limit = max((high - low, (low + high) / 2) for low, high in pairwise(risks))
    assert gap > 0.01
    before = counted(judged, "replaced")
    answer = ask(judged_client, **options, stream=stream, uncertainty={"on_doubt": policy, "abstain_above": limit})
    if stream:
        streamed = Streamed(answer)
        found = {i: (streamed.texts[i], streamed.reasons[i]) for i in streamed.texts}
    else:
        found = {choice.index: (choice.message.content, choice.finish_reason) for choice in answer.choices}
    doubted = [choice.index for choice in flagged if (choice.uncertainty["risk"] or 0) > limit]
    for choice in flagged:
        own = choice.message.content, choice.finish_reason
        assert found[choice.index] == ((DOUBT_TEXT, "content_filter") if choice.index in doubted else own)
    assert counted(judged, "replaced") == before + len(doubted) > before


@pytest.mark.parametrize("stream", [False, True])
def test_completions_are_withheld_choice_by_choice_or_refused(
    judged: Server, judged_client: OpenAI, stream: bool
) -> None:
    wanted = {"uncertainty": {"on_doubt": "replace", "abstain_above": 0.0}, "logprobs": 1}
    answer = complete(judged_client, **PROMPT, **wanted, stream=stream, n=2, temperature=1)
    choices = [choice for part in (answer if stream else [answer]) for choice in part.choices]
    assert sorted(choice.index for choice in choices) == [0, 1]
    for choice in choices:
        assert (choice.text, choice.finish_reason, choice.logprobs) == (DOUBT_TEXT, "content_filter", None)
        assert_withheld(choice.uncertainty, 0.0)
    refuse = {"uncertainty": {"on_doubt": "refuse", "abstain_above": 0.0}}
    if stream:
        *_, last = events(judged, "/v1/completions", PROMPT | refuse)
        assert last["error"]["code"] == "doubted_answer"
    else:
        with pytest.raises(openai.UnprocessableEntityError):
            complete(judged_client, **PROMPT, **refuse)


@pytest.mark.parametrize("stream", [False, True])
def test_answers_without_a_risk_are_delivered(judged_client: OpenAI, stream: bool) -> None:
    """Those that are cut off, calls of tools, and what a grammar made the model say."""
    short = ask(judged_client, messages=UNKNOWN, max_tokens=3, stream=stream)
    called = ask(judged_client, stream=stream, **calling_a_tool())
    if stream:
        short, called = list(short), list(called)
        text = "".join(choice.delta.content or "" for chunk in short for choice in chunk.choices)
        calls = [call for chunk in called for choice in chunk.choices for call in choice.delta.tool_calls or ()]
    else:
        text, calls = short.choices[0].message.content, called.choices[0].message.tool_calls
    assert MADE_UP.startswith(text) and text
    assert calls[0].function.name == "look"


@pytest.mark.parametrize(
    ("path", "body", "why"),
    [
        ("/v1/completions", {"prompt": "a"}, "fitted on chats"),
        ("/v1/chat/completions", {"messages": KNOWN, "response_format": {"type": "json_object"}}, "grammar"),
        ("/v1/chat/completions", {"messages": KNOWN, "uncertainty": {"on_doubt": "hide"}}, "should be"),
        ("/v1/uncertainty", {"messages": KNOWN, "completion": "a"}, "no effect on a given text"),
    ],
)
def test_what_cannot_be_done_is_refused(judged: Server, path: str, body: dict[str, Any], why: str) -> None:
    body = {"model": "demo", "uncertainty": {"on_doubt": "refuse"}} | body
    answer = httpx.post(f"{judged.url}{path}", json=body, timeout=60)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (400, "uncertainty.on_doubt", "invalid_value")
    assert why in error["message"]
