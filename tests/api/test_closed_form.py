"""The closed form and growth by stage of every token, on every route, without an ensemble."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import torch
from openai import OpenAI

from model_impl.reference.attribution import attribution
from model_impl.reference.closed_form import epistemic
from tests.support.demo_answers import STAGES, DemoAnswer, closed_form, growth, reference
from tests.support.facts import UNKNOWN, question, symbol_of_the_newest_stage
from tests.support.servers import Server

pytestmark = [pytest.mark.server, pytest.mark.demo_only]

MESSAGES: Any = [{"role": "user", "content": UNKNOWN}]
NAMES = {"demo": ["base", "chemistry"], "demo:base": ["base"]}
TOKENS = {"uncertainty": {"tokens": True}, "return_token_ids": True}


def expected(prompt: list[int], answer: list[int], model: str) -> tuple[list[float], list[dict[str, float]]]:
    """The reference's epistemic uncertainty and growth of each token of an answer."""
    ids, stage = torch.tensor([[*prompt, *answer]]), STAGES[model]
    parts = attribution(reference(), ids[:, :-1], ids[:, 1:], stage)[0, len(prompt) - 1 :].tolist()
    unsure = epistemic(reference(), ids, stage)[0, len(prompt) - 1 : -1].tolist()
    return unsure, [dict(zip(NAMES[model], part, strict=True)) for part in parts]


@pytest.mark.parametrize("model", NAMES)
def test_tokens_and_summary_are_the_references(client: OpenAI, model: str) -> None:
    response: Any = client.chat.completions.create(model=model, messages=MESSAGES, extra_body=TOKENS)
    (choice,) = response.choices
    unsure, grown = expected(response.prompt_token_ids, choice.token_ids, model)
    content, summary = choice.logprobs.content, choice.uncertainty
    assert [entry.epistemic for entry in content] == [closed_form(value) for value in unsure]
    assert [entry.growth for entry in content] == [growth(part) for part in grown]
    assert not any(hasattr(entry, "aleatoric") for entry in content)
    assert summary["estimator"] == "closed-form"
    assert summary["mean_epistemic"] == closed_form(sum(unsure) / len(unsure))
    assert summary["max_epistemic"] == closed_form(max(unsure))
    first = next(i for i, entry in enumerate(content) if any(map(str.isalnum, entry.token)))
    assert summary["first_token_epistemic"] == closed_form(unsure[first])
    means = {name: sum(part[name] for part in grown) / len(grown) for name in NAMES[model]}
    assert summary["growth"] == growth(means)
    assert (summary["ensemble"], summary["epistemic"], summary["mean_aleatoric"]) == (None, None, None)


@pytest.mark.parametrize("ensemble", [None, 2])
def test_every_chunk_of_a_stream_has_them(client: OpenAI, ensemble: int | None) -> None:
    """With two choices as with one. An ensemble comes with the last chunk, and changes no token that was sent."""
    options: dict[str, Any] = {"model": "demo", "messages": MESSAGES, "n": 2, "temperature": 1, "seed": 1}
    plain: Any = client.chat.completions.create(**options, extra_body=TOKENS)
    streamed: dict[int, list[Any]] = {0: [], 1: []}
    summaries = {}
    body = {"uncertainty": {"tokens": True} | ({"ensemble": ensemble} if ensemble else {})}
    chunks: Any = client.chat.completions.create(**options, stream=True, extra_body=body)
    for chunk in chunks:
        for part in chunk.choices:
            streamed[part.index] += part.logprobs.content if part.logprobs else ()
            if part.finish_reason is not None:
                summaries[part.index] = part.uncertainty
    for choice in plain.choices:
        answer = DemoAnswer.generated(plain, choice)
        answer.assert_same_tokens(streamed[choice.index])
        found = summaries[choice.index]
        if ensemble is None:
            answer.assert_same_summary(found, choice.uncertainty)
        else:
            assert (found["estimator"], len(found["epistemic"])) == ("ensemble", found["tokens"])
            assert found["max_epistemic"] == max(found["epistemic"])


def test_the_summary_needs_no_logprobs(client: OpenAI) -> None:
    shown: Any = client.chat.completions.create(model="demo", messages=MESSAGES, extra_body=TOKENS)
    plain: Any = client.chat.completions.create(model="demo", messages=MESSAGES)
    assert plain.choices[0].logprobs is None
    answer = DemoAnswer.generated(shown, shown.choices[0])
    answer.assert_same_summary(plain.choices[0].uncertainty, shown.choices[0].uncertainty)


@pytest.mark.parametrize("stream", [False, True])
def test_an_echoed_prompt_has_them_as_well(client: OpenAI, stream: bool) -> None:
    """All but its first token, which no position predicts."""
    options: dict[str, Any] = {"model": "demo", "prompt": "The capital of Peru", "max_tokens": 3, "logprobs": 0}
    ids: Any = client.completions.create(**options, extra_body=TOKENS)
    unsure, grown = expected(ids.choices[0].prompt_token_ids[:1], tokens_after_first(ids), "demo")
    made: Any = client.completions.create(**options, echo=True, stream=stream)
    parts = [part for part in (made if stream else [made]) if part.choices and part.choices[0].logprobs]
    shown = [part.choices[0].logprobs for part in parts]
    assert [value for own in shown for value in own.epistemic] == [None, *map(closed_form, unsure)]
    assert [value for own in shown for value in own.growth] == [None, *map(growth, grown)]


def tokens_after_first(answer: Any) -> list[int]:
    choice = answer.choices[0]
    return [*choice.prompt_token_ids[1:], *choice.token_ids]


def test_prompt_logprobs_have_them(client: OpenAI) -> None:
    body = TOKENS | {"prompt_logprobs": 0}
    response: Any = client.chat.completions.create(model="demo", messages=MESSAGES, extra_body=body, max_tokens=1)
    prompt = response.prompt_token_ids
    unsure, grown = expected(prompt[:1], prompt[1:], "demo")
    entries = [position[str(i)] for i, position in zip(prompt[1:], response.prompt_logprobs[1:], strict=True)]
    assert [entry["epistemic"] for entry in entries] == [closed_form(value) for value in unsure]
    assert [entry["growth"] for entry in entries] == [growth(part) for part in grown]
    assert "places" not in entries[0]


def test_an_answer_of_the_newest_stage_is_counted_for_it(demo: Server, client: OpenAI) -> None:
    """Each token counts for the stage that adds most to it."""

    def counts() -> dict[str, float]:
        lines = httpx.get(f"{demo.url}/metrics").text.splitlines()
        return {
            name: sum(float(line.split()[-1]) for line in lines if line.startswith(f"{TOTAL}{name}{MODEL}"))
            for name in NAMES["demo"]
        }

    messages: Any = [{"role": "user", "content": question(symbol_of_the_newest_stage())}]
    for options in ({"uncertainty": {"tokens": True}}, {}):
        before = counts()
        response: Any = client.chat.completions.create(model="demo", messages=messages, extra_body=options)
        change = {name: value - before[name] for name, value in counts().items()}
        if options:
            grown = [entry.growth for entry in response.choices[0].logprobs.content]
            told = [max(part, key=part.get) for part in grown]
            assert "chemistry" in told and "base" in told
        assert change == {name: told.count(name) for name in NAMES["demo"]}


TOTAL, MODEL = 'tokenformer_tokens_total{growth_stage="', '",model_name="demo"}'
