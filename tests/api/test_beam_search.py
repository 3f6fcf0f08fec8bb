"""Beams are scored and counted up to their end token, with their model's calibration."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.api.test_observability import line
from tests.support.facts import UNKNOWN
from tests.support.servers import Server

pytestmark = pytest.mark.server

PROMPTS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": UNKNOWN}]},
    "/v1/completions": {
        "prompt": f"<|user|>{UNKNOWN}<|end|><|assistant|>",
    },
}


def asked(path: str, **fields: Any) -> dict[str, Any]:
    return {"model": "demo", "use_beam_search": True, "n": 3, "max_tokens": 20} | PROMPTS[path] | fields


@pytest.mark.demo_only
@pytest.mark.parametrize("path", PROMPTS)
def test_the_end_token_is_one_of_the_tokens(demo: Server, path: str) -> None:
    request_id = "beams" + path.replace("/", ".")
    logprobs = True if "chat" in path else 0
    body = asked(path, logprobs=logprobs, uncertainty={"spans": True})
    answer = httpx.post(demo.url + path, json=body, headers={"X-Request-Id": request_id}, timeout=60).json()
    lengths = []
    for choice in answer["choices"]:
        assert choice["finish_reason"] == "stop"
        shown = choice["logprobs"]
        tokens = [token["token"] for token in shown["content"]] if "chat" in path else shown["tokens"]
        assert tokens[-1] == "<|end|>"
        assert choice["uncertainty"]["tokens"] == len(tokens)
        assert choice["uncertainty"]["spans"] is not None  # the text agrees with its tokens' offsets
        lengths.append(len(tokens))
    assert answer["usage"]["completion_tokens"] == sum(lengths)
    assert line(demo, request_id)["completion_tokens"] == sum(lengths)


@pytest.mark.demo_only
@pytest.mark.parametrize("path", PROMPTS)
def test_a_stage_judges_its_own_beams(demo: Server, path: str) -> None:
    cards = {card["id"]: card for card in httpx.get(f"{demo.url}/v1/models").json()["data"]}
    for model in ("demo", "demo:base"):
        answer = httpx.post(demo.url + path, json=asked(path, model=model), timeout=60).json()
        assert answer["model"] == model
        name = cards[model]["calibration"]["name"]
        for choice in answer["choices"]:
            told = choice["uncertainty"]
            assert told["calibration"] == name or (path, told["reason"]) == ("/v1/completions", "other_form")


REFUSED: list[tuple[str, Any]] = [
    ("stop", "a"),
    ("response_format", {"type": "json_object"}),
    ("n", 11),
    ("max_tokens", 0),
]


@pytest.mark.parametrize(
    ("path", "name", "value"),
    [(path, *refused) for path in PROMPTS for refused in REFUSED] + [("/v1/completions", "stream", True)],
)
def test_what_beam_search_does_not_do_is_refused(demo: Server, path: str, name: str, value: Any) -> None:
    answer = httpx.post(demo.url + path, json=asked(path, **{name: value}), timeout=60)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == name


def test_a_chat_streams_its_beams_in_one_piece(demo: Server) -> None:
    body = asked("/v1/chat/completions", stream=True, stream_options={"include_usage": True})
    events = httpx.post(f"{demo.url}/v1/chat/completions", json=body, timeout=60).text.split("\n\n")
    assert events[-2] == "data: [DONE]"
    *chunks, last = [json.loads(event.removeprefix("data: ")) for event in events[:-2]]
    summaries = [choice["uncertainty"] for chunk in chunks for choice in chunk["choices"] if choice["finish_reason"]]
    assert len(summaries) == 3
    assert last["usage"]["completion_tokens"] == sum(summary["tokens"] for summary in summaries)
