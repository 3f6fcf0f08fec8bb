"""Scores of given texts and of ensembles equal those of generation and of the reference model."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
import torch
from openai import OpenAI

from model_impl.reference.ensemble import ensemble_uncertainty
from tests.support.demo_answers import DemoAnswer, completion_content, reference
from tests.support.facts import ANSWER, KNOWN, UNKNOWN
from tests.support.servers import Server
from tests.support.tolerances import assert_within

pytestmark = pytest.mark.server

QUESTIONS = [KNOWN, "Hello!", "Which languages are spoken in Switzerland?"]


def chat(client: OpenAI, question: str, model: str = "demo", **options: Any) -> Any:
    messages: Any = [{"role": "user", "content": question}]
    body = {"uncertainty": {"tokens": True}, "return_token_ids": True} | options.pop("extra_body", {})
    return client.chat.completions.create(model=model, messages=messages, extra_body=body, **options)


def score(demo: Server, **body: Any) -> dict[str, Any]:
    response = httpx.post(f"{demo.url}/v1/uncertainty", json={"model": "demo"} | body, timeout=60)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


@pytest.mark.demo_only
@pytest.mark.parametrize("model", ["demo", "demo:base"])
def test_a_given_answer_is_scored_as_when_it_was_generated(demo: Server, client: OpenAI, model: str) -> None:
    for question in QUESTIONS:
        response = chat(client, question, model, extra_body={"uncertainty": {"tokens": True, "spans": True}})
        (generated,) = response.choices
        messages = [{"role": "user", "content": question}]
        found = score(
            demo, model=model, messages=messages, completion=generated.message.content, uncertainty={"spans": True}
        )
        (choice,) = found["choices"]
        assert found["model"] == model
        answer = DemoAnswer.generated(response, generated, model)
        answer.assert_same_tokens(choice["logprobs"]["content"])
        for own, other in zip(choice["logprobs"]["content"], generated.logprobs.content, strict=True):
            assert own["rank"] == other.rank
        answer.assert_same_summary(choice["uncertainty"], generated.uncertainty)


@pytest.mark.demo_only
def test_a_text_is_scored_as_when_it_was_completed(demo: Server, client: OpenAI) -> None:
    prompt = "The capital"
    generated = client.completions.create(
        model="demo", prompt=prompt, max_tokens=6, logprobs=0, extra_body={"ignore_eos": True}
    )
    text = generated.choices[0].text
    found = score(demo, prompt=prompt, completion=text)
    (choice,) = found["choices"]
    answer = DemoAnswer.given(choice, {"prompt": prompt}, text)
    answer.assert_same_tokens(completion_content(generated.choices[0].logprobs))
    counts = {name: found["usage"][name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")}
    assert counts == generated.usage.model_dump(include=set(counts))  # type: ignore[union-attr]


@pytest.mark.demo_only
def test_each_text_of_a_batch_is_scored_alone(demo: Server) -> None:
    messages = [{"role": "user", "content": QUESTIONS[0]}]
    texts = [ANSWER, "Hello!", "", "The capital of Peru is Oslo."]
    together = score(demo, messages=messages, completion=texts)["choices"]
    assert [choice["index"] for choice in together] == [0, 1, 2, 3]
    for text, choice in zip(texts, together, strict=True):
        (alone,) = score(demo, messages=messages, completion=[text])["choices"]
        answer = DemoAnswer.given(alone, {"messages": messages}, text)
        answer.assert_same_summary(choice["uncertainty"], alone["uncertainty"])
    assert together[2]["uncertainty"]["tokens"] == 1  # the end of an empty answer


@pytest.mark.demo_only
def test_fields_about_generating_mean_nothing(demo: Server) -> None:
    plain, other = (
        score(demo, prompt="The capital", completion=" of", uncertainty={"ensemble": 2, "spans": True}, **fields)
        for fields in ({}, {"max_tokens": 0, "echo": True, "temperature": 2, "stop": "o"})
    )
    answer = DemoAnswer.given(plain["choices"][0], {"prompt": "The capital"}, " of")
    answer.assert_same_summary(
        other["choices"][0]["uncertainty"] | {"ensemble_tokens": 0},
        plain["choices"][0]["uncertainty"] | {"ensemble_tokens": 0},
    )


def test_alternatives_come_on_request(demo: Server) -> None:
    (choice,) = score(demo, prompt="The capital", completion=" of Peru", top_logprobs=3)["choices"]
    assert all(len(token["top_logprobs"]) >= 3 for token in choice["logprobs"]["content"])


@pytest.mark.demo_only
@pytest.mark.parametrize("members", [2, 8])
def test_a_generated_answer_under_the_ensemble(client: OpenAI, members: int) -> None:
    response = chat(client, UNKNOWN, extra_body={"uncertainty": {"tokens": True, "ensemble": members}})
    (choice,) = response.choices
    prompt, answer = response.prompt_token_ids, choice.token_ids
    expected = ensemble_uncertainty(reference(), torch.tensor([[*prompt, *answer]]), len(prompt), members)[0]
    tokens = choice.logprobs.content
    found = torch.tensor([[token.epistemic, token.aleatoric] for token in tokens])
    allowed = DemoAnswer.generated(response, choice).ensemble_tolerance
    assert_within(found, expected, allowed)
    summary = choice.uncertainty
    assert (summary["ensemble"], summary["epistemic"]) == (members, [token.epistemic for token in tokens])
    epistemic, aleatoric = allowed.amax(0).tolist()
    assert summary["mean_epistemic"] == pytest.approx(float(expected[:, 0].mean()), abs=epistemic)
    assert summary["max_epistemic"] == pytest.approx(float(expected[:, 0].max()), abs=epistemic)
    assert summary["mean_aleatoric"] == pytest.approx(float(expected[:, 1].mean()), abs=aleatoric)
    assert summary["ensemble_tokens"] == members * (len(prompt) - (len(prompt) - 1) // 32 * 32 + len(answer) - 1)


@pytest.mark.demo_only
def test_members_compute_the_answer_and_of_the_prompt_its_last_block_alone(demo: Server) -> None:
    """Whether the plain request found the rest in the cache or not."""
    history = [{"role": "user", "content": "Hello!"}, {"role": "assistant", "content": "Hello! Ask me something."}] * 8
    body = {
        "messages": [*history, {"role": "user", "content": "Hi"}],
        "completion": "Hello!",
        "uncertainty": {"ensemble": 3},
    }
    (first,), (again,) = (score(demo, **body)["choices"] for _ in range(2))
    assert again["uncertainty"]["ensemble_tokens"] == first["uncertainty"]["ensemble_tokens"]
    assert first["uncertainty"]["ensemble_tokens"] < 3 * (32 + first["uncertainty"]["tokens"])
    answer = DemoAnswer.given(first, body, "Hello!")
    answer.assert_same_summary(again["uncertainty"], first["uncertainty"])


@pytest.mark.demo_only
def test_streamed_and_plain_answers_have_the_same_ensemble(client: OpenAI) -> None:
    options: dict[str, Any] = {
        "extra_body": {"uncertainty": {"ensemble": 4, "spans": True, "tokens": True}},
        "n": 2,
        "temperature": 1,
        "seed": 1,
    }
    response = chat(client, QUESTIONS[0], **options)
    plain = {choice.index: choice for choice in response.choices}
    streamed = {}
    for chunk in chat(client, QUESTIONS[0], stream=True, **options):
        for choice in chunk.choices:
            if choice.finish_reason is not None:
                streamed[choice.index] = choice.uncertainty
            else:
                assert not hasattr(choice, "uncertainty") or choice.uncertainty is None
    assert plain.keys() == streamed.keys()
    for index, choice in plain.items():
        summary, answer = choice.uncertainty, DemoAnswer.generated(response, choice)
        assert len(summary["epistemic"]) == summary["tokens"]
        answer.assert_same_summary(streamed[index], summary)


@pytest.mark.demo_only
@pytest.mark.parametrize("stream", [False, True])
def test_completions_have_it_too_also_under_echo(client: OpenAI, stream: bool) -> None:
    body = {"uncertainty": {"ensemble": 2}}
    made: Any = client.completions.create(
        model="demo", prompt="The capital of", max_tokens=4, logprobs=0, echo=True, stream=stream, extra_body=body
    )
    chunks = list(made) if stream else [made]
    summary = next(c.choices[0].uncertainty for c in chunks if getattr(c.choices[0], "uncertainty", None))
    assert len(summary["epistemic"]) == summary["tokens"] == 4
    if not stream:
        shown = made.choices[0].logprobs
        assert shown.epistemic[-4:] == summary["epistemic"]
        assert set(shown.epistemic[:-4]) == {None}
        assert len(shown.epistemic) == len(shown.tokens)


@pytest.mark.demo_only
def test_a_given_answer_under_the_ensemble(demo: Server, client: OpenAI) -> None:
    options = {"extra_body": {"uncertainty": {"tokens": True, "ensemble": 4}}}
    response = chat(client, QUESTIONS[0], **options)
    (generated,) = response.choices
    body = {"messages": [{"role": "user", "content": QUESTIONS[0]}], "completion": generated.message.content}
    (choice,) = score(demo, **body, uncertainty={"ensemble": 4})["choices"]
    ours, theirs = (torch.tensor(told["epistemic"]) for told in (choice["uncertainty"], generated.uncertainty))
    assert_within(ours, theirs, DemoAnswer.generated(response, generated).ensemble_tolerance[:, 0])
    assert choice["logprobs"]["content"][0]["epistemic"] == choice["uncertainty"]["epistemic"][0]


@pytest.mark.demo_only
def test_ensembles_do_not_change_what_others_get(client: OpenAI) -> None:
    """Greedy answers beside re-scored ones, all with one prompt: no cache block and no row is mixed up."""
    response = chat(client, QUESTIONS[0])
    (alone,) = response.choices
    expected = DemoAnswer.generated(response, alone)
    with ThreadPoolExecutor(8) as pool:
        options = [{"extra_body": {"uncertainty": {"tokens": True, "ensemble": 6}}} if i % 2 else {} for i in range(16)]
        answers = list(pool.map(lambda own: chat(client, QUESTIONS[0], **own).choices[0], options))
    for choice in answers:
        assert choice.message.content == alone.message.content
        expected.assert_same_tokens(choice.logprobs.content)
    first, *others = (torch.tensor(choice.uncertainty["epistemic"]) for choice in answers[1::2])
    for epistemic in others:
        assert_within(epistemic, first, expected.ensemble_tolerance[:, 0])


@pytest.mark.demo_only
@pytest.mark.parametrize("path", ["chat/completions", "completions"])
def test_every_beam_is_asked_about(demo: Server, path: str) -> None:
    prompt = {"messages": [{"role": "user", "content": "a"}]} if path.startswith("chat") else {"prompt": "a"}
    body = {"model": "demo", "use_beam_search": True, "n": 2, "max_tokens": 4, "uncertainty": {"ensemble": 2}} | prompt
    found = httpx.post(f"{demo.url}/v1/{path}", json=body, timeout=30).json()["choices"]
    assert len(found) == 2
    assert all(len(choice["uncertainty"]["epistemic"]) == choice["uncertainty"]["tokens"] > 0 for choice in found)


BAD: list[Any] = [
    ({"completion": "x"}, "messages"),
    ({"completion": "x", "prompt": "a", "messages": []}, "messages"),
    ({"prompt": "a"}, "completion"),
    ({"prompt": "a", "completion": []}, "completion"),
    ({"prompt": "a", "completion": ["x"] * 129}, "completion"),
    ({"prompt": "a", "completion": 3}, "completion"),
    ({"prompt": "a", "completion": "x " * 600}, "completion"),
    # Too many tokens by the vocabulary of the demo.
    pytest.param({"prompt": "a " * 200, "completion": ["x " * 200] * 128}, "completion", marks=pytest.mark.demo_only),
    ({"prompt": "a", "completion": "x", "uncertainty": False}, "uncertainty"),
    ({"prompt": "a", "completion": "x", "uncertainty": {"ensemble": 1}}, "uncertainty"),
    ({"prompt": "a", "completion": "x", "uncertainty": {"ensemble": 65}}, "uncertainty"),
    ({"prompt": "a", "completion": "x", "uncertainty": {"ensemble": True}}, "uncertainty"),
    ({"prompt": "a", "completion": "x", "uncertainty": {"ensemble": 2.5}}, "uncertainty"),
    ({"prompt": "a", "completion": "x", "top_logprobs": 21}, "top_logprobs"),
    ({"messages": [{"role": "user", "content": "a"}], "completion": "x", "tools": 3}, "tools"),
    ({"prompt": "a", "completion": "x", "model": "nobody"}, "model"),
]


@pytest.mark.parametrize(("body", "parameter"), BAD)
def test_bad_input_names_the_parameter(demo: Server, body: dict[str, Any], parameter: str) -> None:
    response = httpx.post(f"{demo.url}/v1/uncertainty", json={"model": "demo"} | body, timeout=10)
    assert response.status_code == (404 if parameter == "model" else 400), response.text
    assert response.json()["error"]["param"].removeprefix("body.").split(".")[0] == parameter


@pytest.mark.parametrize("path", ["chat/completions", "completions"])
def test_no_client_makes_a_member(demo: Server, path: str) -> None:
    prompt = {"messages": [{"role": "user", "content": "a"}]} if path.startswith("chat") else {"prompt": "a"}
    body = {"model": "demo", "vllm_xargs": {"tokenformer_member": "x"}, "max_tokens": 1} | prompt
    response = httpx.post(f"{demo.url}/v1/{path}", json=body, timeout=10)
    assert (response.status_code, response.json()["error"]["param"]) == (400, "vllm_xargs")


@pytest.mark.demo_only
def test_a_client_that_leaves_frees_its_ensemble(demo: Server, client: OpenAI) -> None:
    """Its members end early, and later requests are served."""
    body = {"model": "demo", "prompt": "a " * 200, "completion": ["b " * 200] * 16, "uncertainty": {"ensemble": 64}}
    before = finished(demo)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{demo.url}/v1/uncertainty", json=body, timeout=0.5)
    deadline = time.monotonic() + 20
    while running(demo) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not running(demo)
    assert finished(demo) - before < 16 * 64 / 2
    assert chat(client, "Hello!").choices[0].uncertainty["tokens"] > 0


def metric(demo: Server, *names: str) -> float:
    """The sum over all labels."""
    lines = httpx.get(f"{demo.url}/metrics", timeout=10).text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(names))


def running(demo: Server) -> bool:
    return metric(demo, "vllm:num_requests_running{", "vllm:num_requests_waiting{") > 0


def finished(demo: Server) -> float:
    """The number of requests that ran to their end, as members do after one token."""
    return metric(demo, 'vllm:request_success_total{engine="0",finished_reason="length"')
