"""A grown checkpoint behind the API: its stages and deltas are models, which mix in batches."""

from __future__ import annotations

import json
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple
from typing import Any

import httpx
import openai
import pytest

from model_impl.reference.contributions import at_position, places
from tests.growth.answers import ask, check
from tests.growth.served import Grown
from tests.support.grown import VOCABULARY

pytestmark = pytest.mark.server


def test_stages_and_deltas_are_listed_with_parent_and_token_counts(grown: Grown) -> None:
    cards = {card.id: card for card in grown.client.models.list().data}
    assert {"m", "m:base", "extra"} <= set(cards)
    assert cards["m"].parent is None
    assert cards["m:base"].parent == cards["extra"].parent == "m"
    assert [cards[name].growth_stage for name in ("m", "m:base", "extra")] == ["grown-1", "base", "grown-2"]
    for name in ("m", "m:base", "extra"):
        reference, stage = grown.references[name]
        assert cards[name].parameter_tokens["ffn"] == reference.config.token_count("ffn", stage)


def test_models_mix_in_one_batch_and_equal_the_reference(grown: Grown) -> None:
    draw = random.Random(3)
    names = ["m", "m:base", "extra"] * 6
    prompts = [[draw.randrange(VOCABULARY) for _ in range(draw.randrange(2, 60))] for _ in names]
    with ThreadPoolExecutor(len(names)) as pool:
        answers = list(pool.map(lambda pair: ask(grown, *pair), zip(names, prompts, strict=True)))
    for name, prompt, answer in zip(names, prompts, answers, strict=True):
        assert answer.model == name
        check(grown, name, prompt, answer)


def test_a_chat_ends_at_the_stop_strings_of_the_generation_configuration(grown: Grown) -> None:
    """Unless it names others; an empty list names none."""
    entries = json.loads((grown.root / "two" / "generation_config.json").read_text())
    (stop,) = entries["stop_strings"]

    def say(**options: Any) -> tuple[str, str]:
        messages = [{"role": "user", "content": "w1 w2"}]
        body = {"model": "m", "messages": messages, "temperature": 0, "max_tokens": 5, "ignore_eos": True}
        choice = grown.post("/v1/chat/completions", body | options).json()["choices"][0]
        return choice["message"]["content"], choice["finish_reason"]

    whole = say(stop=[])
    assert whole[1] == "length"
    assert stop in whole[0]
    cut = (whole[0].partition(stop)[0], "stop")
    assert say() == say(stop=None) == cut
    second = " " + whole[0].split()[1]
    assert say(stop=second) == (whole[0].partition(second)[0], "stop")


def test_an_unknown_stage_is_openais_model_not_found(grown: Grown) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        ask(grown, "m:nothing", [1, 2])
    assert caught.value.code == "model_not_found"
    assert caught.value.param == "model"
    assert "those that do: m, m:base, extra." in str(caught.value)
    missing = httpx.get(f"{grown.server.url}/v1/models/m:nothing").json()["error"]
    assert missing["message"].endswith("those that do: m, m:base, extra.")


def test_stages_can_be_traced_and_deltas_say_that_they_cannot(grown: Grown) -> None:
    prompt = [4, 40, 44, 13]
    for name in ("m", "m:base"):
        reference, stage = grown.references[name]
        answer = grown.post("/v1/trace", {"model": name, "prompt": prompt, "position": 2, "top": 3}).json()
        found = at_position(reference, prompt, 2, stage)
        top = found.contributions.topk(3)
        shown = [(t["layer"], t["projection"], t["index"], t["stage"]) for t in answer["parameter_tokens"]]
        assert shown == [astuple(places(reference.config, stage)[number]) for number in top.indices.tolist()]
        shares = [token["share"] for token in answer["parameter_tokens"]]
        assert shares == pytest.approx((top.values / found.contributions.sum()).tolist(), rel=1e-5)
        assert (answer["model"], answer["corpus"], answer["training_texts"]) == (name, None, None)
        assert answer["predicts"] == f"w{int(found.logits.argmax())}"
    refused = grown.post("/v1/trace", {"model": "extra", "prompt": prompt})
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "model"
    assert "`extra` is a growth delta; only the checkpoint and its stages" in refused.json()["error"]["message"]


def test_metrics_carry_the_stage(grown: Grown) -> None:
    ask(grown, "m:base", [5, 6, 7])
    text = httpx.get(f"{grown.server.url}/metrics").text
    counts = [line for line in text.splitlines() if line.startswith("tokenformer_token_entropy_nats_count")]
    assert any('model_name="m:base"' in line and float(line.rsplit(" ", 1)[1]) >= 6 for line in counts)
