"""docs/your-model.md run block by block, but for the download: on a stand-in for the released checkpoint."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from safetensors.torch import load_file

from model_impl.checkpoint.official_weights import open_weights
from tests.support.paths import ROOT
from tests.support.ports import free_ports
from tests.support.release import write_release
from tests.support.shell_pages import blocks, run_page
from tests.support.tiny import assert_same

pytestmark = pytest.mark.server

PAGE = (ROOT / "docs" / "your-model.md").read_text()


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("your-model")


@pytest.fixture(scope="module")
def outputs(directory: Path) -> Sequence[str]:
    assert "hf download" in blocks(PAGE)[0][0]
    write_release(directory / "TokenFormer-150M")
    return run_page(PAGE, directory, {"PORT=8000": f"PORT={free_ports(1)[0]}"}, left_out=[0])


def test_the_weights_keep_their_names_and_bits(outputs: Sequence[str], directory: Path) -> None:
    converted = load_file(directory / "tokenformer-150m" / "model.safetensors")
    assert_same(converted, open_weights(directory / "TokenFormer-150M"))
    assert "sequential.2.attention.query.key_param_tokens" in converted
    assert "next: tokenformer serve tokenformer-150m" in outputs[1]


def test_the_stop_string_is_in_the_generation_configuration(outputs: Sequence[str], directory: Path) -> None:
    entries = json.loads((directory / "tokenformer-150m" / "generation_config.json").read_text())
    assert entries == {"eos_token_id": 0, "stop_strings": ["\nUser:"]}
    assert json.dumps(entries, indent=2) in outputs[1]


def test_the_first_answers(outputs: Sequence[str], directory: Path) -> None:
    completion, chat = (json.loads((directory / f"{name}.json").read_text()) for name in ("completion", "chat"))
    (choice,) = completion["choices"]
    assert (choice["finish_reason"], choice["uncertainty"]["tokens"]) == ("length", 8)
    assert [choice["uncertainty"][name] for name in ("risk", "reason")] == [None, "no_calibration"]
    (said,) = chat["choices"]
    assert said["message"]["role"] == "assistant"
    assert said["message"]["content"]
    assert chat["model"] == completion["model"] == "tokenformer-150m"
