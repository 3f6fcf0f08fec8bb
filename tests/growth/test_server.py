"""A grown checkpoint behind the API: stages and deltas as models, mixed in batches, loaded and unloaded at run time."""

from __future__ import annotations

import copy
import json
import random
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import openai
import pytest
import torch

from model_impl.checkpoint.delta import split
from model_impl.reference.attribution import attribution
from model_impl.reference.closed_form import epistemic
from model_impl.reference.contributions import at_position, places
from model_impl.reference.model import ReferenceTokenformer
from model_impl.wire import STATISTICS
from server.engine.variants import MAX_DELTAS
from tests.faults.lasting import wait_for
from tests.growth.served import Grown
from tests.support.calibrated import checkpoint
from tests.support.engines import assert_recomputed
from tests.support.grown import VOCABULARY

pytestmark = pytest.mark.server


def ask(grown: Grown, model: str, prompt: list[int], **options: Any) -> Any:
    return grown.client.completions.create(
        model=model,
        prompt=prompt,
        temperature=0,
        max_tokens=6,
        extra_body={"uncertainty": {"tokens": True}, "return_token_ids": True} | options,
    )


def reported(choice: Any) -> torch.Tensor:
    """float64 [tokens, 3]."""
    return torch.tensor([getattr(choice.logprobs, name) for name in STATISTICS], dtype=torch.float64).T


def check(grown: Grown, model: str, prompt: list[int], answer: Any) -> None:
    """Tokens, statistics, epistemic uncertainty and growth are those of the reference model at that stage."""
    reference, stage = grown.references[model]
    choice = answer.choices[0]
    ids = torch.tensor([[*prompt, *choice.token_ids]])
    with torch.no_grad():
        logits = reference(ids, stage)[0, len(prompt) - 1 : -1]
    assert choice.token_ids == logits.argmax(-1).tolist()
    assert_recomputed(reported(choice), reference, prompt, choice.token_ids, stage)
    unsure = epistemic(reference, ids, stage)[0, len(prompt) - 1 : -1]
    torch.testing.assert_close(torch.tensor(choice.logprobs.epistemic), unsure, atol=1e-6, rtol=1e-4)
    parts = attribution(reference, ids[:, :-1], ids[:, 1:], stage)[0, len(prompt) - 1 :]
    names = [entry.name for entry in reference.config.stages[: stage + 1]]
    assert all(list(growth) == names for growth in choice.logprobs.growth)
    by_token = torch.tensor([list(growth.values()) for growth in choice.logprobs.growth])
    torch.testing.assert_close(by_token, parts, atol=1e-4, rtol=1e-4)
    summary = choice.uncertainty
    assert summary["estimator"] == "closed-form"
    assert summary["max_epistemic"] == max(choice.logprobs.epistemic)
    assert list(summary["growth"]) == names
    assert list(summary["growth"].values()) == pytest.approx(parts.mean(0).tolist(), abs=1e-4, rel=1e-4)


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


def test_loading_and_unloading_leaves_running_streams_alone(grown: Grown) -> None:
    """A stream of another model runs through both; one of the delta itself still ends normally after the unloading."""
    prompt, options = [3, 1, 4], {"ignore_eos": True}
    alone = [stream_text(grown, name, prompt, 100, options) for name in ("m", "extra")]
    with ThreadPoolExecutor(2) as pool:
        other = pool.submit(stream_text, grown, "m", prompt, 100, options)
        path = str(grown.root / "deltas" / "extra")
        loaded = grown.post("/v1/load_lora_adapter", {"lora_name": "late", "lora_path": path})
        assert loaded.status_code == 200, loaded.text
        check(grown, "late", prompt, ask(grown, "late", prompt))
        own = iter_stream(grown, "late", prompt, 100, options)
        first = next(own)
        unloaded = grown.post("/v1/unload_lora_adapter", {"lora_name": "late"})
        assert unloaded.status_code == 200, unloaded.text
        with pytest.raises(openai.NotFoundError):
            ask(grown, "late", prompt)
        assert first + "".join(own) == alone[1]
        assert other.result() == alone[0]
    assert "late" not in [card.id for card in grown.client.models.list().data]
    check(grown, "m:base", prompt, ask(grown, "m:base", prompt))


def iter_stream(grown: Grown, model: str, prompt: list[int], tokens: int, options: dict[str, Any]) -> Iterator[str]:
    chunks = grown.client.completions.create(
        model=model, prompt=prompt, temperature=0, max_tokens=tokens, stream=True, extra_body=options
    )
    for chunk in chunks:
        if chunk.choices:
            yield chunk.choices[0].text


def stream_text(grown: Grown, model: str, prompt: list[int], tokens: int, options: dict[str, Any]) -> str:
    return "".join(iter_stream(grown, model, prompt, tokens, options))


