"""`POST /v1/trace` on the demo checkpoint, with some of its training texts as the corpus."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest

from tests.support.demo_server import corpus
from tests.support.servers import Server

pytestmark = [pytest.mark.server, pytest.mark.demo_only]


def ask(demo: Server, **body: Any) -> httpx.Response:
    return httpx.post(f"{demo.url}/v1/trace", json={"model": "demo"} | body, timeout=120)


@pytest.fixture(scope="module")
def indexed(demo: Server) -> Server:
    """The server with its corpus indexed; the first request starts the indexing and reports its progress."""
    deadline, seen = time.monotonic() + 240, []
    while not (seen and seen[-1]["ready"]):
        assert time.monotonic() < deadline, seen
        answer = ask(demo, prompt="I am").json()
        seen.append(answer["corpus"])
        assert (answer["training_texts"] is not None) == answer["corpus"]["ready"]
        time.sleep(0.2)  # between two looks at work in the background
    assert seen[-1] | {"positions": 0} == {
        "ready": True,
        "positions": 0,
        "texts": len(corpus()),
        "left_out": 0,
        "progress": 1.0,
    }
    progress = [state["progress"] for state in seen]
    assert progress == sorted(progress)
    return demo


def test_where_a_training_sentence_comes_from(indexed: Server) -> None:
    """A sentence that is in the corpus fires what it fired there, and so does the same beginning of it."""
    line, text = next((i, entry["text"]) for i, entry in enumerate(corpus(), start=1) if "text" in entry)
    answer = ask(indexed, prompt=text, texts=3).json()
    best = answer["training_texts"][0]
    assert (best["line"], best["text"]) == (line, text)
    assert best["similarity"] == pytest.approx(1, abs=5e-3)
    assert best["position"] == answer["position"] == answer["tokens"] - 1
    assert best["following"] == ""
    assert len(answer["training_texts"]) == 3
    words = " ".join(text.split()[:3])
    again = ask(indexed, prompt=words).json()["training_texts"][0]
    assert again["similarity"] > 0.99
    assert words in again["text"]


def test_tokens_are_in_order_and_their_shares_part_of_a_whole(indexed: Server) -> None:
    tokens = ask(indexed, prompt="I am a small", top=1000).json()["parameter_tokens"]
    shares = [token["share"] for token in tokens]
    assert len(shares) == 1000
    assert shares == sorted(shares, reverse=True)
    assert 0.5 < sum(shares) <= 1.0001
    assert {token["stage"] for token in tokens} == {"base", "chemistry"}
    base = ask(indexed, model="demo:base", prompt="I am a small", top=1000, texts=0).json()
    assert {token["stage"] for token in base["parameter_tokens"]} == {"base"}


def test_positions_count_prompt_and_completion(indexed: Server) -> None:
    chat: dict[str, Any] = {
        "messages": [{"role": "user", "content": "Who are you?"}],
        "completion": "I am a small Tokenformer.",
    }
    last = ask(indexed, **chat).json()
    assert last["token"] == "."
    assert last["position"] == last["tokens"] - 1
    first = ask(indexed, **chat, position=0).json()
    assert first["position"] == 0
    before = ask(indexed, **chat, position=-2).json()
    assert before["position"] == last["tokens"] - 2
    assert chat["completion"].endswith(before["token"] + last["token"])


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({"prompt": "I am", "position": 99}, "position", "`position` is 99, but prompt and completion have"),
        ({"prompt": "I am", "messages": []}, "messages", "give either `messages` or `prompt`"),
        ({"prompt": "I am", "completion": "word " * 600}, "completion", ""),
        ({"prompt": "I am", "top": 0}, None, "top"),
    ],
)
def test_what_is_refused(demo: Server, body: dict[str, Any], param: str | None, message: str) -> None:
    response = ask(demo, **body)
    assert response.status_code == 400
    error = response.json()["error"]
    assert message in error["message"]
    assert param is None or error["param"] == param


def test_an_unknown_model(demo: Server) -> None:
    response = ask(demo, model="nobody", prompt="I am")
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "model_not_found"


def test_the_schema_describes_it(demo: Server) -> None:
    document = httpx.get(f"{demo.url}/openapi.json").json()
    assert "/v1/trace" in document["paths"]
    for name in ("TraceRequest", "TracedToken", "TracedText", "TraceCorpus"):
        assert document["components"]["schemas"][name]["properties"]
