"""Growth deltas are loaded, replaced and unloaded while the server runs, and what does not fit harms nobody."""

from __future__ import annotations

import copy
import random
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import httpx
import openai
import pytest

from model_impl.checkpoint.delta import split
from model_impl.reference.model import ReferenceTokenformer
from server.engine.variants import MAX_DELTAS
from tests.faults.lasting import wait_for
from tests.growth.answers import ask, check, iter_stream, reported, stream_text
from tests.growth.served import Grown
from tests.support.calibrated import checkpoint
from tests.support.engines import assert_recomputed
from tests.support.grown import VOCABULARY

pytestmark = pytest.mark.server


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


def test_the_openapi_document_says_what_the_routes_do_here(grown: Grown) -> None:
    paths = httpx.get(f"{grown.server.url}/openapi.json").json()["paths"]
    for path in ("/v1/load_lora_adapter", "/v1/unload_lora_adapter"):
        operation = paths[path]["post"]
        assert operation["summary"].endswith("oad Growth Delta")
        assert "growth delta" in operation["description"]