def test_a_reloaded_delta_uses_its_new_content(grown: Grown, tmp_path: Path) -> None:
    """Same name and same directory, other tokens: neither weights nor cached blocks of the old content remain."""
    directory = grown.root / "deltas" / "changing"
    split(grown.root / "three", directory)
    prompt = [random.Random(4).randrange(VOCABULARY) for _ in range(70)]
    body = {"lora_name": "changing", "lora_path": str(directory)}
    assert grown.post("/v1/load_lora_adapter", body).status_code == 200
    before = ask(grown, "changing", prompt)
    other = checkpoint(tmp_path / "other", 3, growth_seed=9)
    shutil.rmtree(directory)
    sibling = make_sibling(grown, other, directory)
    assert grown.post("/v1/load_lora_adapter", body).status_code == 400, "loading twice needs load_inplace"
    assert grown.post("/v1/load_lora_adapter", body | {"load_inplace": True}).status_code == 200
    after = ask(grown, "changing", prompt)
    assert before.choices[0].logprobs.entropy != after.choices[0].logprobs.entropy
    again = ask(grown, "changing", prompt)
    for choice in (after.choices[0], again.choices[0]):
        assert_recomputed(reported(choice), sibling, prompt, choice.token_ids)
    assert grown.post("/v1/unload_lora_adapter", {"lora_name": "changing"}).status_code == 200


def make_sibling(grown: Grown, other: ReferenceTokenformer, directory: Path) -> ReferenceTokenformer:
    """A delta over the served checkpoint whose tokens are those of another model's last stage; returns its model."""
    from safetensors.torch import load_file, save_file

    split(grown.root / "three", directory)
    own = load_file(directory / "growth.safetensors")
    state = other.state_dict()
    new = {name: state[name][-len(rows) :].clone() if len(rows) else rows for name, rows in own.items()}
    save_file(new, directory / "growth.safetensors")
    sibling = copy.deepcopy(grown.references["extra"][0])
    for name, rows in new.items():
        sibling.get_parameter(name)[len(sibling.get_parameter(name)) - len(rows) :] = rows
    return sibling


@pytest.mark.parametrize(
    ("delta", "reason"),
    [
        ("foreign", "base"),
        ("missing", "no such growth delta"),
        ("../three", "outside"),
        ("/etc", "outside"),
    ],
)
def test_a_delta_that_does_not_fit_is_refused_and_harms_nobody(grown: Grown, delta: str, reason: str) -> None:
    before = ask(grown, "m", [1, 2, 3]).choices[0].text
    path = str(grown.root / "deltas" / delta)
    response = grown.post("/v1/load_lora_adapter", {"lora_name": "bad", "lora_path": path})
    assert response.status_code == 400
    assert reason in response.json()["error"]["message"]
    assert response.json()["error"]["param"] == "lora_path"
    assert ask(grown, "m", [1, 2, 3]).choices[0].text == before
    assert "bad" not in [card.id for card in grown.client.models.list().data]


def test_a_wrong_shape_is_refused(grown: Grown) -> None:
    from safetensors.torch import load_file, save_file

    directory = grown.root / "deltas" / "cut"
    split(grown.root / "three", directory)
    tensors = load_file(directory / "growth.safetensors")
    name = next(name for name, rows in tensors.items() if len(rows) > 1)
    save_file(tensors | {name: tensors[name][1:].clone()}, directory / "growth.safetensors")
    response = grown.post("/v1/load_lora_adapter", {"lora_name": "cut", "lora_path": str(directory)})
    assert response.status_code == 400
    assert "shape" in response.json()["error"]["message"]


def test_a_running_delta_does_not_depend_on_its_files(grown: Grown) -> None:
    """Overwriting or cutting the file in place changes nothing until the delta is loaded again."""
    directory = grown.root / "deltas" / "edited"
    split(grown.root / "three", directory)
    body = {"lora_name": "late", "lora_path": str(directory)}
    assert grown.post("/v1/load_lora_adapter", body).status_code == 200
    with (directory / "growth.safetensors").open("r+b") as file:
        file.truncate(1000)
    check(grown, "late", [2, 7, 1], ask(grown, "late", [2, 7, 1]))
    assert grown.post("/v1/unload_lora_adapter", {"lora_name": "late"}).status_code == 200


