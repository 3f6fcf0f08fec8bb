"""Directories and Hub ids that a user names as a model."""

from __future__ import annotations

import json
import shutil
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from model_impl.checkpoint.fingerprint import fingerprint
from model_impl.checkpoint.reading import CheckpointError
from server.process.serve import check_features
from server.served.opening import open_model
from server.served.stock import StockModel
from server.served.tokenformer import TokenformerCheckpoint
from tests.support.demo_server import DEMO

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def stock(path: Path, **config: object) -> Path:
    path.mkdir()
    entries = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "max_position_embeddings": 64}
    (path / "config.json").write_text(json.dumps(entries | {"dtype": "bfloat16"} | config))
    save_file({"weight": torch.arange(4.0)}, path / "model.safetensors")
    return path


def refusal(name: object) -> str:
    with pytest.raises(CheckpointError) as error:
        open_model(str(name))
    line = str(error.value)
    assert "\n" not in line
    return line


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the Hub without network, which has the repository `someone/llama`."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    repository = tmp_path / "hub" / "models--someone--llama"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    (repository / "snapshots").mkdir()
    stock(repository / "snapshots" / COMMIT)
    return tmp_path


def test_a_tokenformer_has_every_feature() -> None:
    served = open_model(str(DEMO))
    assert isinstance(served, TokenformerCheckpoint)
    assert all(served.capabilities.as_dict().values())
    assert served.fingerprint() == fingerprint(DEMO)


def test_another_model_has_epistemic_uncertainty_where_its_architecture_is_known(tmp_path: Path) -> None:
    known, unknown = open_model(str(stock(tmp_path / "a"))), open_model(str(stock(tmp_path / "b", architectures=["B"])))
    assert [name for name, has in known.capabilities.as_dict().items() if has] == ["epistemic"]
    assert not any(unknown.capabilities.as_dict().values())
    assert known.longest == 64


def test_the_fingerprint_is_that_of_weights_and_configuration(tmp_path: Path) -> None:
    path = stock(tmp_path / "a")
    before = open_model(str(path)).fingerprint()
    copy = shutil.copytree(path, tmp_path / "b")
    entries = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(entries | {"transformers_version": "0", "_name_or_path": "elsewhere"}))
    assert open_model(str(copy)).fingerprint() == before
    (copy / "config.json").write_text(json.dumps(entries | {"rope_theta": 1.0}))
    assert open_model(str(copy)).fingerprint() != before
    save_file({"weight": torch.arange(4.0) + 1}, path / "model.safetensors")
    assert open_model(str(path)).fingerprint() != before


def test_a_model_of_the_hub_is_known_by_id_and_commit(hub: Path) -> None:
    served = open_model("someone/llama")
    assert isinstance(served, StockModel)
    assert served.fingerprint() == f"someone/llama@{COMMIT}"
    assert served.served_name == "someone/llama"
    assert served.directory is None


def test_a_model_that_the_hub_does_not_give_is_one_line(hub: Path) -> None:
    assert refusal("someone/else").startswith("someone/else: no such directory, and not to be had from the Hub (")


def test_a_mistyped_path_does_not_ask_the_hub(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(hub)
    for name in (hub / "nowhere", "nowhere", "./nowhere", "hub/nowhere"):
        assert refusal(name) == f"{name}: no such checkpoint directory"


def test_an_official_checkpoint_is_answered_with_the_command(tmp_path: Path) -> None:
    for file in ("pytorch_model.bin", "150M_eval.yml"):
        (tmp_path / file).touch()
    line = refusal(tmp_path)
    assert line.endswith(f"tokenformer convert {tmp_path} {tmp_path}-converted")


def test_an_official_checkpoint_on_the_hub_is_answered_with_both_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from httpx import Request, Response
    from huggingface_hub.errors import RemoteEntryNotFoundError

    def download(*_: object, **__: object) -> str:
        raise RemoteEntryNotFoundError("no config.json", response=Response(404, request=Request("GET", "http://hub")))

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(huggingface_hub, "list_repo_files", lambda *_, **__: ["pytorch_model.bin", "150M_eval.yml"])
    assert refusal("Haiyang-W/TokenFormer-150M").endswith(
        "hf download Haiyang-W/TokenFormer-150M --local-dir TokenFormer-150M && "
        "tokenformer convert TokenFormer-150M TokenFormer-150M-converted"
    )


def test_weights_in_pickles_are_refused(tmp_path: Path) -> None:
    path = stock(tmp_path / "a")
    (path / "model.safetensors").rename(path / "pytorch_model.bin")
    assert "has no *.safetensors" in refusal(path)


@pytest.mark.parametrize("flag", ["growth", "growth_root", "trace"])
def test_flags_of_what_another_model_lacks_are_refused(tmp_path: Path, flag: str) -> None:
    served = open_model(str(stock(tmp_path / "a")))
    given = {"growth": [], "growth_root": None, "trace": False}
    with pytest.raises(CheckpointError, match=f"--{flag.replace('_', '-')}: .*only a Tokenformer has"):
        check_features(Namespace(**given | {flag: True}), served)
    check_features(Namespace(**given), served)


def test_a_tokenformer_on_the_hub_is_answered_with_the_command(hub: Path) -> None:
    file = next(hub.glob("hub/*/snapshots/*/config.json"))
    file.write_text(json.dumps({"model_type": "tokenformer"}))
    assert refusal("someone/llama").endswith("hf download someone/llama --local-dir llama")


def test_the_commit_is_what_vllm_is_told_to_load(hub: Path) -> None:
    served = open_model("someone/llama")
    assert isinstance(served, StockModel)
    assert served.revision == COMMIT


def test_an_empty_weight_file_has_a_fingerprint(tmp_path: Path) -> None:
    path = stock(tmp_path / "a")
    (path / "model-2.safetensors").touch()
    assert len(open_model(str(path)).fingerprint()) == 64


def test_weights_count_as_they_are_served(tmp_path: Path) -> None:
    served = open_model(str(stock(tmp_path / "a")))
    size = (tmp_path / "a" / "model.safetensors").stat().st_size
    assert [served.weight_bytes(Namespace(dtype=name)) for name in ("bfloat16", "float32")] == [size, 2 * size]


def test_other_models_serve_texts_alone(tmp_path: Path) -> None:
    served = open_model(str(stock(tmp_path / "a")))
    assert served.settings(cpu=False) == {"language_model_only": True}
    assert open_model(str(DEMO)).settings(cpu=True) == {}
