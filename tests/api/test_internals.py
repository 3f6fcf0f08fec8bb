"""Pattention internals in answers of the demo checkpoint, which ships with a profile."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
import torch
from openai import OpenAI

from model_impl.config import PROJECTIONS
from model_impl.reference.internals import internals
from model_impl.reference.model import load_reference
from model_impl.wire import INTERNALS
from server.uncertainty.profile import load_profile
from tests.support.demo_server import DEMO
from tests.support.servers import Server

pytestmark = pytest.mark.server

QUESTION: Any = [{"role": "user", "content": "Who are you?"}]


def chat(client: OpenAI, **options: Any) -> Any:
    extra = {"uncertainty": options.pop("uncertainty", {"internals": True}), "return_token_ids": True}
    defaults: dict[str, Any] = {"model": "demo", "messages": QUESTION, "max_tokens": 8, "temperature": 0}
    return client.chat.completions.create(**(defaults | options), extra_body=extra)


def test_values_and_standard_scores_are_the_references(client: OpenAI) -> None:
    response = chat(client)
    (choice,), prompt = response.choices, response.prompt_token_ids
    model = load_reference(DEMO)
    ids = torch.tensor([[*prompt, *choice.token_ids]])
    expected = internals(model, ids)[0, len(prompt) - 1 : -1, ..., : len(INTERNALS)]
    made = load_profile(DEMO / "profile.json", model.config)
    z = (expected - torch.tensor(made.mean)) / torch.tensor(made.std)
    for entry, row, scores in zip(choice.logprobs.content, expected, z, strict=True):
        for layer, values, standardised in zip(entry.internals["layers"], row, scores, strict=True):
            for p, projection in enumerate(PROJECTIONS):
                found = [layer[projection][name] for name in INTERNALS]
                assert found == pytest.approx(values[p].tolist(), rel=1e-4, abs=1e-4)
                found = [layer[projection][f"{name}_z"] for name in INTERNALS]
                assert found == pytest.approx(standardised[p].tolist(), rel=1e-3, abs=1e-3)
    means = dict(zip(INTERNALS, z.abs().mean((0, 1, 2)).tolist(), strict=True))
    assert choice.uncertainty["internals"] == pytest.approx(means, rel=1e-3)


def test_a_stream_says_the_same(client: OpenAI) -> None:
    plain = chat(client).choices[0]
    chunks = [chunk.choices[0] for chunk in chat(client, stream=True) if chunk.choices]
    streamed = [entry for choice in chunks if choice.logprobs for entry in choice.logprobs.content]
    assert len(streamed) == len(plain.logprobs.content)
    for one, other in zip(streamed, plain.logprobs.content, strict=True):
        assert one.growth == pytest.approx(other.growth, abs=1e-4)
        assert one.internals["layers"][0]["ffn"].keys() == other.internals["layers"][0]["ffn"].keys()
        ours, theirs = (entry.internals["layers"][-1]["output"]["kurtosis"] for entry in (one, other))
        assert ours == pytest.approx(theirs, rel=1e-3)
    (summary,) = [choice.uncertainty for choice in chunks if getattr(choice, "uncertainty", None)]
    assert summary["internals"] == pytest.approx(plain.uncertainty["internals"], rel=1e-3)


def test_only_if_asked_for(client: OpenAI) -> None:
    choice = chat(client, uncertainty={"tokens": True}).choices[0]
    assert choice.uncertainty["internals"] is None
    assert not any(hasattr(entry, "internals") or hasattr(entry, "growth") for entry in choice.logprobs.content)


def test_a_given_text_has_the_same_internals_as_a_generated_one(demo: Server, client: OpenAI) -> None:
    generated = chat(client, max_tokens=60).choices[0]
    assert generated.finish_reason == "stop"
    body = {"model": "demo", "messages": QUESTION, "completion": generated.message.content}
    response = httpx.post(f"{demo.url}/v1/uncertainty", json=body | {"uncertainty": {"internals": True}}, timeout=60)
    (given,) = response.json()["choices"]
    texts = zip(given["logprobs"]["content"], generated.logprobs.content, strict=False)
    for one, other in list(texts)[: len(generated.logprobs.content) - 1]:  # which token ends a chat is another matter
        assert one["growth"] == pytest.approx(other.growth, abs=1e-4)
        for layer, expected in zip(one["internals"]["layers"], other.internals["layers"], strict=True):
            for projection in PROJECTIONS:
                for name in INTERNALS:
                    assert layer[projection][name] == pytest.approx(expected[projection][name], rel=1e-3, abs=1e-4)


def test_echoed_tokens_and_prompt_logprobs_have_them(demo: Server) -> None:
    body = {"model": "demo", "prompt": "I am a small", "max_tokens": 3, "temperature": 0, "echo": True, "logprobs": 0}
    extra = {"prompt_logprobs": 0, "uncertainty": {"internals": True}}
    response = httpx.post(f"{demo.url}/v1/completions", json=body | extra, timeout=60)
    answer = json.loads(response.text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    choice = answer["choices"][0]
    shown = choice["logprobs"]["internals"]
    assert shown[0] is None
    assert len(shown) == len(choice["logprobs"]["tokens"])
    assert all(len(entry["layers"]) == 4 for entry in shown[1:])
    prompted = [next(iter(position.values())) for position in choice["prompt_logprobs"][1:]]
    assert [entry["internals"] for entry in prompted] == shown[1 : len(prompted) + 1]
    assert {"provenance", "internal_columns"}.isdisjoint(prompted[0])


def test_the_schema_and_the_model_card_say_so(demo: Server, client: OpenAI) -> None:
    schemas = httpx.get(f"{demo.url}/openapi.json").json()["components"]["schemas"]
    described = schemas["ProjectionInternals"]["properties"]
    assert {*INTERNALS, *(f"{name}_z" for name in INTERNALS), "growth"} == set(described)
    assert all(entry["description"] for entry in described.values())
    assert schemas["ScoredToken"]["properties"]["internals"]["anyOf"][0]["$ref"].endswith("/TokenInternals")
    assert all(card.internals is True for card in client.models.list().data)