@pytest.mark.parametrize("path", ["a" * 300, "a/" * 3000, "loop"], ids=["name", "path", "loop"])
def test_a_path_that_no_file_system_takes_is_refused(grown: Grown, path: str) -> None:
    (grown.root / "deltas" / "loop").unlink(missing_ok=True)
    (grown.root / "deltas" / "loop").symlink_to("loop")
    response = grown.post("/v1/load_lora_adapter", {"lora_name": "bad", "lora_path": path})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "lora_path"


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[31m", "n" * 129, "", " a", "a b"], ids=repr)
def test_a_delta_cannot_have_any_name(grown: Grown, name: str) -> None:
    response = grown.post("/v1/load_lora_adapter", {"lora_name": name, "lora_path": "extra"})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "lora_name"


def test_the_number_of_deltas_is_limited_and_unloading_makes_room(grown: Grown) -> None:
    names = [f"many-{i}" for i in range(MAX_DELTAS + 4)]
    loads = [grown.post("/v1/load_lora_adapter", {"lora_name": name, "lora_path": "extra"}) for name in names]
    loaded = [name for name, load in zip(names, loads, strict=True) if load.status_code == 200]
    assert len(loaded) == MAX_DELTAS - 1, "one is served from the start"
    assert loads[-1].status_code == 400
    assert loads[-1].json()["error"]["param"] == "lora_name"
    for name in loaded:
        assert grown.post("/v1/unload_lora_adapter", {"lora_name": name}).status_code == 200
    for name in names[:3]:
        wait_for(lambda name=name: load_and_unload(grown, name))


def load_and_unload(grown: Grown, name: str) -> bool:
    load = grown.post("/v1/load_lora_adapter", {"lora_name": name, "lora_path": "extra"})
    return load.status_code == 200 and grown.post("/v1/unload_lora_adapter", {"lora_name": name}).status_code == 200


def test_the_series_of_an_unloaded_delta_are_gone(grown: Grown) -> None:
    wait_for(lambda: grown.post("/v1/load_lora_adapter", {"lora_name": "passing", "lora_path": "extra"}).is_success)
    ask(grown, "passing", [1, 2, 3])
    ask(grown, "extra", [1, 2, 3])
    assert 'model_name="passing"' in httpx.get(f"{grown.server.url}/metrics").text
    assert grown.post("/v1/unload_lora_adapter", {"lora_name": "passing"}).status_code == 200
    wait_for(lambda: 'model_name="passing"' not in httpx.get(f"{grown.server.url}/metrics").text)
    assert 'model_name="extra"' in httpx.get(f"{grown.server.url}/metrics").text


def test_files_that_are_swapped_while_a_delta_is_loaded_harm_nobody(grown: Grown) -> None:
    """The worker reads the checked content, or refuses."""
    directory = grown.root / "deltas" / "swapped"
    split(grown.root / "three", directory)
    whole = (directory / "growth.safetensors").read_bytes()
    ended = Event()

    def swap() -> None:
        while not ended.is_set():
            for content in (whole[:-4], whole, whole[:1000], whole):
                (directory / "growth.safetensors").write_bytes(content)

    before = ask(grown, "m", [1, 2, 3]).choices[0].text
    with ThreadPoolExecutor(1) as pool:
        pool.submit(swap)
        try:
            for _ in range(40):
                load = grown.post("/v1/load_lora_adapter", {"lora_name": "swapped", "lora_path": "swapped"})
                assert load.status_code in (200, 400), load.text
                if load.status_code == 200:
                    check(grown, "swapped", [2, 7, 1], ask(grown, "swapped", [2, 7, 1]))
                    grown.post("/v1/unload_lora_adapter", {"lora_name": "swapped"})
        finally:
            ended.set()
    assert ask(grown, "m", [1, 2, 3]).choices[0].text == before


def test_a_stage_cannot_be_replaced(grown: Grown) -> None:
    path = str(grown.root / "deltas" / "extra")
    body = {"lora_name": "m:base", "lora_path": path, "load_inplace": True}
    assert grown.post("/v1/load_lora_adapter", body).status_code == 400
    check(grown, "m:base", [9, 8], ask(grown, "m:base", [9, 8]))


def test_a_stage_cannot_be_unloaded(grown: Grown) -> None:
    response = grown.post("/v1/unload_lora_adapter", {"lora_name": "m:base"})
    assert response.status_code == 400
    check(grown, "m:base", [9, 8], ask(grown, "m:base", [9, 8]))


def test_deltas_are_spoken_of_as_such_and_not_as_lora(grown: Grown) -> None:
    """The routes and their fields are vLLM's; answers, errors and the log are ours."""
    body = {"lora_name": "told", "lora_path": "extra"}
    loaded = grown.post("/v1/load_lora_adapter", body)
    again = grown.post("/v1/load_lora_adapter", body)
    own = grown.post("/v1/load_lora_adapter", body | {"lora_name": "m"})
    unloaded = grown.post("/v1/unload_lora_adapter", {"lora_name": "told"})
    gone = grown.post("/v1/unload_lora_adapter", {"lora_name": "told"})
    nameless = grown.post("/v1/unload_lora_adapter", {"lora_name": ""})
    assert (loaded.status_code, loaded.text) == (200, "Success: growth delta 'told' is loaded.")
    assert (unloaded.status_code, unloaded.text) == (200, "Success: growth delta 'told' is unloaded.")
    assert [refused.status_code for refused in (again, own, gone, nameless)] == [400, 400, 404, 404]
    assert again.json()["error"]["message"] == "A growth delta `told` is loaded already; `load_inplace` replaces it."
    for refused in (again, own, gone, nameless):
        error = refused.json()["error"]
        assert error["param"] == "lora_name"
        assert "lora" not in error["message"].lower()
    spoken = [line for line in grown.server.log.read_text().splitlines() if not line.startswith("{")]
    assert not [line for line in spoken if "lora" in line.lower()]
