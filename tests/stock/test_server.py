"""A model that is no Tokenformer behind the API: what it has equals transformers' numbers, what it lacks is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import pytest
import torch

from server.uncertainty.score import ChoiceScore
from tests.stock.served import Stock

pytestmark = pytest.mark.server

MESSAGES: Any = [{"role": "user", "content": "Who are you?"}]
PROMPT = "What is the capital of France?"
TOKENS = {"uncertainty": {"tokens": True}, "return_token_ids": True, "ignore_eos": True}
LETTERS = {"structured_outputs": {"regex": "[a-z]{8}"}}
"""Bytes that are letters, whose text has the same tokens again."""
OPTIONS: dict[str, Any] = {"model": "stock", "max_tokens": 8, "temperature": 1, "seed": 4}
STATISTICS = ("entropy", "variance", "margin")


def assert_expected(stock: Stock, prompt: Sequence[int], answer: Sequence[int], content: Sequence[Any]) -> None:
    """The entries of a chat's logprobs, or their like, are those of the tokens `answer` after `prompt`."""
    told = [entry if isinstance(entry, Mapping) else entry.model_dump() for entry in content]
    wanted = stock.expected(prompt, answer)
    rows = torch.tensor([[entry[name] for name in STATISTICS] for entry in told], dtype=torch.float64)
    assert (rows - wanted.statistics).abs().max() < 1e-4
    logprobs = torch.tensor([entry["logprob"] for entry in told], dtype=torch.float64)
    assert (logprobs - wanted.logprobs).abs().max() < 1e-4
    epistemic = torch.tensor([entry["epistemic"] for entry in told], dtype=torch.float64)
    torch.testing.assert_close(epistemic, wanted.epistemic, rtol=1e-3, atol=1e-6)
    assert not any(entry.get("growth") for entry in told)


def columns(logprobs: Any) -> list[dict[str, Any]]:
    """The parallel columns of a text completion as a chat has them, but for the first token of an echo."""
    names = {"logprob": "token_logprobs"} | {name: name for name in (*STATISTICS, "epistemic")}
    rows = zip(*(getattr(logprobs, column) for column in names.values()), strict=True)
    return [dict(zip(names, row, strict=True)) for row in rows if row[0] is not None]


def test_the_card_says_what_the_model_has(stock: Stock) -> None:
    (card,) = httpx.get(f"{stock.server.url}/v1/models").json()["data"]
    lacking = dict.fromkeys(("stages", "deltas", "growth", "ensemble", "trace"), False)
    assert (card["id"], card["capabilities"]) == ("stock", lacking | {"epistemic": True})
    assert (card["growth_stage"], card["parameter_tokens"]) == (None, None)
    assert card["calibration"]["name"] == stock.calibration.name


def test_a_chat_is_scored_as_transformers_would(stock: Stock) -> None:
    response: Any = stock.client.chat.completions.create(messages=MESSAGES, **OPTIONS, n=2, extra_body=TOKENS)
    assert len({tuple(choice.token_ids) for choice in response.choices}) == 2
    for choice in response.choices:
        content, summary = choice.logprobs.content, choice.uncertainty
        assert_expected(stock, response.prompt_token_ids, choice.token_ids, content)
        wanted = stock.expected(response.prompt_token_ids, choice.token_ids)
        entropy, variance, _ = wanted.statistics.T
        assert (summary["tokens"], summary["unit"], summary["growth"]) == (8, "nat", None)
        assert summary["mean_entropy"] == pytest.approx(float(entropy.mean()), abs=1e-4)
        assert summary["max_entropy"] == pytest.approx(float(entropy.max()), abs=1e-4)
        assert summary["mean_variance"] == pytest.approx(float(variance.mean()), abs=1e-4)
        assert summary["max_epistemic"] == pytest.approx(float(wanted.epistemic.max()), rel=1e-3)
        assert (summary["estimator"], summary["ensemble"]) == ("closed-form", None)


def test_a_stream_says_the_same(stock: Stock) -> None:
    options = OPTIONS | {"messages": MESSAGES, "n": 2, "extra_body": TOKENS}
    plain: Any = stock.client.chat.completions.create(**options)
    content: dict[int, list[Any]] = {0: [], 1: []}
    summaries = {}
    chunks: Any = stock.client.chat.completions.create(**options, stream=True)
    for chunk in chunks:
        for part in chunk.choices:
            content[part.index] += part.logprobs.content if part.logprobs else ()
            if part.finish_reason is not None:
                summaries[part.index] = part.uncertainty
    for choice in plain.choices:
        assert [token.token for token in content[choice.index]] == [token.token for token in choice.logprobs.content]
        assert_expected(stock, plain.prompt_token_ids, choice.token_ids, content[choice.index])
        numbers = {name: value for name, value in choice.uncertainty.items() if isinstance(value, float)}
        told = {name: summaries[choice.index][name] for name in numbers}
        assert told == pytest.approx(numbers, rel=1e-3, abs=1e-4)
        assert summaries[choice.index].keys() == choice.uncertainty.keys()


@pytest.mark.parametrize("stream", [False, True])
def test_an_echoed_prompt_is_scored_too(stock: Stock, stream: bool) -> None:
    ids = stock.words.encode(PROMPT)
    answer = stock.client.completions.create(prompt=PROMPT, **OPTIONS, logprobs=0, extra_body=TOKENS).choices[0]
    options = OPTIONS | {"prompt": PROMPT, "echo": True, "logprobs": 0, "stream": stream}
    made: Any = stock.client.completions.create(**options, extra_body={"ignore_eos": True})
    parts = [part for part in (made if stream else [made]) if part.choices and part.choices[0].logprobs]
    told = [entry for part in parts for entry in columns(part.choices[0].logprobs)]
    assert_expected(stock, ids[:1], [*ids[1:], *answer.token_ids], told)  # type: ignore[attr-defined]


def test_prompt_logprobs_are_scored_too(stock: Stock) -> None:
    body = TOKENS | {"prompt_logprobs": 0}
    response: Any = stock.client.chat.completions.create(messages=MESSAGES, **OPTIONS, extra_body=body)
    prompt = response.prompt_token_ids
    told = [entry[str(i)] for i, entry in zip(prompt[1:], response.prompt_logprobs[1:], strict=True)]
    assert_expected(stock, prompt[:1], prompt[1:], told)


def test_a_given_text_is_scored_as_when_it_was_generated(stock: Stock) -> None:
    body = TOKENS | LETTERS
    generated: Any = stock.client.completions.create(prompt=PROMPT, **OPTIONS, logprobs=0, extra_body=body).choices[0]
    response = stock.post("/v1/uncertainty", prompt=PROMPT, completion=[generated.text, "a"])
    choice, other = response.json()["choices"]
    assert len(generated.token_ids) == len(choice["logprobs"]["content"]) == 8
    assert_expected(stock, stock.words.encode(PROMPT), generated.token_ids, choice["logprobs"]["content"])
    assert_expected(stock, stock.words.encode(PROMPT), stock.words.encode("a"), other["logprobs"]["content"])
    told = (choice["uncertainty"][name] for name in ("mean_entropy", "mean_variance", "max_epistemic"))
    assert list(told) == pytest.approx(
        [generated.uncertainty[name] for name in ("mean_entropy", "mean_variance", "max_epistemic")], rel=1e-3
    )


def test_a_calibration_gives_risks(stock: Stock) -> None:
    """It was fitted on bare completions, and judges those, not chats."""
    assert stock.calibration.name in stock.said
    assert (stock.calibration.data["labels"], stock.calibration.data["wrong"]) == (120, 60)
    assert stock.calibration.figures["auroc"]["value"] > 0.9
    ids = stock.words.encode(PROMPT)
    completions: Any = stock.client.completions.create(prompt=PROMPT, **OPTIONS, n=3, extra_body=TOKENS)
    for choice in completions.choices:
        features = ChoiceScore.of(stock.scores(ids, choice.token_ids)).features()
        assert features is not None
        assert choice.uncertainty["risk"] == pytest.approx(stock.calibration.risk(features), abs=1e-3)
        assert (choice.uncertainty["calibrated"], choice.uncertainty["reason"]) == (True, None)
    assert len({choice.uncertainty["risk"] for choice in completions.choices}) == 3
    (chat,) = stock.client.chat.completions.create(messages=MESSAGES, **OPTIONS).choices
    summary: Any = chat.uncertainty  # type: ignore[attr-defined]
    assert (summary["risk"], summary["reason"]) == (None, "other_form")


def counted(stock: Stock) -> Counter[str]:
    found = Counter[str]()
    for line in httpx.get(f"{stock.server.url}/metrics").text.splitlines():
        name = line.partition("{")[0]
        if name in ("tokenformer_token_entropy_nats_count", "tokenformer_tokens_total"):
            found[name] += int(float(line.rsplit(" ", 1)[1]))
    return found


@pytest.mark.parametrize("stream", [False, True])
def test_metrics_count_its_tokens(stock: Stock, stream: bool) -> None:
    options = OPTIONS | {"messages": MESSAGES, "n": 2, "stream": stream, "extra_body": {"ignore_eos": True}}
    before = counted(stock)
    made: Any = stock.client.chat.completions.create(**options)
    assert not stream or len(list(made)) > 2
    change = counted(stock) - before
    assert change == dict.fromkeys(("tokenformer_token_entropy_nats_count", "tokenformer_tokens_total"), 16)


ABSENT: list[tuple[str, dict[str, Any], str | None]] = [
    ("/v1/chat/completions", {"messages": MESSAGES, "uncertainty": {"ensemble": 2}}, "uncertainty"),
    ("/v1/completions", {"prompt": PROMPT, "uncertainty": {"ensemble": 2}}, "uncertainty"),
    ("/v1/completions", {"prompt": PROMPT, "stream": True, "uncertainty": {"ensemble": 2}}, "uncertainty"),
    ("/v1/uncertainty", {"prompt": PROMPT, "completion": "a", "uncertainty": {"ensemble": 2}}, "uncertainty"),
    ("/v1/trace", {"prompt": PROMPT}, None),
    ("/v1/load_lora_adapter", {"lora_name": "delta", "lora_path": "/nowhere"}, None),
    ("/v1/unload_lora_adapter", {"lora_name": "delta"}, None),
]
"""Features of a Tokenformer alone, and the parameter that asks for each; None where the whole route does."""


@pytest.mark.parametrize(("path", "body", "param"), ABSENT)
def test_what_only_a_tokenformer_has_is_refused(
    stock: Stock, path: str, body: dict[str, Any], param: str | None
) -> None:
    response = stock.post(path, **body)
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert (error["param"], error["type"]) == (param, "invalid_request_error")
    assert "Tokenformer" in error["message"] and "\n" not in error["message"]


@pytest.mark.parametrize("path", ["chat/completions", "completions", "uncertainty"])
def test_it_has_no_stages(stock: Stock, path: str) -> None:
    body = {"messages": MESSAGES} if path.startswith("chat") else {"prompt": PROMPT}
    response = stock.post(f"/v1/{path}", **body, completion="a", model="stock:base")
    assert (response.status_code, response.json()["error"]["param"]) == (404, "model")
    assert response.json()["error"]["code"] == "model_not_found"
